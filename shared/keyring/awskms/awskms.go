// Package awskms wraps data keys with keys of AWS KMS. Use [New] and [keyring.Identity.UseKMS].
//
// Each key is asked for in the region that its ARN names. Nothing is asked before it is needed, and nobody waits long: a
// service that does not answer in [Options.Timeout] counts as unreachable. Credentials come from where the AWS tools find
// them. The library logs nothing here, and no error holds a data key.
package awskms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

// Timeout is how long one request may take, tries included, where Options name no other time.
const Timeout = 15 * time.Second

// Options says where the service is. The zero value is AWS's own, with the credentials of the environment.
type Options struct {
	Endpoint string        // URL of a server that is not AWS's
	Profile  string        // in the AWS configuration files
	Timeout  time.Duration // 0: Timeout
	// Config, if not nil, is what clients are made from; only the region is set.
	Config *aws.Config
}

// Client is KMS in all regions. It is safe for concurrent use.
type Client struct {
	options Options

	mu      sync.Mutex
	regions map[string]*kms.Client // guarded by mu
}

// New returns a client; it talks to nobody yet.
func New(o Options) *Client {
	return &Client{options: o, regions: map[string]*kms.Client{}}
}

// Encrypt implements [keyring.KMS].
func (c *Client) Encrypt(ctx context.Context, arn string, plain []byte, encryptionContext map[string]string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.options.Timeout, Timeout))
	defer cancel()
	client, err := c.region(ctx, arn)
	if err != nil {
		return nil, err
	}
	out, err := client.Encrypt(ctx, &kms.EncryptInput{KeyId: &arn, Plaintext: plain, EncryptionContext: encryptionContext})
	if err != nil {
		return nil, fmt.Errorf("encrypt with KMS: %w", short(err))
	}
	if aws.ToString(out.KeyId) != arn {
		return nil, fmt.Errorf("encrypt with KMS: the answer is by key %q", aws.ToString(out.KeyId))
	}
	return out.CiphertextBlob, nil
}

// Decrypt implements [keyring.KMS].
func (c *Client) Decrypt(ctx context.Context, arn string, wrapped []byte, encryptionContext map[string]string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.options.Timeout, Timeout))
	defer cancel()
	client, err := c.region(ctx, arn)
	if err != nil {
		return nil, err
	}
	out, err := client.Decrypt(ctx, &kms.DecryptInput{KeyId: &arn, CiphertextBlob: wrapped, EncryptionContext: encryptionContext})
	if err != nil {
		return nil, fmt.Errorf("decrypt with KMS: %w", short(err))
	}
	if aws.ToString(out.KeyId) != arn {
		clear(out.Plaintext)
		return nil, fmt.Errorf("decrypt with KMS: the answer is by key %q", aws.ToString(out.KeyId))
	}
	return out.Plaintext, nil
}

// region returns the client for the region of a key.
func (c *Client) region(ctx context.Context, arn string) (*kms.Client, error) {
	parts := strings.Split(arn, ":")
	if len(parts) != 6 || parts[2] != "kms" || parts[3] == "" {
		return nil, fmt.Errorf("key of KMS %q: not an ARN", arn)
	}
	region := parts[3]
	c.mu.Lock()
	defer c.mu.Unlock()
	if client := c.regions[region]; client != nil {
		return client, nil
	}
	var cfg aws.Config
	if c.options.Config != nil {
		cfg = c.options.Config.Copy()
		cfg.Region = region
	} else {
		load := []func(*config.LoadOptions) error{config.WithRegion(region), config.WithLogger(logging.Nop{})}
		if c.options.Profile != "" {
			load = append(load, config.WithSharedConfigProfile(c.options.Profile))
		}
		var err error
		if cfg, err = config.LoadDefaultConfig(ctx, load...); err != nil {
			return nil, fmt.Errorf("reach KMS in %s: %w", region, err)
		}
	}
	client := kms.NewFromConfig(cfg, func(o *kms.Options) {
		if c.options.Endpoint != "" {
			o.BaseEndpoint = &c.options.Endpoint
		}
	})
	c.regions[region] = client
	return client, nil
}

// short is an error of the service by its code and message alone: requests hold data keys, and what the library puts
// around an answer is of no use to anybody.
func short(err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		return fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
	}
	return err
}

// Package s3 keeps objects in an S3 bucket, that of AWS or of another vendor who honours If-None-Match on writes and
// x-amz-checksum-sha256. Use [Open].
//
// Each object is written by one PutObject whose SHA-256 the server checks twice: as a checksum that it records, and as
// what the signature covers. Credentials come from where the AWS tools find them: environment, profile, the machine's
// role; never from the repository's address. The AWS library's own retries are off: package retry does that.
package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/stall"
)

// Options says where the bucket is.
type Options struct {
	Bucket    string
	Prefix    string // of all keys in the bucket, without slashes at its ends; may be empty
	Region    string // empty: from the environment or the profile
	Endpoint  string // URL of a server that is not AWS's; empty: AWS
	Profile   string // in the AWS configuration files; empty: the default one
	PathStyle bool   // the bucket in the path instead of the host name, as many other vendors want it

	// Silence bounds the time in which nothing moves on a connection that is waited for, and the time between a request
	// and the first byte of its answer: who is silent for longer is taken for gone, so that a retry can reach another.
	// 0: stall.Silence.
	Silence time.Duration
}

const (
	// defaultRegion satisfies servers to which regions mean nothing.
	defaultRegion = "us-east-1"
	maxConns      = 64
)

// Store is an object store in a bucket.
type Store struct {
	client *s3.Client
	bucket string
	prefix string // ends in '/' or is empty
}

// Open returns the store. It talks to nobody yet, except where credentials are looked for.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Bucket == "" {
		return nil, errors.New("open S3 store: no bucket")
	}
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout = cmp.Or(o.Silence, stall.Silence)
		t.DialContext = stall.Dialer(t.DialContext, o.Silence)
		t.MaxIdleConnsPerHost = maxConns
		t.DisableCompression = true // what arrives must be what was stored
	})
	load := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithHTTPClient(client),
		config.WithLogger(logging.Nop{}), // what matters comes as an error
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("open S3 bucket %s: %w", o.Bucket, err)
	}
	if cfg.Region == "" {
		if o.Endpoint == "" {
			return nil, fmt.Errorf("open S3 bucket %s: no region; add ?region=… to the address or set AWS_REGION", o.Bucket)
		}
		cfg.Region = defaultRegion
	}
	s := &Store{bucket: o.Bucket, prefix: strings.Trim(o.Prefix, "/")}
	if s.prefix != "" {
		s.prefix += "/"
	}
	s.client = s3.NewFromConfig(cfg, func(c *s3.Options) {
		if o.Endpoint != "" {
			c.BaseEndpoint = aws.String(o.Endpoint)
		}
		c.UsePathStyle = o.PathStyle
		// We send our own SHA-256 and check what we read by ourselves.
		c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	return s, nil
}

// at returns the key in the bucket.
func (s *Store) at(key string) *string { return aws.String(s.prefix + key) }

// key returns the key in the store, and whether what is in the bucket can be an object of ours at all.
func (s *Store) key(at *string) (string, bool) {
	key, ok := strings.CutPrefix(aws.ToString(at), s.prefix)
	return key, ok && objstore.CheckKey(key) == nil
}

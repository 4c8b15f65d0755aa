package invoke

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/address"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
	"github.com/btcdecoded/holdfast/shared/objstore/s3"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/s3state"
)

// Cloud is the way to what the environment names. It is safe for concurrent use; what is read is kept for the next
// invocation of the same process.
type Cloud struct {
	Config aws.Config
	State  statestore.Store
	env    environment.Cloud

	mu         sync.Mutex
	policy     *policy.Policy         // guarded by mu
	policyTag  string                 // guarded by mu
	repository *repository.Repository // guarded by mu
	address    string                 // of repository; guarded by mu
	opened     time.Time              // when repository was; guarded by mu
}

// reopen is how long an opened repository is kept: then who may sign is read again.
const reopen = 5 * time.Minute

// Open makes the clients; it talks to nobody.
func Open(env environment.Cloud) (*Cloud, error) { return OpenIn(env, "") }

// OpenIn is Open for another region than the function's own.
func OpenIn(env environment.Cloud, region string) (*Cloud, error) {
	cfg, err := Config(os.Getenv)
	if err != nil {
		return nil, err
	}
	if region != "" {
		cfg.Region = region
	}
	endpoint := env.Endpoint
	if endpoint == "" {
		endpoint = Endpoint(os.Getenv, "S3")
	}
	return &Cloud{Config: cfg, env: env, State: s3state.New(cfg, s3state.Options{Bucket: env.State, Endpoint: endpoint})}, nil
}

// Config returns the configuration of AWS clients, made from the variables that Lambda sets. The library's own search
// for it costs more than all the rest of a cold start and looks at places that a function does not have.
func Config(getenv func(string) string) (aws.Config, error) {
	region := getenv("AWS_REGION")
	if region == "" {
		return aws.Config{}, errors.New("make AWS clients: no AWS_REGION in the environment")
	}
	cfg := aws.Config{
		Region: region,
		Credentials: aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			c := aws.Credentials{
				AccessKeyID: getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"),
				SessionToken: getenv("AWS_SESSION_TOKEN"), Source: "environment",
			}
			if !c.HasKeys() {
				return c, errors.New("no AWS credentials in the environment")
			}
			return c, nil
		})),
		HTTPClient: awshttp.NewBuildableClient().WithTimeout(time.Minute).WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConnsPerHost = 64
		}),
	}
	if at := getenv("AWS_ENDPOINT_URL"); at != "" {
		cfg.BaseEndpoint = aws.String(at)
	}
	return cfg, nil
}

// Endpoint returns the URL of a server that stands in for an AWS service ("S3", "SQS"); empty for AWS's own.
func Endpoint(getenv func(string) string, service string) string {
	if at := getenv("AWS_ENDPOINT_URL_" + service); at != "" {
		return at
	}
	return getenv("AWS_ENDPOINT_URL")
}

// Policy returns the policy that is in force and its tag, which changes with each upload. The text is parsed again only
// where the tag is another. A policy that can't be read is an error: without it, nothing is decided.
func (c *Cloud) Policy(ctx context.Context) (*policy.Policy, string, error) {
	c.mu.Lock()
	have, tag := c.policy, c.policyTag
	c.mu.Unlock()
	body, tag, err := statestore.GetUnless(ctx, c.State, control.PolicyKey, tag)
	switch {
	case errors.Is(err, statestore.ErrUnmodified):
		return have, tag, nil
	case errors.Is(err, statestore.ErrNotExist):
		return nil, "", fmt.Errorf("read policy %s: %w: upload it, then the control plane begins to work", control.PolicyKey, err)
	case err != nil:
		return nil, "", fmt.Errorf("read policy %s: %w", control.PolicyKey, err)
	}
	p, err := policy.Parse(body)
	if err != nil {
		return nil, tag, fmt.Errorf("read policy %s (%s): %w", control.PolicyKey, tag, err)
	}
	Log(ctx).Info("policy", "tag", tag, "hosts", len(p.Hosts))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy, c.policyTag = p, tag
	return p, tag, nil
}

// Repository opens the repository of the policy (or that of the environment) with the trust anchor and, where the
// function has one, the signer that the parameters hold. Neither is ever logged.
func (c *Cloud) Repository(ctx context.Context, p *policy.Policy) (*repository.Repository, error) {
	at := c.env.Repository
	if at == "" {
		at = p.Repository.Primary
	}
	if at == "" {
		return nil, errors.New("open repository: the policy names none: set repository.primary")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.repository != nil && c.address == at && time.Since(c.opened) < reopen {
		return c.repository, nil
	}
	identity, err := c.identity(ctx)
	if err != nil {
		return nil, err
	}
	store, err := Store(ctx, at)
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, store, identity)
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	c.repository, c.address, c.opened = repo, at, time.Now()
	return repo, nil
}

// Store opens the object store at an address in S3. Package objstore/open knows more kinds; linking all of them would
// double what each cold start costs.
func Store(ctx context.Context, at string) (objstore.Store, error) {
	l, err := address.Parse(at)
	if err != nil {
		return nil, err
	}
	if l.Scheme != "s3" {
		return nil, fmt.Errorf("open repository: the control plane works on one in S3, not on one of kind %s", l.Scheme)
	}
	store, err := s3.Open(ctx, s3.Options{
		Bucket: l.S3.Bucket, Prefix: l.S3.Prefix, Region: l.S3.Region, Endpoint: l.S3.Endpoint, PathStyle: l.S3.PathStyle,
	})
	if err != nil {
		return nil, err
	}
	return retry.New(store, retry.Options{}), nil
}

// identity joins the parameters to an identity.
func (c *Cloud) identity(ctx context.Context) (*keyring.Identity, error) {
	names := []string{c.env.Trust}
	if c.env.Signer != "" {
		names = append(names, c.env.Signer)
	}
	client := ssm.NewFromConfig(c.Config, func(o *ssm.Options) {
		if at := Endpoint(os.Getenv, "SSM"); at != "" {
			o.BaseEndpoint = aws.String(at)
		}
	})
	out, err := client.GetParameters(ctx, &ssm.GetParametersInput{Names: names, WithDecryption: aws.Bool(true)})
	if err != nil {
		return nil, fmt.Errorf("read parameters %s: %w", strings.Join(names, ", "), err)
	}
	if len(out.InvalidParameters) > 0 {
		return nil, fmt.Errorf("read parameters: not there: %s", strings.Join(out.InvalidParameters, ", "))
	}
	var text strings.Builder
	for _, p := range out.Parameters {
		text.WriteString(aws.ToString(p.Value) + "\n")
	}
	identity, err := keyring.ParseIdentity(strings.NewReader(text.String()))
	if err != nil {
		// The parser's errors may repeat the line that they are about, which may be a secret.
		return nil, fmt.Errorf("read parameters %s: not an identity: want its lines as “holdfast key” prints them", strings.Join(names, ", "))
	}
	return identity, nil
}

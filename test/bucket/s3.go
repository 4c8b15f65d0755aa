package bucket

import (
	"context"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/test/program"
)

const (
	region    = "us-east-1"
	accessKey = "holdfast-test"
	secretKey = "not a secret: only for tests" //nolint:gosec // as it says
)

// S3 is an S3 server.
type S3 struct {
	Endpoint string // http://127.0.0.1:port
	Dir      string // each bucket is a directory in it
	Client   *s3.Client
}

// Options describes a bucket. The zero value is one without versions and locks.
type Options struct {
	Versioned bool
	// Lock is the mode of the bucket's default retention of one day: GOVERNANCE, COMPLIANCE, or none if empty.
	Lock types.ObjectLockRetentionMode
}

// StartS3 starts versitygw and sets the environment so that AWS clients in this process and in those that it starts
// find its credentials and none else.
func StartS3(t testing.TB) *S3 {
	t.Helper()
	program := tool(t, "versitygw", "github.com/versity/versitygw/cmd/versitygw")
	top := attributed(t)
	dirs := map[string]string{"data": "", "versions": ""}
	for name := range dirs {
		dirs[name] = filepath.Join(top, name)
		if err := os.Mkdir(dirs[name], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	address := start(t, "versitygw", func(address string) *exec.Cmd {
		cmd := exec.Command(program, "--port", address, "--region", region, "--quiet",
			"posix", "--versioning-dir", dirs["versions"], dirs["data"])
		cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+accessKey, "ROOT_SECRET_ACCESS_KEY="+secretKey)
		return cmd
	})
	s := &S3{Endpoint: "http://" + address, Dir: dirs["data"]}
	for _, e := range s.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	s.Client = s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Endpoint), Region: region, UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, nil
		}),
	})
	return s
}

// attributed returns a directory that lives as long as the test on a file system with extended attributes, in which the
// server keeps what belongs to its objects (beside them, with --sidecar, it forgets to remove that of versions).
func attributed(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if unix.Setxattr(dir, "user.holdfast", []byte("x"), 0) == nil {
		return dir
	}
	root, err := program.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir, err = os.MkdirTemp(filepath.Join(root, ".cache"), "s3-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Env returns the environment in which AWS clients find the server's credentials.
func (*S3) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_SESSION_TOKEN=", "AWS_PROFILE=",
		"AWS_REGION=" + region, "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Make makes a bucket.
func (s *S3) Make(t testing.TB, bucket string, o Options) {
	t.Helper()
	locked := o.Lock != ""
	_, err := s.Client.CreateBucket(context.Background(), &s3.CreateBucketInput{
		Bucket: &bucket, ObjectLockEnabledForBucket: aws.Bool(locked),
	})
	if err != nil {
		t.Fatalf("make bucket %s: %v", bucket, err)
	}
	if o.Versioned || locked {
		_, err := s.Client.PutBucketVersioning(context.Background(), &s3.PutBucketVersioningInput{
			Bucket:                  &bucket,
			VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
		})
		if err != nil {
			t.Fatalf("enable versions of bucket %s: %v", bucket, err)
		}
	}
	if !locked {
		return
	}
	_, err = s.Client.PutObjectLockConfiguration(context.Background(), &s3.PutObjectLockConfigurationInput{
		Bucket: &bucket,
		ObjectLockConfiguration: &types.ObjectLockConfiguration{
			ObjectLockEnabled: types.ObjectLockEnabledEnabled,
			Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{
				Mode: o.Lock, Days: aws.Int32(1),
			}},
		},
	})
	if err != nil {
		t.Fatalf("lock bucket %s: %v", bucket, err)
	}
}

// Age makes everything that is in a bucket below a prefix older, as if it had arrived earlier by the server's clock.
func (s *S3) Age(t testing.TB, bucket, prefix string, by time.Duration) {
	t.Helper()
	root := filepath.Join(s.Dir, bucket)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(strings.TrimPrefix(name, root+"/"), prefix) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at := info.ModTime().Add(-by)
		return os.Chtimes(name, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// URL returns the address of a repository in the bucket.
func (s *S3) URL(bucket, prefix string) string { return S3URL(s.Endpoint, bucket, prefix) }

// S3URL is URL for another endpoint, such as that of a [Proxy].
func S3URL(endpoint, bucket, prefix string) string {
	q := url.Values{"endpoint": {endpoint}, "region": {region}, "path_style": {"true"}}
	u := url.URL{Scheme: "s3", Host: bucket, Path: prefix, RawQuery: q.Encode()}
	return u.String()
}

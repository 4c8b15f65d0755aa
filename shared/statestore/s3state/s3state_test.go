package s3state_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/s3state"
	"github.com/btcdecoded/holdfast/shared/statestore/statetest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// config has credentials that no server of a test looks at.
func config() aws.Config {
	return aws.Config{Region: "us-east-1", Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})}
}

func TestStore(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "state", bucket.Options{})
	cfg := aws.Config{Region: server.Client.Options().Region, Credentials: server.Client.Options().Credentials}
	for name, o := range map[string]s3state.Options{
		// Not on a bucket with versions: there versitygw compares If-Match with the version below a delete marker, AWS
		// with none.
		"plain":  {Bucket: "state"},
		"prefix": {Bucket: "state", Prefix: "cloud/holdfast/"},
	} {
		t.Run(name, func(t *testing.T) {
			o.Endpoint = server.Endpoint
			statetest.Run(t, s3state.New(cfg, o))
		})
	}
	t.Run("no bucket", func(t *testing.T) {
		s := s3state.New(cfg, s3state.Options{Bucket: "nowhere", Endpoint: server.Endpoint})
		if _, _, err := s.Get(context.Background(), "x"); err == nil || errors.Is(err, statestore.ErrNotExist) {
			t.Errorf("get: %v: want an error that is not that of an absent document", err)
		}
	})
	t.Run("denied", func(t *testing.T) {
		key, err := cfg.Credentials.Retrieve(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		wrong := cfg
		wrong.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: "another"}, nil
		})
		s := s3state.New(wrong, s3state.Options{Bucket: "state", Endpoint: server.Endpoint})
		if _, _, err := s.Get(context.Background(), "x"); !errors.Is(err, statestore.ErrDenied) {
			t.Errorf("get: %v", err)
		}
		if _, err := s.Put(context.Background(), "x", nil, ""); !errors.Is(err, statestore.ErrDenied) {
			t.Errorf("put: %v", err)
		}
	})
}

// TestAnswers lets a server answer as AWS does where versitygw does not.
func TestAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		code   string
		want   error // nil: none of the contract's
		calls  int32
	}{
		"another writer at the same time": {http.StatusConflict, "ConditionalRequestConflict", statestore.ErrConflict, 1},
		"another version":                 {http.StatusPreconditionFailed, "PreconditionFailed", statestore.ErrConflict, 1},
		"nothing to replace":              {http.StatusNotFound, "NoSuchKey", statestore.ErrConflict, 1},
		"denied":                          {http.StatusForbidden, "AccessDenied", statestore.ErrDenied, 1},
		"slow down":                       {http.StatusServiceUnavailable, "SlowDown", nil, 4},
		"internal":                        {http.StatusInternalServerError, "InternalError", nil, 4},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				if r.Header.Get("If-Match") != `"tag"` {
					t.Errorf("If-Match %q", r.Header.Get("If-Match"))
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte("<Error><Code>" + tt.code + "</Code><Message>no</Message></Error>"))
			}))
			defer server.Close()
			s := s3state.New(config(), s3state.Options{Bucket: "state", Endpoint: server.URL})
			_, err := s.Put(context.Background(), "x.json", []byte("{}"), `"tag"`)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || calls.Load() != tt.calls {
				t.Errorf("%v after %d calls", err, calls.Load())
			}
			for _, known := range []error{statestore.ErrConflict, statestore.ErrNotExist, statestore.ErrDenied} {
				if tt.want == nil && errors.Is(err, known) {
					t.Errorf("taken for %v: %v", known, err)
				}
			}
			if !strings.Contains(err.Error(), "s3://state/x.json") {
				t.Errorf("the error does not name the object: %v", err)
			}
		})
	}
}

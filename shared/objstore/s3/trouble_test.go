package s3_test

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/s3"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/bucket/network"
)

func TestNetwork(t *testing.T) {
	server := bucket.StartS3(t)
	network.Run(t, network.Driver{
		Endpoint: server.Endpoint,
		Make:     func(t *testing.T, name string) { server.Make(t, name, bucket.Options{Versioned: true}) },
		Open: func(t *testing.T, endpoint, name string, silence time.Duration) network.Store {
			s, err := s3.Open(t.Context(), s3.Options{Bucket: name, Endpoint: endpoint, PathStyle: true, Silence: silence})
			if err != nil {
				t.Fatal(err)
			}
			return served{s, filepath.Join(server.Dir, name)}
		},
		Puts:  func(r *http.Request) bool { return r.Method == http.MethodPut },
		Reads: func(r *http.Request) bool { return strings.Count(r.URL.Path, "/") > 1 && r.Method != http.MethodPut },
	})
}

// What is changed on the way is refused by the server, by the checksum and by the signature.
func TestServerChecks(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	proxy := bucket.StartProxy(t, server.Endpoint, func(r *http.Request) bucket.Trouble {
		if r.Method == http.MethodPut {
			return bucket.Alter
		}
		return bucket.Pass
	})
	s := open(t, proxy.Endpoint, "bucket", "")
	for _, size := range []int{1, 5000, 3 << 20} {
		err := s.Put(t.Context(), "k", objstore.Bytes(make([]byte, size)))
		if !errors.Is(err, objstore.ErrChecksum) {
			t.Errorf("%d bytes: got %v", size, err)
		}
		if _, err := s.Stat(t.Context(), "k"); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("an altered object was stored: %v", err)
		}
	}
}

func TestObjectLock(t *testing.T) {
	server := bucket.StartS3(t)
	for _, mode := range types.ObjectLockRetentionModeGovernance.Values() {
		t.Run(string(mode), func(t *testing.T) {
			name := "locked-" + strings.ToLower(string(mode))
			server.Make(t, name, bucket.Options{Lock: mode})
			s := open(t, server.Endpoint, name, "")
			if err := s.Put(t.Context(), "v1/x", objstore.Bytes([]byte("data"))); err != nil {
				t.Fatal(err)
			}
			if err := s.Put(t.Context(), "v1/x", objstore.Bytes([]byte("other"))); !errors.Is(err, objstore.ErrExist) {
				t.Errorf("overwrite: %v", err)
			}
			if err := s.Delete(t.Context(), "v1/x"); !errors.Is(err, objstore.ErrLocked) || objstore.IsTransient(err) {
				t.Errorf("delete: %v", err)
			}
			b, err := objstore.ReadAll(t.Context(), s, "v1/x", 10)
			if err != nil || string(b) != "data" {
				t.Errorf("the object is %q, %v", b, err)
			}
			if err := s.Delete(t.Context(), "v1/none"); err != nil {
				t.Errorf("delete of absent: %v", err)
			}
		})
	}
}

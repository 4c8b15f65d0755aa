package s3_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

func quick() retry.Options {
	return retry.Options{First: time.Millisecond, Longest: 5 * time.Millisecond}
}

// The whole suite through a network on which half of the requests meet with some trouble.
func TestConformanceWithTrouble(t *testing.T) {
	server := bucket.StartS3(t)
	n := 0
	proxy := bucket.StartProxy(t, server.Endpoint, bucket.Unreliable(1, 2))
	storetest.Run(t, func(t *testing.T) objstore.Store {
		n++
		b := fmt.Sprintf("bucket-%d", n)
		server.Make(t, b, bucket.Options{Versioned: true})
		return retry.New(open(t, proxy.Endpoint, b, ""), quick())
	})
}

// Each kind of trouble with each operation, without retries: it must be told as passing.
func TestTroubleIsTransient(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	var now atomic.Int32
	proxy := bucket.StartProxy(t, server.Endpoint, func(*http.Request) bucket.Trouble { return bucket.Trouble(now.Load()) })
	s, direct := open(t, proxy.Endpoint, "bucket", ""), open(t, server.Endpoint, "bucket", "")
	to := func(trouble bucket.Trouble) func() { return func() { now.Store(int32(trouble)) } }
	storetest.RunTrouble(t, storetest.Network{
		Store: s, Direct: direct, Lost: to(bucket.CutAnswer), Cut: to(bucket.CutBody),
		Before: []func(){to(bucket.Unavailable), to(bucket.Throttle), to(bucket.Cut)},
	})
}

// A lost answer needs no second upload.
func TestLostAnswerIsRecognised(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	puts := 0
	proxy := bucket.StartProxy(t, server.Endpoint, func(r *http.Request) bucket.Trouble {
		if r.Method == http.MethodPut {
			puts++
			return bucket.CutAnswer
		}
		return bucket.Pass
	})
	s := open(t, proxy.Endpoint, "bucket", "")
	if err := s.Put(t.Context(), "k", objstore.Bytes([]byte("data"))); err != nil || puts != 1 {
		t.Errorf("%v after %d puts", err, puts)
	}
	if err := s.Put(t.Context(), "k", objstore.Bytes([]byte("other"))); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("got %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	server := bucket.StartS3(t)
	proxy := bucket.StartProxy(t, server.Endpoint, func(*http.Request) bucket.Trouble { return bucket.Cut })
	address := strings.Replace(proxy.Endpoint, "127.0.0.1", "127.0.0.2", 1) // nothing is bound there
	err := open(t, address, "bucket", "").Put(t.Context(), "k", objstore.Bytes(nil))
	if !objstore.IsTransient(err) {
		t.Errorf("got %v", err)
	}
}

// Credentials that may add and list, and not read: a lost answer is still recognised.
func TestWriteOnlyCredentials(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	proxy := bucket.StartProxy(t, server.Endpoint, func(r *http.Request) bucket.Trouble {
		if strings.Count(r.URL.Path, "/") > 1 && r.Method != http.MethodPut {
			return bucket.Forbid
		}
		return bucket.Pass
	})
	s := open(t, proxy.Endpoint, "bucket", "")
	storetest.RunWriteOnly(t, s)
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

// A server that passes over the range must not be taken for one that keeps to it.
func TestRangeIgnored(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0123456789") }))
	t.Cleanup(server.Close)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"} {
		t.Setenv(name, "test")
	}
	s := open(t, server.URL, "bucket", "")
	if _, err := s.Get(t.Context(), "k", 5, 2); err == nil || objstore.IsTransient(err) || !strings.Contains(err.Error(), "answered with range") {
		t.Errorf("got %v", err)
	}
	if b, err := objstore.ReadAll(t.Context(), s, "k", 10); err != nil || string(b) != "0123456789" {
		t.Errorf("from the beginning: %q, %v", b, err)
	}
}

package gs_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/gs"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// The whole suite through a network on which half of the requests meet with some trouble.
func TestConformanceWithTrouble(t *testing.T) {
	server := bucket.StartGS(t)
	n := 0
	proxy := bucket.StartProxy(t, server.Endpoint, bucket.Unreliable(1, 2))
	storetest.Run(t, func(t *testing.T) objstore.Store {
		n++
		b := fmt.Sprintf("bucket-%d", n)
		server.Make(t, b)
		s := open(t, gs.Options{Bucket: b, Endpoint: proxy.Endpoint})
		return retry.New(s, retry.Options{First: time.Millisecond, Longest: 5 * time.Millisecond})
	})
}

// Each kind of trouble with each operation, without retries: it must be told as passing.
func TestTroubleIsTransient(t *testing.T) {
	server := bucket.StartGS(t)
	server.Make(t, "bucket")
	var now atomic.Int32
	proxy := bucket.StartProxy(t, server.Endpoint, func(*http.Request) bucket.Trouble { return bucket.Trouble(now.Load()) })
	s := open(t, gs.Options{Bucket: "bucket", Endpoint: proxy.Endpoint})
	direct := open(t, gs.Options{Bucket: "bucket", Endpoint: server.Endpoint})
	to := func(trouble bucket.Trouble) func() { return func() { now.Store(int32(trouble)) } }
	storetest.RunTrouble(t, storetest.Network{
		Store: s, Direct: direct, Lost: to(bucket.CutAnswer), Cut: to(bucket.CutBody),
		Before: []func(){to(bucket.Unavailable), to(bucket.Throttle), to(bucket.Cut)},
	})
}

// Credentials that may add and list, and not read: a lost answer is still recognised.
func TestWriteOnlyCredentials(t *testing.T) {
	server := bucket.StartGS(t)
	server.Make(t, "bucket")
	proxy := bucket.StartProxy(t, server.Endpoint, func(r *http.Request) bucket.Trouble {
		if r.Method != http.MethodPost && !strings.HasSuffix(r.URL.Path, "/o") {
			return bucket.Forbid
		}
		return bucket.Pass
	})
	s := open(t, gs.Options{Bucket: "bucket", Endpoint: proxy.Endpoint})
	storetest.RunWriteOnly(t, s)
}

func TestEmulatorFromEnvironment(t *testing.T) {
	server := bucket.StartGS(t)
	server.Make(t, "bucket")
	t.Setenv("STORAGE_EMULATOR_HOST", server.Endpoint)
	s := open(t, gs.Options{Bucket: "bucket"})
	if err := s.Put(t.Context(), "k", objstore.Bytes([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	if b, err := objstore.ReadAll(t.Context(), s, "k", 10); err != nil || string(b) != "data" {
		t.Errorf("%q, %v", b, err)
	}
}

// A server that passes over the range must not be taken for one that keeps to it.
func TestRangeIgnored(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "" {
			t.Errorf("the client accepts %q: what arrives may not be what was stored", got)
		}
		_, _ = io.WriteString(w, "0123456789")
	}))
	t.Cleanup(server.Close)
	s := open(t, gs.Options{Bucket: "bucket", Endpoint: server.URL})
	if _, err := s.Get(t.Context(), "k", 5, 2); err == nil || objstore.IsTransient(err) || !strings.Contains(err.Error(), "answered with range") {
		t.Errorf("got %v", err)
	}
	if b, err := objstore.ReadAll(t.Context(), s, "k", 10); err != nil || string(b) != "0123456789" {
		t.Errorf("from the beginning: %q, %v", b, err)
	}
}

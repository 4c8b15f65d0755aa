package gs_test

import (
	"bytes"
	"errors"
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
	data := bytes.Repeat([]byte("data"), 1000)
	if err := s.Put(t.Context(), "old", objstore.Bytes(data)); err != nil {
		t.Fatal(err)
	}
	for i, trouble := range []bucket.Trouble{bucket.Unavailable, bucket.Throttle, bucket.Cut, bucket.CutAnswer} {
		now.Store(int32(trouble))
		key := fmt.Sprintf("new-%d", i)
		errs := map[string]error{
			"put":    s.Put(t.Context(), key, objstore.Bytes(data)),
			"list":   s.List(t.Context(), "", func(objstore.Info) error { return nil }),
			"delete": s.Delete(t.Context(), "none"),
		}
		_, errs["get"] = s.Get(t.Context(), "old", 0, -1)
		_, errs["stat"] = s.Stat(t.Context(), "old")
		for op, err := range errs {
			if !objstore.IsTransient(err) {
				t.Errorf("trouble %d: %s: %v", trouble, op, err)
			}
		}
		_, err := direct.Stat(t.Context(), key)
		if arrived := err == nil; arrived != (trouble == bucket.CutAnswer) {
			t.Errorf("trouble %d: the object is there: %v (%v)", trouble, arrived, err)
		}
	}
	now.Store(int32(bucket.CutBody))
	r, err := s.Get(t.Context(), "old", 0, -1)
	if err == nil {
		_, err = io.ReadAll(r)
		_ = r.Close()
	}
	if !objstore.IsTransient(err) {
		t.Errorf("a body that was cut: %v", err)
	}
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
	for range 2 {
		if err := s.Put(t.Context(), "k", objstore.Bytes([]byte("data"))); err != nil {
			t.Error(err)
		}
	}
	for _, other := range []string{"DATA", "longer data"} {
		if err := s.Put(t.Context(), "k", objstore.Bytes([]byte(other))); !errors.Is(err, objstore.ErrExist) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := s.Get(t.Context(), "k", 0, -1); !errors.Is(err, objstore.ErrDenied) || objstore.IsTransient(err) {
		t.Errorf("got %v", err)
	}
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

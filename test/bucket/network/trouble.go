package network

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

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/test/bucket"
)

func put(t *testing.T, s objstore.Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, objstore.Bytes(data)); err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
}

// drain reads an object to its end.
func drain(t *testing.T, s objstore.Store, key string) error {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	_, err = io.Copy(io.Discard, r)
	return err
}

// transient has each kind of trouble with each operation, without retries: it must be told as one that may pass.
func transient(t *testing.T, d Driver) {
	name := d.bucket(t, "transient")
	var now atomic.Int32
	s := d.through(t, name, func(*http.Request) bucket.Trouble { return bucket.Trouble(now.Load()) })
	direct := d.direct(t, name)
	data := bytes.Repeat([]byte("data"), 1000)
	put(t, direct, "old", data)
	for _, trouble := range []bucket.Trouble{bucket.Unavailable, bucket.Throttle, bucket.Cut, bucket.CutAnswer} {
		now.Store(int32(trouble))
		key := fmt.Sprintf("new-%d", trouble)
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
	if err := drain(t, s, "old"); !objstore.IsTransient(err) {
		t.Errorf("a body that was cut: %v", err)
	}
}

// lostAnswer needs no second upload.
func lostAnswer(t *testing.T, d Driver) {
	name := d.bucket(t, "lost-answer")
	var puts atomic.Int32
	s := d.through(t, name, only(func(r *http.Request) bool {
		if d.Puts(r) {
			puts.Add(1)
			return true
		}
		return false
	}, bucket.CutAnswer))
	if err := s.Put(t.Context(), "k", objstore.Bytes([]byte("data"))); err != nil || puts.Load() != 1 {
		t.Errorf("%v after %d puts", err, puts.Load())
	}
	if err := s.Put(t.Context(), "k", objstore.Bytes([]byte("other"))); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("got %v", err)
	}
}

// writeOnly has credentials that may add and list, and not read: what is there already is still recognised.
func writeOnly(t *testing.T, d Driver) {
	s := d.through(t, d.bucket(t, "write-only"), only(d.Reads, bucket.Forbid))
	for range 2 {
		put(t, s, "k", []byte("data"))
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

// nobodyListens where the store should be.
func nobodyListens(t *testing.T, d Driver) {
	address := strings.Replace(bucket.StartProxy(t, d.Endpoint, func(*http.Request) bucket.Trouble { return bucket.Cut }).Endpoint,
		"127.0.0.1", "127.0.0.2", 1) // nothing is bound there
	if err := d.Open(t, address, "bucket", 0).Put(t.Context(), "k", objstore.Bytes(nil)); !objstore.IsTransient(err) {
		t.Errorf("got %v", err)
	}
}

// rangeIgnored has a server that passes over the range: it must not be taken for one that keeps to it.
func rangeIgnored(t *testing.T, d Driver) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "" && got != "identity" {
			t.Errorf("the client accepts %q: what arrives may not be what was stored", got)
		}
		_, _ = io.WriteString(w, "0123456789")
	}))
	t.Cleanup(server.Close)
	s := d.Open(t, server.URL, "bucket", 0)
	if _, err := s.Get(t.Context(), "k", 5, 2); err == nil || objstore.IsTransient(err) || !strings.Contains(err.Error(), "answered with range") {
		t.Errorf("got %v", err)
	}
	if b, err := objstore.ReadAll(t.Context(), s, "k", 10); err != nil || string(b) != "0123456789" {
		t.Errorf("from the beginning: %q, %v", b, err)
	}
}

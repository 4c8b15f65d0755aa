package s3_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/s3"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// A server that takes a connection and then says and takes nothing any more, at once, in the middle of a request or in
// the middle of an answer, is given up, and the error is one that a retry may cure.
func TestSilenceIsTransient(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	if err := open(t, server.Endpoint, "bucket", "").Put(t.Context(), "old", objstore.Bytes(make([]byte, 12<<20))); err != nil {
		t.Fatal(err)
	}
	const silence = 400 * time.Millisecond
	for _, after := range []int64{0, 300, 1 << 20} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			proxy := bucket.StartLines(t, server.Endpoint, func() bucket.Line { return bucket.Line{After: after, Then: bucket.Silent} })
			s, err := s3.Open(t.Context(), s3.Options{Bucket: "bucket", Endpoint: proxy.Endpoint, PathStyle: true, Silence: silence})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for op, call := range map[string]func() error{
				"put": func() error { return s.Put(t.Context(), "new", objstore.Bytes(make([]byte, 16<<20))) },
				"get": func() error { return readAll(t, s, "old") },
			} {
				if err := call(); !objstore.IsTransient(err) {
					t.Errorf("%s: %v", op, err)
				}
			}
			// A put looks afterwards whether the object has arrived.
			if took := time.Since(began); took > 3*silence+20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func readAll(t *testing.T, s *s3.Store, key string) error {
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	_, err = io.Copy(io.Discard, r)
	return err
}

// Slow is not silent: what moves, however slowly, arrives.
func TestSlowArrives(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	const silence = 2 * time.Second
	proxy := bucket.StartLines(t, server.Endpoint, func() bucket.Line { return bucket.Line{Delay: 40 * time.Millisecond} })
	s, err := s3.Open(t.Context(), s3.Options{Bucket: "bucket", Endpoint: proxy.Endpoint, PathStyle: true, Silence: silence})
	if err != nil {
		t.Fatal(err)
	}
	if err := open(t, server.Endpoint, "bucket", "").Put(t.Context(), "k", objstore.Bytes(make([]byte, 1500<<10))); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := readAll(t, s, "k"); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < silence {
		t.Errorf("it took only %s", took)
	}
}

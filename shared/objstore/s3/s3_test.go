package s3_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/s3"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

func open(t *testing.T, endpoint, name, prefix string) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), s3.Options{Bucket: name, Prefix: prefix, Endpoint: endpoint, PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// served is a store whose server keeps each object as a file.
type served struct {
	*s3.Store
	dir string
}

func (s served) Fill(t *testing.T, keys []string) {
	t.Helper()
	for _, key := range keys {
		path := filepath.Join(s.dir, filepath.FromSlash(key))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(key), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]bucket.Options{"plain": {}, "versioned": {Versioned: true}} {
		t.Run(name, func(t *testing.T) {
			server, n := bucket.StartS3(t), 0
			storetest.Run(t, func(t *testing.T) objstore.Store {
				n++
				b := fmt.Sprintf("bucket-%d", n)
				server.Make(t, b, o)
				return served{open(t, server.Endpoint, b, "below/a prefix/"), filepath.Join(server.Dir, b, "below", "a prefix")}
			})
		})
	}
}

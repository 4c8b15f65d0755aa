package open_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/limit"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

func TestOpenMemory(t *testing.T) {
	if _, err := open.Open(t.Context(), "mem:x", open.Options{}); err == nil {
		t.Error("mem: is for tests only")
	}
	storetest.Run(t, func(t *testing.T) objstore.Store {
		s, err := open.Open(t.Context(), "mem:x", open.Options{
			Limit:  limit.Options{Parallel: 4, Upload: 1 << 30, Download: 1 << 30},
			Memory: func(string) (objstore.Store, error) { return mem.New(), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestOpenRealStores(t *testing.T) {
	awsServer, google := bucket.StartS3(t), bucket.StartGS(t)
	awsServer.Make(t, "bucket", bucket.Options{})
	google.Make(t, "bucket")
	dir := filepath.Join(t.TempDir(), "a b")
	for _, address := range []string{dir, "file://" + strings.ReplaceAll(dir, " ", "%20") + "2", awsServer.URL("bucket", "p/q"), google.URL("bucket", "p/q")} {
		s, err := open.Open(t.Context(), address, open.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "v1/x", objstore.Bytes([]byte("data"))); err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		b, err := objstore.ReadAll(t.Context(), s, "v1/x", 100)
		if err != nil || string(b) != "data" {
			t.Errorf("%s: %q %v", address, b, err)
		}
	}
	for _, p := range []string{dir, dir + "2", filepath.Join(awsServer.Dir, "bucket", "p", "q")} {
		if b, err := os.ReadFile(filepath.Join(p, "v1", "x")); err != nil || string(b) != "data" {
			t.Errorf("%s: %q %v", p, b, err)
		}
	}
}

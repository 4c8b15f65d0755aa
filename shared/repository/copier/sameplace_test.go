package copier_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestSamePlace copies a repository to itself: it must not become a copy, whose arrivals nobody believes any more.
func TestSamePlace(t *testing.T) {
	f := history(t)
	before := f.Store.Keys()
	if _, err := copier.Run(t.Context(), f.Repo, f.Store, copier.Options{}); !errors.Is(err, copier.ErrSamePlace) {
		t.Errorf("%v", err)
	}
	if after := f.Store.Keys(); !slices.Equal(before, after) {
		t.Errorf("%q", after)
	}
	// A directory with two names, of which no path tells that they are one.
	dir := t.TempDir()
	one, err := file.Open(filepath.Join(dir, "one"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range before {
		b, _ := f.Store.Object(key)
		if err := one.Put(t.Context(), key, objstore.Bytes(b)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("one", filepath.Join(dir, "two")); err != nil {
		t.Fatal(err)
	}
	two, err := file.Open(filepath.Join(dir, "two"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copier.Run(t.Context(), f.Open(t, one), two, copier.Options{}); !errors.Is(err, copier.ErrSamePlace) {
		t.Errorf("%v", err)
	}
	if _, err := one.Stat(t.Context(), layout.CopyKey); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("it is a copy now: %v", err)
	}
	// A place with the same objects, such as rsync makes it, is another one.
	if res, err := copier.Run(t.Context(), f.Repo, two, copier.Options{}); err != nil || !res.OK() {
		t.Errorf("%v, %+v", err, res)
	}
	if left := repotest.Keys(f.Store, objstore.ProbePrefix); len(left) > 0 {
		t.Errorf("%q", left)
	}
}

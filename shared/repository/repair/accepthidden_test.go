package repair_test

import (
	"errors"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestAcceptHidden: a manifest that somebody has hidden is not gone for good, and its loss can't be accepted as long as the store
// has it. Garbage is nothing that it has.
func TestAcceptHidden(t *testing.T) {
	f, _ := versioned(t)
	key := layout.ManifestKey(f.ID(2))
	f.Store.Overwrite(key, []byte("garbage"))
	if err := f.Store.Hide(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := repair.AcceptMissing(t.Context(), f.Open(t, f.Store), f.ID(2), f.Now); !errors.Is(err, repair.ErrHidden) {
		t.Errorf("%v", err)
	}
	if left := repotest.Keys(f.Store, "/expired/"); len(left) > 0 {
		t.Errorf("%q", left)
	}
	if _, err := repair.Undelete(t.Context(), f.Store, f.Identity, repair.UndeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.CheckAll(t, f.Store)
	// Gone with all its versions but what was never a manifest.
	if err := f.Store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	f.Now = f.Now.Add(time.Hour)
	f.Store.Overwrite(key, []byte("garbage"))
	if err := f.Store.Hide(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := repair.AcceptMissing(t.Context(), f.Open(t, f.Store), f.ID(2), f.Now); err != nil {
		t.Error(err)
	}
}

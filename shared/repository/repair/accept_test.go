package repair_test

import (
	"errors"
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestAcceptMissing takes snapshots away, alone and side by side, in each order of acceptance.
func TestAcceptMissing(t *testing.T) {
	for _, gone := range [][]uint64{{1}, {3}, {2, 3}, {3, 2}, {1, 2, 3}, {3, 1, 2}} {
		f := repotest.New(t)
		tree := repotest.Tree{}
		for n := range 5 {
			tree = tree.With(repotest.Root+"/f", repotest.Noise(uint64(n), 1000))
			f.Backup(t, snapshot.Full, tree)
		}
		for _, n := range gone {
			if err := f.Store.Delete(t.Context(), layout.ManifestKey(f.ID(n))); err != nil {
				t.Fatal(err)
			}
		}
		repo := f.Open(t, f.Store)
		for _, n := range gone {
			if err := repair.AcceptMissing(t.Context(), repo, f.ID(n), f.Now); err != nil {
				t.Fatalf("%v: %v", gone, err)
			}
			if err := repair.AcceptMissing(t.Context(), repo, f.ID(n), f.Now); !errors.Is(err, repair.ErrNotMissing) {
				t.Errorf("again: %v", err)
			}
		}
		res, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Content})
		if err != nil || len(res.Findings) > 0 {
			t.Errorf("%v: %v, %+v", gone, err, res.Findings)
		}
		if err := repair.AcceptMissing(t.Context(), repo, f.ID(4), f.Now); !errors.Is(err, repair.ErrNotMissing) {
			t.Errorf("one that is there: %v", err)
		}
		if err := repair.AcceptMissing(t.Context(), repo, f.ID(6), f.Now); !errors.Is(err, repair.ErrNotGap) {
			t.Errorf("one that never was: %v", err)
		}
	}
}

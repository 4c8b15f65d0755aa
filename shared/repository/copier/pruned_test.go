package copier_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestPrunedBeneath has a copy pruned while a run goes on that was interrupted long before, or that takes very long itself: what
// the copy lists is whole in the end.
func TestPrunedBeneath(t *testing.T) {
	const day = 24 * time.Hour
	errCut := errors.New("cut")
	for name, c := range map[string]struct {
		cut  bool   // the first run is cut off before the first manifest
		when string // what is about to be put when the copy is pruned
	}{
		"before the list":              {true, "/lists/"},
		"before the manifest":          {true, "/snapshots/0000000001"},
		"later, before a manifest":     {true, "/snapshots/0000000003"},
		"a long run, before the list":  {false, "/lists/"},
		"a long run, before manifests": {false, "/snapshots/0000000002"},
	} {
		t.Run(name, func(t *testing.T) {
			f := history(t)
			to := mem.New()
			to.SetClock(func() time.Time { return f.Now })
			if c.cut {
				to.SetHook(func(c mem.Call) mem.Fault {
					if c.Op == mem.Put && strings.Contains(c.Key, "/lists/") {
						return mem.Fault{Err: errCut}
					}
					return mem.Fault{}
				})
				if _, err := copier.Run(t.Context(), f.Repo, to, copier.Options{}); !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				f.Now = f.Now.Add(13 * day)
			}
			once := false
			to.SetHook(func(call mem.Call) mem.Fault {
				if call.Op != mem.Put || !strings.Contains(call.Key, c.when) || once {
					return mem.Fault{}
				}
				once = true
				f.Now = f.Now.Add(15 * day)
				// Something arrives in the copy: the store's time is told by that.
				key := layout.MarkKey(snapshot.ID{Source: f.Source, Sequence: 1}, strings.Repeat("cd", 16))
				if err := f.Open(t, to).PutDocument(context.Background(), key, struct{}{}); err != nil {
					t.Error(err)
				}
				if _, err := prune.Run(context.Background(), f.Open(t, to), f.Source, prune.Options{Gaps: true, Now: func() time.Time { return f.Now }}); err != nil {
					t.Error(err)
				}
				return mem.Fault{}
			})
			res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{Now: func() time.Time { return f.Now }})
			if err != nil || !once {
				t.Fatalf("%v, %+v", err, res)
			}
			to.SetHook(nil)
			there := f.CheckAll(t, to)
			if len(there) != 3 {
				t.Errorf("%v", there)
			}
			wantVerifiedWhole(t, f, to)
		})
	}
}

// wantVerifiedWhole is wantVerified where documents of no meaning are in the copy.
func wantVerifiedWhole(t *testing.T, f *repotest.Fixture, to *mem.Store) {
	t.Helper()
	for _, key := range repotest.Keys(to, strings.Repeat("cd", 16)) {
		if err := to.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	wantVerified(t, f, to)
}

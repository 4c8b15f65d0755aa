package lock_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestGatherLogs: each object of a log belongs to the newest snapshot that needs it, pieces of which a segment has all to
// none, and what lies before the base to none.
func TestGatherLogs(t *testing.T) {
	f := repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	backup := func(p log.Place) {
		f.Log = &p
		f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	}
	backup(log.Place{Stream: w.Stream()})
	backup(f.WriteLog(t, w, 1, 5, time.Second))
	end := f.WriteLog(t, w, 6, 20, time.Second)
	if n, err := w.Join(t.Context(), 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	backup(f.WriteLog(t, f.OpenLog(t, w.Stream(), 1, &end), 26, 3, time.Second))
	f.WriteLog(t, f.OpenLog(t, w.Stream(), 2, &end), 126, 2, time.Second) // a fork
	inv, err := inventory.Take(t.Context(), f.Store, f.Source)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := f.Repo.Manifests(t.Context(), f.Source)
	if err != nil {
		t.Fatal(err)
	}
	for base, want := range map[uint64]map[uint64][]string{
		0: {1: {}, 2: {"1/head", "1/joined/1-25", "2/26", "2/27", "2/28", "3/126", "3/127", "3/head"}, 3: {"2/head"}},
		// The fork is needed also where the base is on the branch that it has left: what leads to it is older.
		3: {1: {}, 2: {"1/head", "1/joined/1-25", "2/26", "2/27", "2/28", "3/126", "3/127", "3/head"}, 3: {"2/head"}},
	} {
		objects, snaps, err := lock.Gather(t.Context(), f.Repo, inv, manifests)
		if err != nil {
			t.Fatal(err)
		}
		before := len(objects)
		if objects, snaps, err = lock.GatherLogs(t.Context(), f.Repo, inv, manifests, base, objects, snaps); err != nil {
			t.Fatal(err)
		}
		for _, s := range snaps {
			var got []string
			for _, o := range s.Objects {
				if o >= before {
					parts := strings.Split(objects[o].Key, "/")[5:]
					got = append(got, strings.Join(parts, "/"))
				}
			}
			if len(got) != len(want[s.Sequence]) {
				t.Errorf("base %d, snapshot %d: %q, want %q", base, s.Sequence, got, want[s.Sequence])
			}
		}
		seen := map[string]bool{}
		for _, o := range objects {
			if seen[o.Key] {
				t.Errorf("%s twice", o.Key)
			}
			seen[o.Key] = true
		}
		if base == 0 && slices.ContainsFunc(objects, func(o lock.Object) bool { return strings.HasSuffix(o.Key, "0000000012-0000000012") }) {
			t.Error("a joined piece is locked")
		}
	}
}

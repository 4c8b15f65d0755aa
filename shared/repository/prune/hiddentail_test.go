package prune_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// TestHiddenNewestKeepsItsPacks takes the newest manifests away, from which no later one tells that they are missing, and puts
// them back long after: what they need must be there.
func TestHiddenNewestKeepsItsPacks(t *testing.T) {
	removed := func(t *testing.T, f *repotest.Fixture) {
		for range 2 {
			run(t, f, prune.Options{Decisions: keep(5)})
			f.Now = f.Now.Add(8 * day)
		}
	}
	verified := func(t *testing.T, f *repotest.Fixture) {
		res, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Structure, Record: true, Now: func() time.Time { return f.Now }})
		if err != nil || !res.Recorded {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		hide  []uint64
		known func(t *testing.T, f *repotest.Fixture) // what is left to tell of them
		seen  uint64
	}{
		"a receipt tells of it":       {[]uint64{5}, verified, 0},
		"all of the source":           {[]uint64{1, 2, 3, 4, 5}, verified, 0},
		"somebody has seen it":        {[]uint64{5}, func(*testing.T, *repotest.Fixture) {}, 5},
		"somebody has seen all":       {[]uint64{1, 2, 3, 4, 5}, func(*testing.T, *repotest.Fixture) {}, 5},
		"the newest is never removed": {[]uint64{5}, removed, 0},
		"a mark is on it":             {[]uint64{5}, func(t *testing.T, f *repotest.Fixture) { mark(t, f, 5, "a", record.Mark{Mark: record.Tag, Value: "x"}) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := history(t)
			c.known(t, f)
			docs := map[string][]byte{}
			for _, n := range c.hide {
				key := layout.ManifestKey(f.ID(n))
				doc, err := objstore.ReadAll(t.Context(), f.Store, key, 1<<20)
				if err != nil {
					continue // retention has removed it
				}
				docs[key] = doc
				if err := f.Store.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				f.Now = f.Now.Add(60 * day)
				f.Abandon(t, repotest.Tree{"/srv/x": repotest.Noise(99, 30_000)}) // something arrives: time passes
				run(t, f, prune.Options{Seen: c.seen})
			}
			for key, doc := range docs {
				if err := f.Store.Put(t.Context(), key, objstore.Bytes(doc)); err != nil {
					t.Fatal(err)
				}
			}
			f.CheckAll(t, f.Store)
			sound(t, f)
		})
	}
}

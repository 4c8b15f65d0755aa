package prune_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestMissingManifestKeepsItsPacks takes a manifest away, and puts it back long after: what it needs must be there. What
// was left over since goes as ever.
func TestMissingManifestKeepsItsPacks(t *testing.T) {
	f := history(t)
	key := layout.ManifestKey(f.ID(2))
	doc, err := objstore.ReadAll(t.Context(), f.Store, key, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	f.Abandon(t, repotest.Tree{"/srv/x": repotest.Noise(99, 30_000)})
	f.Now = f.Now.Add(60 * day)
	rep := run(t, f, prune.Options{})
	if rep.Packs == 0 {
		t.Error("what a killed backup left stays")
	}
	if !slices.ContainsFunc(rep.Kept, func(k prune.Kept) bool { return strings.Contains(k.Reason, "missing without a record") }) {
		t.Errorf("kept: %+v", rep.Kept)
	}
	f.Now = f.Now.Add(time.Hour)
	if err := f.Store.Put(t.Context(), key, objstore.Bytes(doc)); err != nil {
		t.Fatal(err)
	}
	wantThere(t, f, 1, 2, 3, 4, 5)

	if err := f.Store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if rep := run(t, f, prune.Options{Gaps: true}); rep.Packs == 0 {
		t.Errorf("%+v", rep)
	}
}

// TestRecordedGapsAreNone removes snapshots by retention: nothing is kept for them.
func TestRecordedGapsAreNone(t *testing.T) {
	f := history(t)
	for range 3 {
		run(t, f, prune.Options{Decisions: keep(5)})
		f.Now = f.Now.Add(15 * day)
	}
	f.Backup(t, snapshot.Incremental, f.Trees[5])
	if rep := run(t, f, prune.Options{Decisions: keep(5)}); len(rep.Kept) > 1 {
		t.Errorf("kept: %+v", rep.Kept)
	}
}

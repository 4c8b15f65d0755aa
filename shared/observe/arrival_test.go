package observe_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestCopyOfEachNight: a copy is begun right after init, and gets the snapshots of each day in the night. The times of
// the snapshots count there too, so that a moment in between can be restored from it.
func TestCopyOfEachNight(t *testing.T) {
	f := repotest.New(t)
	copied := mem.New()
	copied.SetClock(func() time.Time { return f.Now })
	night := func() {
		t.Helper()
		if res, err := copier.Run(t.Context(), f.Repo, copied, copier.Options{}); err != nil || !res.OK() {
			t.Fatalf("%v, %+v", err, res)
		}
	}
	night()
	var finished []time.Time
	for n := range uint64(3) {
		f.Now = f.Now.Add(time.Hour)
		finished = append(finished, f.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/a": repotest.Noise(n, 100)}).Finished)
	}
	f.Now = f.Now.Add(12 * time.Hour)
	night()

	repo := f.Open(t, copied)
	all, err := observe.Manifests(t.Context(), repo, f.Source)
	if err != nil || len(all) != len(finished) {
		t.Fatalf("%v, %d manifests", err, len(all))
	}
	var points []recovery.Point
	for i, m := range all {
		points = append(points, recovery.FromManifest(m.Manifest, m.Arrived))
		if p := points[i]; p.ClockOff() || !p.Time().Equal(finished[i]) {
			t.Errorf("snapshot %d is of %v, not of %v; clock off: %v", i+1, p.Time(), finished[i], p.ClockOff())
		}
	}
	chosen, err := recovery.Select(points, recovery.Selector{At: finished[1].Add(time.Minute)})
	if err != nil || chosen.Point.Sequence != 2 {
		t.Errorf("%v, snapshot %d", err, chosen.Point.Sequence)
	}

	// The copy takes the place of the original: what comes next builds on what is there.
	fork := f.Fork(t, copied)
	if m := fork.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/a": repotest.Noise(9, 100)}); m.Type != snapshot.Incremental || m.Parent != 3 {
		t.Errorf("the next snapshot is a %s", m.Type)
	}
}

package retention_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// A source of which one file can never be read has partial snapshots only. A full that takes many days, and leaves an
// unfinished snapshot on each, must not cost it the last one that has everything else.
func TestUnfinishedDisplacesNothingFinished(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	all := []retention.Snapshot{{Sequence: 1, Time: start, Type: snapshot.Full, ChainStart: 1, Partial: true}}
	for n := uint64(2); n < 20; n++ {
		all = append(all, retention.Snapshot{
			Sequence: n, Time: start.Add(time.Duration(n) * 24 * time.Hour), Type: snapshot.Full, ChainStart: n, Partial: true, Unfinished: true,
		})
	}
	for _, rules := range []policy.Retention{{KeepLast: 3}, {Daily: 7, Weekly: 1}} {
		got, err := retention.Plan(all, rules, all[len(all)-1].Time)
		if err != nil {
			t.Fatal(err)
		}
		if !got[0].Keep {
			t.Errorf("%+v: the only finished snapshot goes: %v", rules, got[0].Reasons)
		}
	}
	if m := (&snapshot.Manifest{Unfinished: true, Partial: true}); !retention.FromManifest(m, start).Unfinished {
		t.Error("a manifest's word is lost")
	}
}

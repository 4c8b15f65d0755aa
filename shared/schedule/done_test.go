package schedule_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestDoneByItsBegin: a snapshot settles what was due when its capture began. One that was at work then, and ended since, does
// not; and what its host's clock says does not matter.
func TestDoneByItsBegin(t *testing.T) {
	due := at(t, "2026-03-06 12:00:00")
	arrived := due.Add(20 * time.Minute)
	for name, c := range map[string]struct {
		clock time.Duration // by which the host's clock is ahead
		took  time.Duration
		kind  snapshot.SnapshotType
		want  bool
	}{
		"began since":                            {0, 19 * time.Minute, snapshot.Full, true},
		"began in the same moment":               {0, 20 * time.Minute, snapshot.Full, true},
		"was at work, and ended since":           {0, 21 * time.Minute, snapshot.Full, false},
		"the same with a clock that is ahead":    {time.Hour, 21 * time.Minute, snapshot.Full, false},
		"began since, with a clock behind":       {-time.Hour, time.Minute, snapshot.Full, true},
		"a type that is less":                    {0, time.Minute, snapshot.Incremental, false},
		"states an end that is before its begin": {0, -time.Minute, snapshot.Full, true},
	} {
		ended := arrived.Add(c.clock)
		m := &snapshot.Manifest{Type: c.kind, Started: ended.Add(-c.took), Finished: ended}
		h := schedule.History{}.Settle(m.Type, schedule.Began(m, arrived))
		if got := h.Done(snapshot.Differential, due); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if (schedule.History{}).Done(snapshot.Incremental, time.Time{}) {
		t.Error("nothing was ever done")
	}
	one, two := schedule.History{}.Settle(snapshot.Full, due), schedule.History{}.Settle(snapshot.Incremental, arrived)
	if got := one.Joined(two); got != two.Joined(one) || got.Full != due.UTC() || got.Differential != due.UTC() || got.Incremental != arrived.UTC() {
		t.Errorf("%+v", got)
	}
}

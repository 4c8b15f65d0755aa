package daemon

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestDoneByBothClocks: a job is done by what began since it was due. When that was, the host and the store may see
// differently: what only one of them sees is made again, which costs little.
func TestDoneByBothClocks(t *testing.T) {
	due := time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)
	history := func(own, stored time.Duration) History {
		return History{
			Sequence: 1, Settled: schedule.History{}.Settle(snapshot.Full, due.Add(own)), Stored: schedule.History{}.Settle(snapshot.Full, due.Add(stored)),
		}
	}
	for name, c := range map[string]struct {
		h    History
		want bool
	}{
		"since by both":              {history(0, time.Second), true},
		"since by the host's alone":  {history(time.Hour, -time.Second), false},
		"since by the store's alone": {history(-time.Second, time.Hour), false},
		"nothing is there":           {History{}, false},
	} {
		if got := c.h.done(snapshot.Incremental, due); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

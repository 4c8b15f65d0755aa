package observe

import (
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
)

// newestRecord is when the newest record of a log arrived; zero if there is none.
func newestRecord(inv *inventory.Inventory) (at time.Time) {
	for _, e := range inv.Logs {
		for _, r := range e.Runs() {
			if r.To.After(at) {
				at = r.To
			}
		}
	}
	return at
}

// logUntil is the time up to which everything that was committed is in the repository, as far as the host's agent says so;
// zero if it says nothing. An idle database puts no object: what is known of it is only what its agent tells. The agent's
// word that all is well counts until its silence does: signs of life are written down too seldom for a short RPO. After
// that it counts up to the last sign. A log that catches up reaches as far as its agent says, and no further.
func (h *HostMemory) logUntil(l *compliance.Log, silentAfter time.Duration, now time.Time) time.Time {
	switch {
	case l == nil:
		return time.Time{}
	case !l.Well || l.Behind || h.Heard.Before(l.Until):
		return l.Until
	case silentAfter > 0 && now.Sub(h.Heard) <= silentAfter:
		return now
	}
	return h.Heard
}

// Package schedule decides which backup of a source is due. It is pure: policy, history and time in, a run out. The
// function coordinate and the agent's built-in schedule both use it, and so agree on what is due and on its id.
//
// Use [Due].
package schedule

import (
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// History tells through which time runs of each type are settled: done or given up. The zero value is that of a source
// that was never backed up.
type History struct {
	Full         time.Time `json:"full,omitzero"`
	Differential time.Time `json:"differential,omitzero"`
	Incremental  time.Time `json:"incremental,omitzero"`
}

// Run is one run that is due.
type Run struct {
	ID       string                // of its job, the same whoever asks for it; see events.JobID
	Type     snapshot.SnapshotType // the fullest that is due
	Due      time.Time             // when the schedule says
	Start    time.Time             // Due and the source's jitter
	NotAfter time.Time             // when the next run makes this one pointless
}

// Settle returns the history after a run of the type, begun for the time due, was done or given up: a full settles what
// a differential and an incremental were due for.
func (h History) Settle(t snapshot.SnapshotType, due time.Time) History {
	later := func(at *time.Time) {
		if due.After(*at) {
			*at = due
		}
	}
	switch t {
	case snapshot.Full:
		later(&h.Full)
		later(&h.Differential)
		later(&h.Incremental)
	case snapshot.Differential:
		later(&h.Differential)
		later(&h.Incremental)
	case snapshot.Incremental:
		later(&h.Incremental)
	}
	return h
}

// Due returns the run of the source that is due at now, if one is, and the time at which to ask again: when the next
// one will be due (zero: never).
func Due(p *policy.Policy, source snapshot.Source, h History, now time.Time) (run Run, due bool, next time.Time) {
	return Run{}, false, time.Time{}
}

package replicate

import (
	"context"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// ErrSuperseded says that another writer has taken over the stream, such as a clone of this host.
var ErrSuperseded = log.ErrSuperseded

// Follower follows one source.
type Follower interface {
	// Run follows until ctx ends; then it ships what there is, within its grace, and returns nil. What can be mended, by time
	// or by a person, is a state and no end. Errors: ErrFollowed, ErrSuperseded, those of the state directory.
	Run(ctx context.Context) error
	// Status is how it is now. It can be called at any time.
	Status() Status
}

// Defaults of followers.
const (
	DefaultJoin  = 5 * time.Minute  // how often small pieces of the log are joined
	DefaultLook  = 5 * time.Minute  // how often to look whether another writes the stream
	DefaultGrace = 30 * time.Second // for what is not durable yet at the end
)

// FirstRetry and MostRetry bound the wait after something that failed, which doubles each time.
const (
	FirstRetry = time.Second
	MostRetry  = time.Minute
)

// Backoff is the wait after so many failures in a row, from 0.
func Backoff(failures int) time.Duration {
	return min(FirstRetry<<min(max(failures, 0), 10), MostRetry)
}

// Rest is how long after a snapshot that made up for a gap none begins, when that took so long: such snapshots take at
// most a tenth of the time, so that a source in which something is missed again and again is not read all the time.
func Rest(took time.Duration) time.Duration { return min(restFactor*took, mostRest) }

const (
	restFactor = 9
	mostRest   = 15 * time.Minute
)

// Makeups are the snapshots of a source that made up for gaps. Where gaps go on, as with an application that opens and closes its
// database for each commit, they come no more often than once a minute: each is kept by the policy, and few of them differ.
type Makeups struct {
	due time.Time // when all that there were would have come at that pace
}

const (
	makeupEvery = time.Minute
	makeupBurst = 30 // that may come at once after a time without
)

// Next notes a snapshot that ended now and took so long, and returns before when no other begins.
func (m *Makeups) Next(now time.Time, took time.Duration) time.Time {
	if m.due.Before(now) {
		m.due = now
	}
	m.due = m.due.Add(makeupEvery)
	next := now.Add(Rest(took))
	if t := m.due.Add(-makeupBurst * makeupEvery); t.After(next) {
		next = t
	}
	return next
}

// Sleep waits, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Nudge wakes who waits on a channel of one place.
func Nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

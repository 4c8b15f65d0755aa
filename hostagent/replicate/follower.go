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

package sqlite_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/sqlite"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
)

// TestBaseFails has a snapshot that begins the log fail twice before it succeeds: each time the follower waits longer, says
// why, and goes on by itself.
func TestBaseFails(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		state replicate.State
	}{
		"the store":    {errors.New("the store says no"), replicate.Failing},
		"the database": {&tail.GapError{Cause: tail.Missed, Why: "the log was too fast"}, replicate.Waiting},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.app(19)
			w.hold() // one more; else the log goes with the application
			var mu sync.Mutex
			var tries []time.Time
			r := w.follow(func(o *follower.Options) {
				o.Base = func(ctx context.Context, capture *follower.Capture) (uint64, error) {
					mu.Lock()
					tries = append(tries, time.Now())
					n := len(tries)
					mu.Unlock()
					if n <= 2 {
						return 0, c.err
					}
					return w.snapshot(ctx, capture)
				}
			})
			failed := r.AwaitEvent("the failure", func(e replicate.Event) bool {
				return e.Kind == replicate.StateChanged && e.State == c.state && strings.Contains(e.Why, c.err.Error())
			})
			if s := (replicate.Status{State: failed.State}); s.Well() {
				t.Errorf("%s counts as well", s.State)
			}
			r.Await("the third snapshot", replicatetest.Following)
			w.app(5)
			r.CaughtUp()
			r.Stop()
			mu.Lock()
			defer mu.Unlock()
			for i := 1; i < 3; i++ {
				if wait := tries[i].Sub(tries[i-1]); wait < replicate.Backoff(i-1) {
					t.Errorf("try %d came %s after the one before it, want at least %s", i+1, wait, replicate.Backoff(i-1))
				}
			}
			if most := w.restoreAll(1); len(tries) != 3 || most != 25 {
				t.Errorf("%d tries, restored %d transactions of 25", len(tries), most)
			}
		})
	}
}

// TestSpoolFull has a transaction that is larger than what may wait, in a log that is not reset: a snapshot makes up for it.
func TestSpoolFull(t *testing.T) {
	w := newWorld(t)
	shape := []string{"-payload", "3000", "-cells", "200", "-bulk", "10", "-width", "100"}
	w.app(2, shape...)
	w.hold()
	r := w.follow(func(o *follower.Options) { o.Memory, o.Disk = 16<<12, 48<<12 })
	r.Await("the first snapshot", replicatetest.Following)
	w.app(5, "-checkpoint", "none")
	r.CaughtUp()
	w.app(6, "-checkpoint", "none") // the tenth transaction has about a hundred pages
	s := r.Await("a snapshot that makes up for it", func(s replicate.Status) bool {
		return len(s.Gaps) == 1 && replicatetest.Following(s) && s.Base == 2 && !s.Gaps[0].To.IsZero()
	})
	if !strings.Contains(s.Gaps[0].Why, "more was committed at once") {
		t.Errorf("%+v", s.Gaps)
	}
	// All of it is still in the log.
	w.app(4, "-checkpoint", "none")
	r.CaughtUp()
	r.Stop()
	if most := w.restoreAll(1); most != 18 {
		t.Errorf("restored %d transactions of 18", most)
	}
}

// Package replicatetest has what tests of followers share: a follower at work, of whatever kind.
package replicatetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
)

// limit is how long anything may take.
const limit = time.Minute

// Running is a follower at work. Its end is waited for when the test ends; where the test has failed, what happened is shown.
type Running struct {
	Cancel context.CancelFunc // has it end
	Ended  chan error         // what Run returned

	t        *testing.T
	follower replicate.Follower

	mu     sync.Mutex
	events []replicate.Event // guarded by mu
}

// New returns what is to be given the events of a follower that is not at work yet.
func New(t *testing.T) *Running { return &Running{t: t, Ended: make(chan error, 1)} }

// Tell notes an event.
func (r *Running) Tell(e replicate.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Start has the follower follow.
func (r *Running) Start(f replicate.Follower) {
	r.follower = f
	ctx, cancel := context.WithCancel(context.Background())
	r.Cancel = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Ended <- f.Run(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
		if r.t.Failed() {
			r.show()
		}
	})
}

// show logs what happened, but for records.
func (r *Running) show() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind != replicate.Shipped {
			r.t.Logf("%s %s %s %s %s", e.Time.Format(time.TimeOnly), e.Kind, e.State, e.LSN, e.Why)
		}
	}
}

// Stop ends the follower in an orderly way.
func (r *Running) Stop() {
	r.t.Helper()
	r.Cancel()
	if err := <-r.Ended; err != nil {
		r.t.Fatal(err)
	}
}

// Await waits until the status is as wanted.
func (r *Running) Await(what string, ok func(replicate.Status) bool) replicate.Status {
	r.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		s := r.follower.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: not within %s: %+v %+v", what, limit, s, s.Cluster)
		}
	}
}

// AwaitEvent waits until something has happened that may be over already: a state that passes need not be seen in the status.
func (r *Running) AwaitEvent(what string, ok func(replicate.Event) bool) replicate.Event {
	r.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		for _, e := range r.Events() {
			if ok(e) {
				return e
			}
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// Following reports whether all is well.
func Following(s replicate.Status) bool {
	return s.State == replicate.Following && !s.Looked.IsZero()
}

// CaughtUp waits until all that was committed by now is durable.
func (r *Running) CaughtUp() replicate.Status {
	r.t.Helper()
	now := time.Now()
	return r.Await("all is durable", func(s replicate.Status) bool {
		return Following(s) && s.Oldest.IsZero() && s.Looked.After(now)
	})
}

// Count is how many events of a kind there were.
func (r *Running) Count(kind string) (n int) {
	for _, e := range r.Events() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// Events are those so far.
func (r *Running) Events() []replicate.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]replicate.Event(nil), r.events...)
}

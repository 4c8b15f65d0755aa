package replicate

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Reporter keeps what is known of a follower: it tells what happens, and writes the status to the state directory. It is
// safe for concurrent use.
type Reporter struct {
	dir    string
	source snapshot.Source
	tell   func(Event)
	wake   chan struct{}

	mu      sync.Mutex
	status  Status        // guarded by mu, as all below
	lags    lags          //
	live    func(*Status) // adds what is on its way; nil: nothing is
	hasten  func()        // has all shipped at once; nil: nothing does
	landed  time.Time     // when the last record became durable, or following began
	unsafe  time.Time     // commits since then may not be durable: they are in no record; zero: all are
	woe     string        // what the store said last, since the last record
	woeHint string
}

// NewReporter returns a reporter of a follower that begins. It calls tell from several goroutines; nil: nobody is told.
func NewReporter(dir string, source snapshot.Source, path string, interval time.Duration, tell func(Event)) *Reporter {
	return &Reporter{
		dir: dir, source: source, tell: tell, wake: make(chan struct{}, 1),
		status: Status{Path: path, Interval: interval, Pid: os.Getpid(), State: Starting, Since: time.Now().UTC()},
	}
}

// Keep takes over what the status of the last process says, and keeps the file of the status up to date until stop is
// called, which writes it once more.
func (r *Reporter) Keep() (stop func()) {
	if last, _, err := Read(r.dir); err == nil && last != nil {
		r.mu.Lock()
		r.status.Gaps, r.status.Base, r.status.Begun, r.status.Place = last.Gaps, last.Base, last.Begun, last.Place
		r.status.Looked, r.unsafe = last.Looked, last.Until() // what was committed since is to be read first
		r.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.write(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// Status is how it is now.
func (r *Reporter) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statusLocked()
}

func (r *Reporter) statusLocked() Status {
	s := r.status
	if r.live != nil {
		r.live(&s)
	}
	if !r.unsafe.IsZero() && (s.Oldest.IsZero() || r.unsafe.Before(s.Oldest)) {
		s.Oldest = r.unsafe
	}
	s.Lag = r.lags.lag()
	return s
}

// Follows says who adds to the status what is on its way; from now on nothing else counts as not durable. Nil: what is on
// its way now is given up, and stays known as not durable. The function is called with locks held: it asks nothing here.
func (r *Reporter) Follows(live func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if live == nil && r.live != nil {
		s := r.statusLocked()
		r.status.Looked, r.unsafe = s.Looked, s.Oldest
	}
	r.live = live
	if live != nil {
		r.unsafe, r.landed = time.Time{}, time.Now()
	}
}

// Unsure notes that what is committed from now on is in no record until something is followed again. While something is, it
// tells by itself how far it looked.
func (r *Reporter) Unsure() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil {
		s := r.statusLocked()
		r.unsafe = s.Until()
	}
}

// Set changes what else the status says.
func (r *Reporter) Set(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// State changes the state, and tells of it.
func (r *Reporter) State(s State, why, hint string) {
	r.mu.Lock()
	changed := r.status.State != s
	if changed {
		r.status.Since = time.Now().UTC()
	}
	changed = changed || r.status.Why != why
	r.status.State, r.status.Why, r.status.Hint = s, why, hint
	r.mu.Unlock()
	if changed {
		Nudge(r.wake)
		r.Tell(Event{Kind: StateChanged, State: s, Why: why, Hint: hint})
	}
}

// Superseded is the state of who has stopped because another writes the stream.
func (r *Reporter) Superseded(err error) {
	r.State(Superseded, err.Error(), "find the other host or process that writes this source; then `holdfast replicate --new-stream` begins anew, with a snapshot")
}

// Tell tells of an event.
func (r *Reporter) Tell(e Event) {
	if r.tell != nil {
		e.Time, e.Source = time.Now().UTC(), r.source.String()
		r.tell(e)
	}
}

// Based notes that a snapshot is there that begins a stream. It is safe from then on, and gaps end, unless the source goes
// on to be followed only later.
func (r *Reporter) Based(number uint64, place log.Place, took time.Duration) {
	now := time.Now().UTC()
	r.mu.Lock()
	r.status.Base, r.status.Begun = number, now
	if r.status.Place.Stream != place.Stream {
		r.status.Place = place
	}
	if n := len(r.status.Gaps); n > 0 && r.status.Gaps[n-1].To.IsZero() {
		r.status.Gaps[n-1].To = now
	}
	r.unsafe = time.Time{}
	r.mu.Unlock()
	r.Tell(Event{Kind: Based, Snapshot: number, Seconds: took.Seconds(), Place: place})
}

// Missed notes a gap: so many commits at least, 0 if that is not known.
func (r *Reporter) Missed(why string, missed int) {
	r.mu.Lock()
	s := r.statusLocked()
	from := s.Until()
	r.status.Gaps = append(r.status.Gaps, Gap{From: from, Why: why, Missed: missed})
	r.status.Gaps = r.status.Gaps[max(0, len(r.status.Gaps)-keptGaps):]
	r.unsafe = from
	r.mu.Unlock()
	r.Tell(Event{Kind: Missed, Why: why})
}

// Landed notes that a record is durable.
func (r *Reporter) Landed(groups []Seen, place log.Place, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lags.durable(groups, at)
	r.landed = at
	r.status.Place = place
	r.status.Records++
	for _, g := range groups {
		r.status.Commits += uint64(g.Commits) //nolint:gosec // a count
	}
}

// Total is how many commits records have made durable.
func (r *Reporter) Total() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status.Commits
}

// Trouble tells that the store does not take what it is given. It is tried again.
func (r *Reporter) Trouble(err error) {
	r.Tell(Event{Kind: Trouble, Why: err.Error(), Hint: HintOf(err)})
	r.mu.Lock()
	r.woe, r.woeHint = err.Error(), HintOf(err)
	r.mu.Unlock()
}

// Well is what a durable record says.
func (r *Reporter) Well() {
	r.Calm()
	r.State(Following, "", "")
}

// Calm forgets what the store said last: it has taken a record.
func (r *Reporter) Calm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.woe, r.woeHint = "", ""
}

// HintOf is what an error says that a person can do.
func HintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

const (
	// statusEvery is how often a status that changes is written, and idleEvery one that does not.
	statusEvery = time.Second
	idleEvery   = 15 * time.Second
)

// write keeps the file of the status up to date until ctx ends, and writes it then.
func (r *Reporter) write(ctx context.Context) {
	var written Status
	var last time.Time
	every := statusEvery
	for over := false; !over; {
		wait := time.NewTimer(every)
		select {
		case <-ctx.Done():
			over = true
		case <-wait.C:
		case <-r.wake:
		}
		wait.Stop()
		every = statusEvery
		s := r.Status()
		r.suspect(s, time.Now())
		by := r.asked(time.Now())
		done := !by.IsZero() && (s.Until().After(by) || s.State != Following)
		if !by.IsZero() && !done {
			every = askedEvery
			r.rush()
		}
		same := s.State == written.State && s.Why == written.Why && s.Records == written.Records && s.Oldest.Equal(written.Oldest)
		if now := time.Now(); over || !same || done || now.Sub(last) >= idleEvery {
			if err := s.write(r.dir, now); err != nil {
				r.Tell(Event{Kind: Trouble, Why: err.Error()})
			}
			written, last = s, now
		}
		if done {
			r.answered(by)
		}
	}
}

// awayAfter is after how long without a durable record something must be wrong with the store.
func (s *Status) awayAfter() time.Duration { return max(10*time.Second, 4*s.Interval) }

// suspect tells of a store that takes no records, be it silent or not. A blip is no state, nor is it one that commits are old
// behind a backlog which becomes less.
func (r *Reporter) suspect(s Status, now time.Time) {
	r.mu.Lock()
	why, hint, landed := r.woe, r.woeHint, r.landed
	r.mu.Unlock()
	if s.State != Following && s.State != Away || !s.pending() || min(now.Sub(s.Oldest), now.Sub(landed)) < s.awayAfter() {
		return
	}
	text := "nothing became durable that was committed since " + s.Oldest.UTC().Format(time.RFC3339)
	if why != "" {
		text += ": " + why
	}
	if hint == "" {
		hint = "look whether the repository can be reached; all goes on by itself, and the newest state is kept until then"
	}
	r.State(Away, text, hint)
}

package replicate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ErrSuperseded says that another writer has taken over the stream, such as a clone of this host.
var ErrSuperseded = log.ErrSuperseded

// Options says what to follow, and where to.
type Options struct {
	Repository *repository.Repository
	Source     snapshot.Source
	Path       string        // of the database
	Interval   time.Duration // in which a commit is to be durable
	Dir        string        // of the source's state; made if missing
	Tool       string        // "holdfast 1.2.3"

	// Base makes the snapshot that begins a stream: it captures through the capture it is given, asks that for the place
	// in the log and commits. It returns the number of the snapshot.
	Base func(ctx context.Context, c *Capture) (uint64, error)
	Tell func(Event) // called by several goroutines; nil: nobody is told

	Memory int64         // bytes of pages that wait, in memory; 0: a default
	Disk   int64         // bytes of pages that wait, on disk; 0: a default
	Join   time.Duration // how often small pieces of the log are joined; 0: a default; negative: never
	Look   time.Duration // how often to look whether another writes the stream; 0: a default; negative: only with each start
	Grace  time.Duration // for what is not durable yet at the end; 0: a default
	Renew  bool          // begin a new stream, whatever is known of the last
}

// Defaults of [Options].
const (
	DefaultJoin  = 5 * time.Minute
	DefaultLook  = 5 * time.Minute
	DefaultGrace = 30 * time.Second
)

// Follower follows one database.
type Follower struct {
	o     Options
	marks *marks

	// taking is held by whoever makes a snapshot of the source in this process.
	taking chan struct{}

	mu     sync.Mutex
	status Status    // guarded by mu
	lags   lags      // guarded by mu
	live   *lineage  // that takes captures; guarded by mu
	unsafe time.Time // commits since then may not be durable: they are in no record; zero: all are; guarded by mu

	woe     string // what the store said last, since the last record; guarded by mu
	woeHint string // guarded by mu

	known *mark // what the last process or lineage came to; nil: nothing is known

	gap      *tail.GapError // why the last lineage ended
	rest     time.Time      // no snapshot that makes up for a gap begins before
	failures int            // of snapshots, in a row

	wake chan struct{}
}

// New returns a follower that does nothing yet.
func New(o Options) *Follower {
	set := func(to *time.Duration, def time.Duration) {
		if *to == 0 {
			*to = def
		}
	}
	set(&o.Join, DefaultJoin)
	set(&o.Look, DefaultLook)
	set(&o.Grace, DefaultGrace)
	o.Interval = min(max(o.Interval, MinInterval), MaxInterval)
	f := &Follower{o: o, taking: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	f.status = Status{Path: o.Path, Interval: o.Interval, Pid: os.Getpid(), State: Starting, Since: time.Now().UTC()}
	return f
}

// Run follows the database until ctx ends; then it ships what there is, within the grace, and returns nil. What can be
// mended, by time or by a person, is a state and no end.
//
// Errors: ErrFollowed, ErrSuperseded, those of the state directory.
func (f *Follower) Run(ctx context.Context) (err error) {
	held, err := lock(f.o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	if last, _, rerr := Read(f.o.Dir); rerr == nil && last != nil {
		f.mu.Lock()
		f.status.Gaps, f.status.Base, f.status.Begun, f.status.Place = last.Gaps, last.Base, last.Begun, last.Place
		f.status.Looked, f.unsafe = last.Looked, last.Until() // what was committed since is to be read first
		f.mu.Unlock()
	}
	if f.marks, f.known, err = openMarks(f.o.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.marks.close()) }()
	if f.known != nil && (f.known.Path != f.o.Path || f.o.Renew) {
		f.known = nil
	}
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var writer sync.WaitGroup
	writer.Go(func() { f.writeStatus(writing) })
	defer writer.Wait()
	defer stop()
	err = f.follow(ctx)
	if errors.Is(err, ErrSuperseded) {
		f.state(Superseded, err.Error(), "find the other host or process that writes this source; then `holdfast replicate --new-stream` begins anew, with a snapshot")
		return err
	}
	f.state(Stopped, "", "")
	return err
}

// follow goes from one lineage to the next.
func (f *Follower) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		wait, err := f.attempt(ctx)
		if err != nil {
			return err
		}
		sleep(ctx, wait)
	}
	return nil
}

const (
	// lookAgain is how often a database that can't be followed is looked at.
	lookAgain = time.Second
	// Snapshots that make up for gaps take at most a tenth of the time, so that a database in which commits are missed
	// again and again is not read all the time.
	restFactor = 9
	mostRest   = 15 * time.Minute
	// firstRetry and mostRetry bound the wait after a snapshot that failed.
	firstRetry = time.Second
	mostRetry  = time.Minute
)

// attempt follows one lineage to its end, and returns how long to wait before the next.
func (f *Follower) attempt(ctx context.Context) (time.Duration, error) {
	t, err := tail.Open(f.o.Path)
	if err != nil {
		f.cannot(err)
		return lookAgain, nil
	}
	defer func() { _ = t.Close() }()
	l := newLineage(f, t)
	resumed, err := l.resume()
	if err != nil {
		f.cannot(err)
		return lookAgain, nil
	}
	if !resumed {
		if wait := time.Until(f.rest); wait > 0 && f.gap != nil {
			f.state(Waiting, f.gap.Error(), "the application resets its log faster than it is read, or is stopped and started often: the snapshot that makes up for it is made at most a tenth of the time")
			return min(wait, lookAgain), nil
		}
		return f.begin(ctx, l)
	}
	return f.ended(ctx, l, l.run(ctx, nil))
}

// begin begins a stream with a snapshot.
func (f *Follower) begin(ctx context.Context, l *lineage) (time.Duration, error) {
	select {
	case f.taking <- struct{}{}:
	case <-ctx.Done():
		return 0, nil
	}
	taken := sync.OnceFunc(func() { <-f.taking })
	defer taken()
	if err := l.start(); err != nil {
		f.cannot(err)
		return lookAgain, nil
	}
	f.state(Snapshot, "", "")
	began := time.Now()
	err := l.run(ctx, func(ctx context.Context, c *Capture) error {
		defer taken()
		number, err := f.o.Base(ctx, c)
		if err != nil {
			return err
		}
		if err := l.based(c); err != nil {
			return err
		}
		f.based(l, number, began)
		return nil
	})
	return f.ended(ctx, l, err)
}

// based notes that the snapshot that begins a stream is there.
func (f *Follower) based(l *lineage, number uint64, began time.Time) {
	now := time.Now()
	took := now.Sub(began)
	f.failures = 0
	if f.gap != nil {
		f.rest = now.Add(min(restFactor*took, mostRest))
	}
	f.gap = nil
	f.mu.Lock()
	f.status.Base, f.status.Begun, f.status.Place = number, now.UTC(), log.Place{Stream: l.stream}
	if n := len(f.status.Gaps); n > 0 && f.status.Gaps[n-1].To.IsZero() {
		f.status.Gaps[n-1].To = now.UTC()
	}
	f.unsafe = time.Time{}
	f.mu.Unlock()
	f.tell(Event{Kind: Based, Snapshot: number, Seconds: took.Seconds(), Place: log.Place{Stream: l.stream}})
}

// ended is what follows from the end of a lineage.
func (f *Follower) ended(ctx context.Context, l *lineage, err error) (time.Duration, error) {
	if l.mark != nil {
		f.known = l.mark
	}
	var gap *tail.GapError
	switch {
	case errors.Is(err, ErrSuperseded):
		return 0, err
	case ctx.Err() != nil || err == nil:
		return 0, nil //nolint:nilerr // it was asked to end
	case errors.As(err, &gap):
		f.missed(gap)
		f.known = nil
		return 0, nil
	case l.mark == nil: // the stream did not begin
		if f.cannot(err) {
			return lookAgain, nil
		}
		wait := min(firstRetry<<min(f.failures, 10), mostRetry)
		f.failures++
		f.state(Failing, "make the snapshot that begins the log: "+err.Error(), hintOf(err))
		return wait, nil
	}
	f.cannot(err)
	return lookAgain, nil
}

// missed notes a gap.
func (f *Follower) missed(gap *tail.GapError) {
	f.gap = gap
	f.mu.Lock()
	from := f.status.Until()
	f.status.Gaps = append(f.status.Gaps, Gap{From: from, Why: gap.Error(), Missed: gap.Missed})
	f.status.Gaps = f.status.Gaps[max(0, len(f.status.Gaps)-keptGaps):]
	if f.unsafe.IsZero() {
		f.unsafe = from
	}
	f.mu.Unlock()
	f.tell(Event{Kind: Missed, Why: gap.Error()})
}

// cannot notes that the database can't be followed, and why. It reports whether the database is to blame.
func (f *Follower) cannot(err error) bool {
	state, hint := Failing, hintOf(err)
	var s *tail.StateError
	database := errors.As(err, &s)
	if database {
		state, hint = State(s.State), s.Hint
		err = &tail.StateError{State: s.State, Path: s.Path, Err: s.Err} // its text has the hint as well
	}
	f.mu.Lock()
	if f.unsafe.IsZero() {
		f.unsafe = f.status.Until()
	}
	f.mu.Unlock()
	f.state(state, err.Error(), hint)
	return database
}

// hintOf is what an error says that a person can do.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// state changes the state, and tells of it.
func (f *Follower) state(s State, why, hint string) {
	f.mu.Lock()
	changed := f.status.State != s
	if changed {
		f.status.Since = time.Now().UTC()
	}
	changed = changed || f.status.Why != why
	f.status.State, f.status.Why, f.status.Hint = s, why, hint
	f.mu.Unlock()
	if changed {
		nudge(f.wake)
		f.tell(Event{Kind: StateChanged, State: s, Why: why, Hint: hint})
	}
}

func (f *Follower) tell(e Event) {
	if f.o.Tell != nil {
		e.Time, e.Source = time.Now().UTC(), f.o.Source.String()
		f.o.Tell(e)
	}
}

// Status is how it is now.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.statusLocked()
}

func (f *Follower) statusLocked() Status {
	s := f.status
	if l := f.live; l != nil {
		l.describe(&s)
	}
	if !f.unsafe.IsZero() && (s.Oldest.IsZero() || f.unsafe.Before(s.Oldest)) {
		s.Oldest = f.unsafe
	}
	s.Lag = f.lags.lag()
	return s
}

const (
	// statusEvery is how often a status that changes is written, and idleEvery one that does not.
	statusEvery = time.Second
	idleEvery   = 15 * time.Second
)

// writeStatus keeps the file of the status up to date until ctx ends, and writes it then.
func (f *Follower) writeStatus(ctx context.Context) {
	var written Status
	var last time.Time
	for over := false; !over; {
		wait := time.NewTimer(statusEvery)
		select {
		case <-ctx.Done():
			over = true
		case <-wait.C:
		case <-f.wake:
		}
		wait.Stop()
		s := f.Status()
		f.suspect(s, time.Now())
		same := s.State == written.State && s.Why == written.Why && s.Records == written.Records && s.Oldest.Equal(written.Oldest)
		if now := time.Now(); over || !same || now.Sub(last) >= idleEvery {
			if err := s.write(f.o.Dir, now); err != nil {
				f.tell(Event{Kind: Trouble, Why: err.Error()})
			}
			written, last = s, now
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
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

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// newStream makes the id of a stream.
func newStream() (string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("begin a stream: %w", err)
	}
	return hex.EncodeToString(id[:]), nil
}

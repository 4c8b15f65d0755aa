package sqlite

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// Options says what to follow, and where to.
type Options struct {
	replicate.Options
	Path string // of the database

	// Base makes the snapshot that begins a stream: it captures through the capture it is given, asks that for the place
	// in the log and commits. It returns the number of the snapshot.
	Base func(ctx context.Context, c *Capture) (uint64, error)

	Memory int64 // bytes of pages that wait, in memory; 0: a default
	Disk   int64 // bytes of pages that wait, on disk; 0: a default
}

// Follower follows one database. It is a [replicate.Follower].
type Follower struct {
	*replicate.Keeper
	o Options

	mu   sync.Mutex
	live *lineage // that takes captures; guarded by mu

	known *mark // what the last process or lineage came to; nil: nothing is known

	gap      *tail.GapError // why the last lineage ended
	rest     time.Time      // no snapshot that makes up for a gap begins before
	makeups  replicate.Makeups
	failures int // of snapshots, or of lineages of which nothing became durable, in a row
}

// New returns a follower that does nothing yet.
func New(o Options) *Follower {
	keeper := replicate.NewKeeper(&o.Options, o.Path)
	return &Follower{Keeper: keeper, o: o}
}

// Run follows the database until ctx ends; then it ships what there is, within the grace, and returns nil. What can be
// mended, by time or by a person, is a state and no end.
//
// Errors: replicate.ErrFollowed, replicate.ErrSuperseded, those of the state directory.
func (f *Follower) Run(ctx context.Context) error {
	known := new(mark)
	return f.Hold(policy.KindSQLite, known, func(found bool) error {
		if found && known.Path == f.o.Path && known.Stream != "" && !f.o.Renew {
			f.known = known
		}
		return f.Follow(func() error { return replicate.Again(ctx, f.attempt) })
	})
}

// lookAgain is how often a database that can't be followed is looked at.
const lookAgain = time.Second

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
			f.State(replicate.Waiting, f.gap.Error(), "the application resets its log faster than it is read, or opens and closes the database all the time: a connection that it keeps open helps; the snapshot that makes up for it is made at most a tenth of the time, and where that goes on or fails again and again, once a minute")
			return min(wait, lookAgain), nil
		}
		return f.begin(ctx, l)
	}
	before := f.Status()
	l.lookedAt = before.Until() // what was committed since is among what the first look finds
	return f.ended(ctx, l, l.run(ctx, nil))
}

// begin begins a stream with a snapshot.
func (f *Follower) begin(ctx context.Context, l *lineage) (time.Duration, error) {
	taken, err := f.Take(ctx)
	if err != nil {
		return 0, nil //nolint:nilerr // it was asked to end
	}
	defer taken()
	if err := l.start(); err != nil {
		f.cannot(err)
		return lookAgain, nil
	}
	f.State(replicate.Snapshot, "", "")
	began := time.Now()
	err = l.run(ctx, func(ctx context.Context, c *Capture) error {
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
	took := time.Since(began)
	f.failures = 0
	if f.gap != nil {
		f.rest = f.makeups.Next(time.Now(), took)
	}
	f.gap = nil
	f.Based(number, log.Place{Stream: l.stream}, took)
}

// ended is what follows from the end of a lineage.
func (f *Follower) ended(ctx context.Context, l *lineage, err error) (time.Duration, error) {
	if l.mark != nil {
		f.known = l.mark
	}
	if l.shipped() > 0 {
		f.failures = 0
	}
	var gap *tail.GapError
	switch {
	case errors.Is(err, replicate.ErrSuperseded):
		return 0, err
	case errors.As(errors.Join(err, l.over), &gap): // also where it was asked to end meanwhile
		f.missed(gap)
		if l.mark == nil { // the snapshot itself: a database that outruns it is not read all the time
			f.rest = time.Now().Add(f.backoff())
		}
		return 0, nil
	case ctx.Err() != nil || err == nil:
		return 0, nil //nolint:nilerr // it was asked to end
	case f.cannot(err):
		return lookAgain, nil
	case l.mark == nil: // the stream did not begin
		f.State(replicate.Failing, "make the snapshot that begins the log: "+err.Error(), replicate.HintOf(err))
	}
	return f.backoff(), nil
}

// backoff is how long to wait after a failure; each in a row makes it longer.
func (f *Follower) backoff() time.Duration {
	wait := replicate.Backoff(f.failures)
	f.failures++
	return wait
}

// missed notes a gap. No later process goes on with the stream, even if it would find nothing wrong.
func (f *Follower) missed(gap *tail.GapError) {
	f.gap, f.known = gap, nil
	if err := f.Marks.Set(mark{Path: f.o.Path}, true); err != nil {
		f.Trouble(err) // as long as this process lives, it knows
	}
	f.Missed(gap.Error(), gap.Missed)
}

// cannot notes that the database can't be followed, and why. It reports whether the database is to blame.
func (f *Follower) cannot(err error) bool {
	state, hint := replicate.Failing, replicate.HintOf(err)
	var s *tail.StateError
	database := errors.As(err, &s)
	if database {
		state, hint = replicate.State(s.State), s.Hint
		err = &tail.StateError{State: s.State, Path: s.Path, Err: s.Err} // its text has the hint as well
	}
	if hint == "" && errors.Is(err, unix.ENOSPC) {
		hint = "make room on the file system of the state directory: it goes on by itself"
	}
	f.Unsure()
	f.State(state, err.Error(), hint)
	return database
}

// newStream makes the id of a stream.
func newStream() (string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("begin a stream: %w", err)
	}
	return hex.EncodeToString(id[:]), nil
}

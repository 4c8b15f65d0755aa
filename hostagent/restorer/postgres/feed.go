package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// windowBytes is how much WAL waits in the spool at most.
	windowBytes = 256 << 20
	// lookEvery is how often the spool is looked at while it is full: a segment is taken without a word.
	lookEvery = 5 * time.Millisecond
)

// feed fills a spool with segments that it assembles from the records of a log, in order, ahead of the server. The
// reader of the log proves that each record follows the one before it; the feed proves that their WAL does.
type feed struct {
	log   *Log
	plan  *Plan
	spool *spool
	until time.Time // records that are not later must be replayed; zero: all of them

	mu      sync.Mutex
	changed *sync.Cond                    // something below has changed
	index   map[segment]snapshot.LogPlace // right before the first record of a segment
	first   segment                       // zero: nothing was read yet
	next    segment                       // that is being assembled
	wanted  *segment                      // go on from here
	hurry   *segment                      // is waited for: what stands before it in the spool goes
	tail    *segment                      // the last one, not whole; it is kept
	guard   pg.LSN                        // end of the records that must be replayed
	end     pg.LSN                        // of the log, when done
	done    bool                          // all was read
	err     error                         // why it can't go on
	asked   map[segment]int               // how often a segment was asked for again
	bytes   uint64                        // of WAL that was written
	walker  *pg.Walker                    // proves that it is WAL, and finds its true end; nil: nothing was read yet
	walked  uint32                        // the walker's timeline
	broken  error                         // what the walker found
	last    time.Time                     // of the last record that was good
	spaces  *newSpaces                    // what is watched for; nil: nothing is
	cut     error                         // the log was left where it is damaged, behind all that was needed
}

func newFeed(l *Log, plan *Plan, s *spool) *feed {
	f := &feed{log: l, plan: plan, spool: s, index: map[segment]snapshot.LogPlace{}, asked: map[segment]int{}}
	f.changed = sync.NewCond(&f.mu)
	if plan.Target.Kind == Time {
		f.until = plan.Target.Time
	}
	return f
}

// HoleError says that WAL is missing between two records, or that it does not belong to where it stands.
type HoleError struct {
	Place  snapshot.LogPlace
	From   pg.LSN // where WAL was expected to go on
	To     pg.LSN // where it goes on
	Reason string
}

func (e *HoleError) Error() string {
	return fmt.Sprintf("the log has a hole: WAL %s to %s is missing before record %d of stream %s: %s", e.From, e.To, e.Place.Sequence, e.Place.Stream, e.Reason)
}

// run fills the spool until ctx ends. What goes wrong is kept for who asks.
func (f *feed) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	defer stop()
	from := f.log.From
	for ctx.Err() == nil {
		err := f.pass(ctx, from)
		f.mu.Lock()
		if err != nil && !errors.Is(err, errSought) {
			f.err = err
		}
		f.changed.Broadcast()
		for f.wanted == nil && ctx.Err() == nil {
			if !f.done && f.err == nil {
				break
			}
			f.changed.Wait()
		}
		if f.wanted != nil {
			from, f.next = f.index[*f.wanted], *f.wanted
			f.wanted, f.done, f.err = nil, false, nil
		}
		f.mu.Unlock()
	}
}

// errSought ends a pass because the server has gone back.
var errSought = errors.New("go on from another segment")

// pass reads the log from a place to its end.
func (f *feed) pass(ctx context.Context, from snapshot.LogPlace) (err error) {
	a := &assembly{feed: f, place: from}
	defer func() { err = errors.Join(err, a.close()) }()
	for r, err := range f.log.Records(ctx, from) {
		if err != nil && f.enough(err) {
			break
		}
		if err != nil {
			return err
		}
		if err := a.add(ctx, &r); err != nil {
			return err
		}
		a.place = r.Place
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := a.finish(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done, f.end = true, a.at
	f.changed.Broadcast()
	return nil
}

// assembly is a segment that is being made.
type assembly struct {
	feed    *feed
	place   snapshot.LogPlace // of the last record
	segment segment
	at      pg.LSN   // where the next record must begin; 0: anywhere
	file    *os.File // nil: no segment is open
	partial bool     // its beginning is not in the log: it can't be served
}

func (a *assembly) close() error {
	if a.file == nil {
		return nil
	}
	name := a.file.Name()
	err := a.file.Close()
	a.file = nil
	return errors.Join(err, os.Remove(name))
}

func (a *assembly) add(ctx context.Context, r *Record) error {
	f := a.feed
	if r.History != nil {
		return nil // they are in the plan
	}
	size := f.plan.Segment
	s := segment{r.Timeline, uint64(r.Start) / size}
	if len(r.WAL) == 0 || s.number != uint64(r.Start)/size || uint64(r.Start)%size+uint64(len(r.WAL)) > size {
		return &HoleError{r.Place, a.at, r.Start, "the record does not lie in one segment"}
	}
	switch {
	case a.at == 0:
	case r.Timeline != a.segment.timeline:
		if err := a.change(r); err != nil {
			return err
		}
	case r.Start != a.at:
		return &HoleError{r.Place, a.at, r.Start, "its records do not follow each other"}
	}
	if s != a.segment || a.at == 0 {
		if err := a.open(ctx, s, r); err != nil {
			return err
		}
	}
	if a.file != nil {
		if _, err := a.file.WriteAt(r.WAL, int64(uint64(r.Start)%size)); err != nil { //nolint:gosec // below 1 GiB
			return err
		}
	}
	a.at = r.Start + pg.LSN(len(r.WAL))
	if err := f.passed(r, a.at); err != nil {
		return err // before the server gets it
	}
	if uint64(a.at)%size == 0 {
		return a.emit(ctx)
	}
	return nil
}

// change goes on to another timeline: its WAL begins with the segment in which the old one ends.
func (a *assembly) change(r *Record) error {
	size := a.feed.plan.Segment
	if uint64(r.Start)%size != 0 || r.Start > a.at {
		return &HoleError{r.Place, a.at, r.Start, fmt.Sprintf("timeline %d goes on elsewhere than timeline %d ended", r.Timeline, a.segment.timeline)}
	}
	return a.close() // the new timeline has all of this segment
}

// open begins a segment.
func (a *assembly) open(ctx context.Context, s segment, r *Record) error {
	f := a.feed
	size := f.plan.Segment
	if err := a.close(); err != nil {
		return err
	}
	a.segment, a.partial = s, uint64(r.Start)%size != 0
	f.mu.Lock()
	if f.first == (segment{}) {
		f.first = s
		if a.partial {
			f.first.number++ // what is before is in the snapshot itself
		}
	}
	if !a.partial {
		f.index[s] = a.place
	}
	f.next = s
	f.changed.Broadcast()
	f.mu.Unlock()
	if a.partial {
		return nil
	}
	if err := f.note(s, a.place); err != nil {
		return err
	}
	if err := f.room(ctx); err != nil {
		return err
	}
	file, err := os.OpenFile(f.spool.ready(s.name(size)+unfinishedSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	a.file = file
	return errors.Join(f.spool.account.Give(file.Name()), unix.Ftruncate(int(file.Fd()), int64(size))) //nolint:gosec // at most 1 GiB
}

// emit makes a whole segment one that can be taken.
func (a *assembly) emit(_ context.Context) error {
	f := a.feed
	if a.file == nil {
		return nil
	}
	name := a.file.Name()
	err := a.file.Close()
	a.file = nil
	if err != nil {
		return err
	}
	if err := os.Rename(name, f.spool.ready(a.segment.name(f.plan.Segment))); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes += f.plan.Segment
	f.changed.Broadcast()
	return nil
}

// finish keeps the last segment, which is not whole: zeros follow what is known.
func (a *assembly) finish() error {
	f := a.feed
	if a.file == nil {
		return nil
	}
	name := a.file.Name()
	err := errors.Join(a.file.Sync(), a.file.Close())
	a.file = nil
	if err != nil {
		return err
	}
	if err := os.Rename(name, f.spool.path(keepName, a.segment.name(f.plan.Segment))); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	tail := a.segment
	f.tail = &tail
	f.bytes += uint64(a.at) % f.plan.Segment
	return nil
}

// passed notes up to where the server must come. Errors: [*SpacesError].
//
// No commit in a record or before it is later than its time. So all WAL that is whole in the records up to the time that is
// wanted stands before the first commit that is later, where the server stops. What begins in such a record and ends in the next
// may be that very commit.
func (f *feed) passed(r *Record, end pg.LSN) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.walk(r)
	if f.broken == nil && f.walker != nil {
		end = min(end, f.walker.End())
	}
	if (f.until.IsZero() || r.Time.Before(f.until) || r.Time.Equal(f.until) && !f.plan.Target.Exclusive) && end > f.guard {
		f.guard = end
	}
	if f.spaces != nil && f.spaces.refused != nil {
		return f.spaces.refused
	}
	return nil
}

// enough reports whether the log may end where it is damaged: all that counts for the time that is wanted is before that.
func (f *feed) enough(err error) bool {
	var hole *log.HoleError
	f.mu.Lock()
	defer f.mu.Unlock()
	if !errors.As(err, &hole) || f.until.IsZero() || f.last.IsZero() || f.until.After(f.last) {
		return false
	}
	f.cut = err
	return true
}

// cutBy is what is wrong with the log behind all that was needed; nil: nothing was met.
func (f *feed) cutBy() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut
}

// goodUntil is the time of the last record before what is wrong with the log; zero: nothing is, or that is not known.
func (f *feed) goodUntil() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.broken == nil {
		return time.Time{}
	}
	return f.last
}

// walk lets the walker see a record, once. The caller holds mu.
func (f *feed) walk(r *Record) {
	if f.broken != nil || r.Timeline < f.walked {
		return
	}
	if f.walker == nil || r.Timeline > f.walked {
		if uint64(r.Start)%f.plan.Segment != 0 {
			return
		}
		f.walked = r.Timeline
		f.walker = pg.NewWalker(pg.Origin{System: f.plan.System, Timeline: r.Timeline, SegmentSize: uint32(f.plan.Segment)}, r.Start) //nolint:gosec // at most 1 GiB
		if f.spaces != nil {
			f.walker.Observe(f.spaces.see)
		}
	}
	if r.Start != f.walker.Next() {
		return // it was seen before
	}
	if _, f.broken = f.walker.Write(r.WAL); f.broken == nil {
		f.last = r.Time
	}
}

// wholeEnd is the end of the last record of WAL that is whole; what follows in the log is the beginning of another one. It
// is known when all was read, and if all of it is WAL.
func (f *feed) wholeEnd() (pg.LSN, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.done {
		return 0, false
	}
	if f.broken != nil || f.walker == nil || f.walker.End() == 0 {
		return f.end, true // the server must come to the very end
	}
	return f.walker.End(), true
}

// walError is what is wrong with the WAL, as far as it was seen.
func (f *feed) walError() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

// room waits until the spool has room for one more segment.
func (f *feed) room(ctx context.Context) error {
	window := max(2, int(windowBytes/f.plan.Segment)) //nolint:gosec // at most 256
	for {
		n, err := f.spool.waiting()
		if err != nil {
			return err
		}
		f.mu.Lock()
		sought, hurry := f.wanted != nil, f.hurry != nil
		f.mu.Unlock()
		switch {
		case sought:
			return errSought
		case n < window:
			return nil
		case hurry:
			return f.spool.clearReady() // the server is ahead: it asks for what comes
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// indexLine is a line of the index.
type indexLine struct {
	Timeline uint32            `json:"timeline"`
	Segment  uint64            `json:"segment"`
	Place    snapshot.LogPlace `json:"place"`
}

// note keeps the place of a segment for those who come later.
func (f *feed) note(s segment, p snapshot.LogPlace) error {
	b, err := json.Marshal(indexLine{s.timeline, s.number, p})
	if err != nil {
		return err
	}
	file, err := os.OpenFile(f.spool.path(indexName), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(b, '\n'))
	return errors.Join(err, file.Close(), f.spool.account.Give(file.Name()))
}

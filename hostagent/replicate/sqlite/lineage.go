package sqlite

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/spool"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	format "github.com/btcdecoded/holdfast/shared/sqlite"
)

// lineage is one unbroken piece of a database's history on its way into one stream of the log.
type lineage struct {
	f      *Follower
	tail   *tail.Tail
	stream string
	epoch  uint64 // the highest that is known

	resumed bool   // it goes on with a stream of before
	known   uint64 // number of the newest snapshot that was looked at; of who ships until an epoch is open, then of who tends

	asking sync.Mutex
	origin *log.Place // after which the first record of this lineage goes on; nil: the store must be asked; guarded by asking
	from   point      // the last place that is known to be durable; guarded by asking
	after  *point     // one that may be durable; nil: none; guarded by asking
	mark   *mark      // newest that was noted; nil: the stream has not begun; guarded by asking

	mu        sync.Mutex
	open      *batch        // that collects; guarded by mu
	sealed    []*batch      // that end where a snapshot does, and go before the open one; guarded by mu
	spare     *batch        // nil: none; guarded by mu
	flying    *batch        // on its way; nil: none; guarded by mu
	last      tail.Batch    // newest look that found something; guarded by mu
	lookedAt  time.Time     // all that was committed by then was found: when the newest look began, or an earlier follower's; guarded by mu
	sick      time.Time     // since when looks fail; zero: they do not; guarded by mu
	cuts      uint64        // records that were cut; guarded by mu
	places    []log.Place   // of the records from number gone on; guarded by mu
	gone      uint64        // records whose places were forgotten; guarded by mu
	captures  []*Capture    // guarded by mu
	looks     uint64        // that succeeded; guarded by mu
	looking   chan struct{} // closed and made again after each look; guarded by mu
	hurry     bool          // somebody waits for a look; guarded by mu
	flush     uint64        // ship at once what the look of that number finds, and all before; 0: as the pace says; guarded by mu
	unwait    func()        // ends the poller's wait; guarded by mu
	over      error         // the tail ended; guarded by mu
	streaming bool          // the snapshot that begins the stream is there; guarded by mu
	done      bool          // nothing is shipped any more; guarded by mu
	writer    *log.Writer   // nil: no epoch is open; guarded by mu
	placing   chan struct{} // closed and made again whenever a record is durable, or the lineage is over; guarded by mu

	news chan struct{} // something waits, or the tail ended
}

func newLineage(f *Follower, t *tail.Tail) *lineage {
	l := &lineage{
		f: f, tail: t,
		placing: make(chan struct{}), looking: make(chan struct{}), news: make(chan struct{}, 1),
	}
	l.open, l.spare = l.newBatch(), l.newBatch()
	return l
}

func (l *lineage) newBatch() *batch {
	return &batch{pages: spool.New(spool.Options{Dir: l.f.o.Dir, Memory: l.f.o.Memory, Disk: l.f.o.Disk})}
}

// run follows until ctx ends, which is no error, or what is followed does. If base is not nil, it makes the snapshot with
// which the stream begins; until then nothing is shipped.
func (l *lineage) run(ctx context.Context, base func(context.Context, *Capture) error) error {
	inner, cancel := context.WithCancel(ctx)
	// What is not durable at the end has the grace.
	shipping, drop := context.WithCancel(context.WithoutCancel(ctx))
	late := context.AfterFunc(ctx, func() { time.AfterFunc(l.f.o.Grace, drop) })
	var others sync.WaitGroup
	defer func() {
		cancel()
		others.Wait()
		l.f.follows(nil)
		l.close()
		late()
		drop()
	}()
	var first *Capture
	if base != nil {
		first = l.capture(true)
	}
	others.Go(func() { l.poll(inner) })
	if base != nil {
		err := base(inner, first)
		first.Close()
		if err != nil {
			return l.because(err)
		}
	}
	l.f.follows(l)
	l.f.State(replicate.Following, "", "")
	others.Go(func() { l.tend(inner) })
	return l.ship(shipping)
}

// because adds why the tail ended to what came of it.
func (l *lineage) because(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over != nil && !errors.Is(err, l.over) && !errors.Is(l.over, errEnded) {
		return errors.Join(l.over, err)
	}
	return err
}

// close gives up what a lineage holds.
func (l *lineage) close() {
	l.mu.Lock()
	l.done = true
	l.woken()
	for _, b := range slices.Concat(l.sealed, []*batch{l.open, l.spare, l.flying}) {
		if b != nil {
			b.pages.Close()
		}
	}
	w := l.writer
	l.mu.Unlock()
	if w != nil {
		_ = w.Close() // all that it has is stored, or is read again
	}
}

// follows tells which lineage takes captures.
func (f *Follower) follows(l *lineage) {
	if l == nil {
		f.Hastens(nil)
		f.Follows(nil)
	} else {
		f.Follows(l.describe)
		f.Hastens(l.hasten)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live = l
}

// poll looks at the database until ctx ends, and once more then. Nobody else touches the tail.
func (l *lineage) poll(ctx context.Context) {
	r := rest{pace: pace{interval: l.f.o.Interval}, ears: l.tail}
	whole := context.WithoutCancel(ctx)
	heard := false
	for {
		ending := ctx.Err() != nil
		l.mu.Lock()
		l.hurry = false
		n, moved := 0, false
		if l.over == nil {
			var err error
			if n, moved, err = l.look(whole); err == nil {
				if !l.last.More {
					l.looks++
				}
				if l.looks >= l.flush && l.waiting().IsZero() {
					l.flush = 0
				}
			} else if !l.passing(err) {
				l.finish(err)
			}
		}
		if ending && l.over == nil {
			l.finish(errEnded)
		}
		close(l.looking)
		l.looking = make(chan struct{})
		over := l.over != nil
		l.mu.Unlock()
		if n > 0 || moved || over {
			replicate.Nudge(l.news)
		}
		if over {
			return
		}
		heard = l.wait(ctx, r.next(n, heard))
	}
}

// passingFor is how long the database may be in a state that may pass by itself.
const passingFor = 5 * time.Second

// passing reports whether what keeps a look from succeeding may pass, such as files that come and go just now: nothing is
// missed by it. The caller holds mu.
func (l *lineage) passing(err error) bool {
	var s *tail.StateError
	if !errors.As(err, &s) {
		return false
	}
	if l.sick.IsZero() {
		l.sick = time.Now()
	}
	return time.Since(l.sick) < passingFor
}

// wait waits until the next look: until a checkpoint begins, at the latest, or until something is heard.
func (l *lineage) wait(ctx context.Context, d time.Duration) (heard bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	if l.hurry {
		cancel()
	}
	l.unwait = cancel
	l.mu.Unlock()
	heard, _ = l.tail.Rest(ctx, d) // an end of the context is no error
	l.mu.Lock()
	l.unwait = nil
	l.mu.Unlock()
	return heard
}

// lookNow has the database looked at, and returns after a look that began after it was called and succeeded. The caller holds mu, which
// is free meanwhile.
func (l *lineage) lookNow(ctx context.Context) {
	for want := l.looks + 1; l.over == nil && l.looks < want && ctx.Err() == nil; {
		l.hurry = true
		if l.unwait != nil {
			l.unwait()
		}
		done := l.looking
		l.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		l.mu.Lock()
	}
}

// errEnded is how a lineage ends that was asked to.
var errEnded = errors.New("the follower was stopped")

// finish ends the lineage: nothing is read any more. The caller holds mu.
func (l *lineage) finish(err error) {
	l.over = err
	l.woken()
	replicate.Nudge(l.news)
}

// woken wakes those who wait for a place. The caller holds mu.
func (l *lineage) woken() {
	close(l.placing)
	l.placing = make(chan struct{})
}

// collects reports whether what is read is for the next record. What is read before a snapshot that begins the stream asks
// for the first time is in that, however long the log is by then. The caller holds mu.
func (l *lineage) collects() bool {
	return l.streaming || !slices.ContainsFunc(l.captures, func(c *Capture) bool { return c.base && !c.polled })
}

// look reads what was committed since the last look, and returns how many commits, and whether the place has another
// name now. The caller holds mu.
func (l *lineage) look(ctx context.Context) (commits int, moved bool, err error) {
	began := time.Now()
	collects := l.collects()
	b, err := l.tail.Poll(ctx, func(number uint32, data []byte) error {
		if number == format.LockPage(uint32(len(data))) { //nolint:gosec // a page's size
			return nil // it has no content
		}
		if collects {
			if err := l.open.pages.Put(number, data); err != nil {
				return err
			}
		}
		for _, c := range l.captures {
			if c.broken == nil {
				c.broken = c.pages.Put(number, data) // the capture fails, not the log
			}
		}
		return nil
	})
	if err != nil {
		l.open.pages.Drop()
		for _, c := range l.captures {
			c.pages.Drop()
		}
		if l.streaming && l.open.pages.Len() == 0 && len(l.sealed) == 0 && errors.Is(err, spool.ErrFull) {
			// It will never fit: not when all before it is shipped, and not in the next lineage.
			err = &tail.GapError{Cause: tail.Missed, Why: "more was committed at once than may wait for the store: " + err.Error()}
		}
		return 0, false, err
	}
	since := l.lookedAt
	if l.sick = (time.Time{}); !b.More { // or else what is committed by now is in the next one
		l.lookedAt = began
	}
	if since.IsZero() || since.After(b.Time) { // nothing was read before, or the clock was set back
		since = b.Time
	}
	if b.Commits == 0 {
		moved = b.Position != l.last.Position
		l.last.Position, l.last.PageSize, l.last.More = b.Position, b.PageSize, b.More
		if l.open.commits > 0 {
			l.open.position = b.Position
		}
		return 0, moved, nil
	}
	if b.Time.Before(l.last.Time) {
		b.Time = l.last.Time // a clock that was set back: points in time stay in order
	}
	l.last = b
	if collects {
		l.open.add(b, since, l.lookedAt)
	}
	for _, c := range l.captures {
		c.pages.Keep()
		c.commits += b.Commits
	}
	return b.Commits, false, nil
}

// mostSealed is how many batches wait that end where a snapshot does. More come to be where the store takes no records while
// snapshots are tried again and again: then a later one takes in the one before, whose snapshot has failed.
const mostSealed = 2

// sealOpen lets a record end here, if something waits. The caller holds mu.
func (l *lineage) sealOpen() error {
	if l.open.commits == 0 {
		return nil
	}
	if n := len(l.sealed); n >= mostSealed {
		if err := l.sealed[n-1].join(l.open); err != nil {
			return err
		}
		l.open.reset()
		return nil
	}
	l.sealed = append(l.sealed, l.open)
	if l.open = l.spare; l.open == nil {
		l.open = l.newBatch()
	}
	l.spare = nil
	replicate.Nudge(l.news)
	return nil
}

// cut takes what waits, for a record; nil if there is nothing.
func (l *lineage) cut() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.open
	if len(l.sealed) > 0 {
		b, l.sealed = l.sealed[0], l.sealed[1:]
	} else {
		if l.looks >= l.flush {
			l.flush = 0
		}
		if b.commits == 0 {
			return nil
		}
		if l.open = l.spare; l.open == nil {
			l.open = l.newBatch()
		}
		l.spare = nil
	}
	l.flying = b
	l.cuts++
	b.pages.Trim(b.size)
	return b
}

// waiting is when the oldest commit was seen that waits for a record; zero: none does. The caller holds mu.
func (l *lineage) waiting() time.Time {
	if len(l.sealed) > 0 {
		return l.sealed[0].oldest()
	}
	return l.open.oldest()
}

// landed notes that a record is durable. The batch is not the caller's any more.
func (l *lineage) landed(b *batch, place log.Place, at time.Time) {
	// Counted first: a status must not say that all is durable and leave out what has just become so.
	l.f.Landed(b.groups, place, at)
	l.mu.Lock()
	l.flying = nil
	b.reset()
	if l.spare == nil {
		l.spare = b
	} else {
		b.pages.Close()
	}
	l.places = append(l.places, place)
	if len(l.captures) == 0 && len(l.places) > 1 {
		n := len(l.places) - 1 // the next capture may ask for the newest
		l.places = slices.Delete(l.places, 0, n)
		l.gone += uint64(n)
	}
	l.woken()
	l.mu.Unlock()
}

// shipped is how many records of it are durable.
func (l *lineage) shipped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone + uint64(len(l.places))
}

// placed waits until so many records are durable, and returns the place of the last of them.
func (l *lineage) placed(ctx context.Context, records uint64) (log.Place, error) {
	for {
		l.mu.Lock()
		done := l.gone + uint64(len(l.places))
		switch {
		case records == 0:
			l.mu.Unlock()
			return l.settle(ctx)
		case done >= records && records > l.gone:
			defer l.mu.Unlock()
			return l.places[records-l.gone-1], nil
		case l.done || records <= l.gone:
			defer l.mu.Unlock()
			return log.Place{}, errOver
		}
		wait := l.placing
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return log.Place{}, ctx.Err()
		}
	}
}

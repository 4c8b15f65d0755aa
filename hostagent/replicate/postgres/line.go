package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// line is a lineage on its way into the log, over any number of connections to the server.
type line struct {
	f      *Follower
	q      *intake
	safe   chan struct{} // something may be acknowledged
	again  chan struct{} // a base backup is to be made
	begun  chan struct{} // closed when the server streams what comes next
	stop   context.CancelFunc
	others sync.WaitGroup
	done   chan struct{} // closed when nothing is shipped any more

	archive bool // WAL comes from archive_command: an epoch goes on over processes, and its number is not tried twice all the same

	receiving uint32    // the timeline that is received; of who receives
	answered  time.Time // when damage of the log was answered last; of tend
	history   []byte    // of the timeline of a stream that has no record yet; set before WAL is added

	mu     sync.Mutex
	m      *mark        // as it was noted last; what it points to never changes; guarded by mu, as all below
	writer *log.Writer  // nil: no epoch is open
	acked  postgres.LSN // up to where the server may forget WAL; 0: nothing
	other  bool         // what is durable is not the server's WAL, until the log has turned to its timeline: nothing is acknowledged
	looked time.Time    // all that was committed by then is here, or was durable when the line began
	server postgres.LSN // end of the server's WAL, as it said last
	puts   uint64       // records
	err    error        // why nothing is shipped any more
}

// errEnded is how a line ends that was asked to.
var errEnded = errors.New("the follower was stopped")

// errAgain ends a line that is taken up anew from its mark.
var errAgain = errors.New("the log is taken up again")

// gapError says that WAL is missing: the lineage has ended.
type gapError struct{ why string }

func (e *gapError) Error() string { return e.why }

// newLine takes a lineage up where its mark says. What is received first is at the mark's place, or, if the server is on
// another branch, a turn to that.
func (f *Follower) newLine(ctx context.Context, m *mark, other bool) *line {
	before := f.Status()
	l := &line{
		f: f, m: m, receiving: m.Timeline, q: newIntake(m.onward(), m.Segment, f.o.Memory), other: other, looked: before.Until(),
		safe: make(chan struct{}, 1), again: make(chan struct{}, 1), begun: make(chan struct{}), done: make(chan struct{}),
	}
	if m.Last.Place.Sequence > 0 && !other {
		l.acked = m.Last.LSN
	}
	inner, cancel := context.WithCancel(ctx)
	// What is not durable at the end has the grace.
	shipping, drop := context.WithCancel(context.WithoutCancel(ctx))
	late := context.AfterFunc(ctx, func() { time.AfterFunc(f.o.Grace, drop) })
	l.stop = func() {
		cancel()
		late()
		drop()
	}
	go func() {
		defer close(l.done)
		err := l.ship(shipping)
		l.mu.Lock()
		l.err = err
		l.mu.Unlock()
	}()
	l.others.Go(func() { l.tend(inner) })
	l.others.Go(func() { l.base(inner) })
	return l
}

// end ends the line, once all is shipped that was received, and returns why nothing is shipped any more.
func (l *line) end(reason error) error {
	l.q.finish(reason)
	<-l.done
	l.stop()
	l.others.Wait()
	l.f.Follows(nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writer != nil {
		_ = l.writer.Close() // all that it has is stored, or is received again
		l.writer = nil
	}
	return l.err
}

// mark is how far the line is.
func (l *line) mark() *mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m
}

// note changes the mark and writes it down. With sync it is on the disk when note returns.
func (l *line) note(sync bool, change func(m *mark)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.m.clone()
	change(m)
	if err := l.f.Marks.Set(m, sync); err != nil {
		return err
	}
	l.m = m
	return nil
}

// flight is a record on its way.
type flight struct {
	b        *batch
	prepared *log.Prepared
	cut      time.Time
	place    log.Place
	err      error
	done     chan struct{}
}

// ship makes records of what is received until that has ended and all is durable, or ctx has. While one record is on its
// way the next is made ready, if it is full: what is not yet may still grow.
func (l *line) ship(ctx context.Context) error {
	p := replicate.Pace{Interval: l.f.o.Interval}
	var flying, ahead *flight
	defer func() {
		if flying != nil {
			<-flying.done // whatever comes of it, the next process asks the store
		}
	}()
	for {
		if flying == nil && ahead != nil {
			flying, ahead = ahead, nil
			if err := l.depart(ctx, flying); err != nil {
				flying = nil
				return err
			}
		}
		var until time.Time
		if ahead == nil {
			now := time.Now()
			var b *batch
			b, until = l.q.take(now, flying == nil, p.Due)
			if b != nil {
				if flying == nil {
					p.Cut(now)
				}
				var err error
				if ahead, err = l.ready(ctx, b, now); err != nil {
					return err
				}
				continue
			}
		}
		if flying == nil {
			if over := l.q.ended(); over != nil {
				return over
			}
		}
		if !l.wait(ctx, flying, until) {
			continue
		}
		p.Took(time.Since(flying.cut))
		err := l.land(flying)
		flying = nil
		if err != nil {
			return err
		}
	}
}

// wait waits until something is to be done, and reports whether the record that was flying has ended its way.
func (l *line) wait(ctx context.Context, flying *flight, until time.Time) bool {
	var landed <-chan struct{}
	if flying != nil {
		landed = flying.done
	}
	var due <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		due = t.C
	}
	ending := ctx.Done()
	if flying != nil {
		ending = nil // it ends with the context
	}
	select {
	case <-landed:
		return true
	case <-l.q.news:
	case <-due:
	case <-ending:
		l.q.finish(ctx.Err())
		l.q.drop()
	}
	return false
}

// ready makes the record of a batch, or turns to another timeline, which returns none.
func (l *line) ready(ctx context.Context, b *batch, now time.Time) (*flight, error) {
	if b.turn != nil {
		defer l.q.done()
		return nil, l.turn(ctx, b.turn)
	}
	w, err := l.epoch(ctx, b)
	if err != nil {
		return nil, err
	}
	prepared, err := w.Prepare(log.Record{Time: b.newest, WAL: &log.WAL{Start: b.start, Bytes: b.data}})
	if err != nil {
		return nil, fmt.Errorf("ship: %w", err)
	}
	return &flight{b: b, prepared: prepared, cut: now, done: make(chan struct{})}, nil
}

// point is what is durable when the record is.
func (f *flight) point(place log.Place) point {
	return point{Place: place, LSN: f.b.end(), Time: f.b.newest, Check: f.b.check}
}

// depart puts a record.
//
// 1. The mark says which record comes, and up to where it has WAL. A crash from here on is settled by a listing: the
// record is there, or it is not.
// 2. The record is put.
// 3. The mark says that it is durable (land). Its WAL is acknowledged when that is on the disk (tend): after a power cut the
// server still has what comes after the mark.
func (l *line) depart(ctx context.Context, f *flight) error {
	after := f.point(f.prepared.Place())
	if err := l.note(l.archive, func(m *mark) { m.Pending = &after }); err != nil {
		return err
	}
	l.mu.Lock()
	w := l.writer
	l.mu.Unlock()
	go func() {
		defer close(f.done)
		f.place, f.err = w.Put(ctx, f.prepared)
	}()
	return nil
}

// land notes that a record is durable.
func (l *line) land(f *flight) error {
	if f.err != nil {
		return fmt.Errorf("ship: %w", f.err)
	}
	now := time.Now()
	if err := l.note(false, func(m *mark) { m.reached(f.point(f.place)) }); err != nil {
		return err
	}
	l.mu.Lock()
	l.puts++
	timeline := l.m.Timeline
	l.mu.Unlock()
	oldest, newest, groups := f.b.oldest(), f.b.newest, f.b.groups
	l.f.Landed(groups, f.place, now)
	bytes, end := len(f.b.data), f.b.end()
	l.q.done() // the batch is given back: nothing of it is used any more
	l.f.Calm()
	l.f.show()
	l.f.Tell(replicate.Event{
		Kind: replicate.Shipped, Place: f.place, Point: newest.UTC(), Total: l.f.Total(),
		Bytes: bytes, LSN: end.String(), Timeline: timeline, Lag: float64(now.Sub(oldest)) / float64(time.Millisecond),
	})
	return nil
}

// describe adds what the line knows to a status.
func (l *line) describe(s *replicate.Status) {
	// The look comes first: what arrives from here on was committed later, or is among what waits.
	l.mu.Lock()
	looked := l.looked
	l.mu.Unlock()
	none, bytes, next := l.q.waits()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !looked.IsZero() {
		s.Looked = looked.UTC()
	}
	if !none.IsZero() {
		s.Oldest = none.UTC()
	}
	s.Pending.Bytes = int64(bytes)
	c := replicate.Cluster{}
	if s.Cluster != nil {
		c = *s.Cluster
	}
	c.Durable, c.Sent, c.End, c.Timeline = l.m.Last.LSN.String(), next.String(), max(l.server, next).String(), l.m.Timeline
	s.Cluster = &c
}

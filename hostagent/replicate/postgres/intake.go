package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

const (
	// pageSize is that of WAL, as it mostly is.
	pageSize = 8 << 10
	// leastProof is how much of it right before a place proves which WAL it is, where the segment has as much. Less may be
	// hardly more than the header of a page, which is the same on all servers that were one.
	leastProof = pageSize / 2
)

// batch is WAL that becomes one record, or a turn to the next timeline.
type batch struct {
	start  postgres.LSN
	data   []byte
	groups []replicate.Seen
	came   time.Time // when the oldest of it came
	none   time.Time // nothing in it was committed by then, as near as is known
	first  time.Time // the time of its first piece
	newest time.Time // the record's time: see [intake.dated]
	check  *check    // of its end

	turn *turn
}

func (b *batch) end() postgres.LSN { return b.start + postgres.LSN(len(b.data)) }

// oldest is since when commits in it may wait: when the oldest of it came, or was committed where it came late.
func (b *batch) oldest() time.Time {
	if b == nil || len(b.groups) == 0 {
		return time.Time{}
	}
	return b.groups[0].At
}

// turn is where the log goes on with another timeline.
type turn struct {
	timeline uint32
	at       postgres.LSN // where the timelines part
	history  []byte
	time     time.Time
	after    *log.Place // after which it goes on; nil: after all that came before
}

// intake holds WAL between the server and the store: not more than its limit. One goroutine adds, one takes.
type intake struct {
	segment uint32
	limit   int
	news    chan struct{} // something may be taken
	room    chan struct{} // something may be added

	mu      sync.Mutex
	next    postgres.LSN // where the next byte belongs; guarded by mu, as all below
	tail    []byte       // the last bytes before next that are not all zeros, of one segment: less than two pages
	from    postgres.LSN // of tail
	newest  time.Time    // of the record that ends at next: times never go back
	caught  bool         // all that the server had when it sent what is right before next is here
	ends    *ends        // sees transactions' ends behind a backlog; nil: not in the midst of one
	page    uint32       // size of pages of WAL, bytes; 0: the usual one
	ready   []*batch     // that are complete
	open    *batch       // that collects; nil: nothing
	flying  []*batch     // taken and not done
	held    int          // bytes of all of these
	waiting bool         // who adds waits for room
	over    error        // nothing is added any more
	spare   []byte
	expect  *check    // of what is before next, where the bytes are not known
	dropped time.Time // nothing that was given up was committed by then; zero: nothing was given up
}

// defaultLimit is how many bytes of WAL are in memory that are not durable.
const defaultLimit = 16 << 20

// newIntake returns one that goes on after a point.
func newIntake(after point, segment uint32, limit int) *intake {
	if limit <= 0 {
		limit = defaultLimit
	}
	return &intake{
		segment: segment, limit: limit, next: after.LSN, from: after.LSN, newest: after.Time, expect: after.proof(), news: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

// errHoleInStream says that the server left something out.
var errHoleInStream = errors.New("the server's stream has a hole")

// arrival is how a piece of WAL came.
type arrival struct {
	sent   time.Time // by the server's clock; of what was archived: now
	came   time.Time
	known  time.Time // all that was committed by then came before; zero: that is not known
	caught bool      // it ends where the server's WAL did when it was sent

	relayed bool // by a standby: what was committed until then it may not have
}

// add takes what a server has sent. It waits while there is no room, until ctx ends.
func (q *intake) add(ctx context.Context, start postgres.LSN, data []byte, a arrival) error {
	for len(data) > 0 {
		q.mu.Lock()
		if q.over != nil {
			defer q.mu.Unlock()
			return q.over
		}
		if q.waiting = q.held >= q.limit; q.waiting {
			q.mu.Unlock()
			select {
			case <-q.room:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if start > q.next {
			defer q.mu.Unlock()
			return fmt.Errorf("%w: %s comes where %s is due", errHoleInStream, start, q.next)
		}
		// What is here already comes again after a reconnection.
		if known := int(min(uint64(q.next-start), uint64(len(data)))); known > 0 {
			start, data = start+postgres.LSN(known), data[known:]
		} else {
			n := q.collect(data, a)
			start, data = start+postgres.LSN(n), data[n:]
		}
		q.mu.Unlock()
	}
	return nil
}

// collect adds what goes into one record, and returns how much that was. The caller holds mu.
func (q *intake) collect(data []byte, a arrival) int {
	if q.open == nil {
		q.open = &batch{start: q.next, data: q.spare[:0], came: a.came, none: a.came}
		q.spare = nil
	}
	b := q.open
	room := min(log.MaxWAL-len(b.data), int(q.next.SegmentEnd(q.segment)-q.next))
	a.caught = a.caught && len(data) <= room
	data = data[:min(len(data), room)]
	since, none := q.dated(data, a)
	b.none = earlier(b.none, none)
	b.data = append(b.data, data...)
	b.groups = replicate.Fewer(append(b.groups, replicate.Seen{At: since, Commits: 1}))
	if b.newest = q.newest; b.first.IsZero() {
		b.first = b.newest
	}
	q.held += len(data)
	q.remember(data)
	if len(b.data) == log.MaxWAL || q.next == q.next.SegmentStart(q.segment) {
		q.close()
	}
	replicate.Nudge(q.news)
	return len(data)
}

// close makes a batch of what was collected. The caller holds mu.
func (q *intake) close() {
	if q.open == nil {
		return
	}
	q.open.check = checkOf(q.from, q.tail)
	q.ready = append(q.ready, q.open)
	q.open = nil
}

// remember keeps the pages that the newest bytes are in. The zeros that fill a segment behind a switch say nothing: then it is
// what stands before them. The caller holds mu.
func (q *intake) remember(data []byte) {
	at := q.next
	q.next += postgres.LSN(len(data))
	q.expect = nil
	data = bytes.TrimRight(data, "\x00")
	if len(data) == 0 {
		return
	}
	end := at + postgres.LSN(len(data))
	from := max((end - 1).SegmentStart(q.segment), (end-leastProof)&^(pageSize-1))
	if from >= at {
		q.tail, q.from = append(q.tail[:0], data[from-at:]...), from
		return
	}
	if zeros := int(at-q.from) - len(q.tail); zeros > 0 {
		q.tail = append(q.tail, make([]byte, zeros)...)
	}
	if from > q.from {
		q.tail, q.from = q.tail[:copy(q.tail, q.tail[from-q.from:])], from
	}
	q.tail = append(q.tail, data...) // also where what was before is not known
}

// proof is what must be before next at a server; nil: nothing is known.
func (q *intake) proof() (next postgres.LSN, sum *check) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.expect != nil {
		return q.next, q.expect
	}
	return q.next, checkOf(q.from, q.tail)
}

// proven takes over the bytes before next that were found to be the right ones.
func (q *intake) proven(from postgres.LSN, tail []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.from, q.tail, q.expect = from, append(q.tail[:0], tail...), nil
}

// turn adds a turn to another timeline; next is the start of the segment in which they part.
func (q *intake) turn(t *turn) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over != nil {
		return q.over
	}
	q.close()
	if !t.time.After(q.newest) {
		t.time = after(q.newest)
	}
	q.newest, q.caught, q.ends = t.time, false, nil
	q.next = t.at.SegmentStart(q.segment)
	q.from, q.tail, q.expect = q.next, q.tail[:0], nil
	q.ready = append(q.ready, &batch{start: q.next, turn: t})
	replicate.Nudge(q.news)
	return nil
}

// take returns the next batch; nil if there is none, or none that is due: then until is when there will be one, zero if
// that is not known. What collects is taken only if collecting is true, and when due says so, or at the end; a turn too
// only if collecting is true: all before it is durable then.
func (q *intake) take(now time.Time, collecting bool, due func(oldest time.Time) time.Time) (b *batch, until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ready) == 0 && q.open != nil && collecting {
		if until = due(q.open.came); until.After(now) && q.over == nil {
			return nil, until
		}
		q.close()
	}
	if len(q.ready) == 0 || q.ready[0].turn != nil && !collecting {
		return nil, time.Time{}
	}
	b = q.ready[0]
	q.ready[0] = nil
	q.ready = q.ready[1:]
	q.flying = append(q.flying, b)
	return b, time.Time{}
}

// done gives the room of the oldest batch that was taken.
func (q *intake) done() {
	q.mu.Lock()
	b := q.flying[0]
	q.flying[0] = nil
	q.flying = q.flying[1:]
	q.held -= len(b.data)
	if cap(q.spare) < cap(b.data) {
		q.spare = b.data
	}
	b.data = nil
	q.mu.Unlock()
	replicate.Nudge(q.room)
}

// finish ends it: what is there may still be taken.
func (q *intake) finish(err error) {
	q.mu.Lock()
	if q.over == nil {
		q.over = err
	}
	q.mu.Unlock()
	replicate.Nudge(q.news)
	replicate.Nudge(q.room)
}

// drop gives up what nobody has taken.
func (q *intake) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range append(q.ready, q.open) {
		if b != nil {
			q.held -= len(b.data)
			q.dropped = earlier(q.dropped, b.none)
		}
	}
	q.ready, q.open = nil, nil
}

// earlier is the earlier of two times, of which those that are zero do not count.
func earlier(x, y time.Time) time.Time {
	if x.IsZero() || !y.IsZero() && y.Before(x) {
		return y
	}
	return x
}

// ended returns why nothing comes any more, once all was taken; nil: not yet.
func (q *intake) ended() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ready) > 0 || q.open != nil {
		return nil
	}
	return q.over
}

// full reports whether who adds waits for room.
func (q *intake) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// waits says what is not durable: a time by which nothing of it was committed, how much it is, and up to where WAL is here.
// What was given up is among it, for it is lost unless the server sends it again.
func (q *intake) waits() (none time.Time, bytes int, next postgres.LSN) {
	q.mu.Lock()
	defer q.mu.Unlock()
	none = q.dropped
	for _, list := range [][]*batch{q.flying, q.ready, {q.open}} {
		for _, b := range list {
			if b != nil {
				none = earlier(none, b.none)
			}
		}
	}
	return none, q.held, q.next
}

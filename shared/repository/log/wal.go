package log

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// MaxWAL is how much WAL one record holds at most, in bytes.
const MaxWAL = 4 << 20

// maxHistory is the size of the largest history file in a record, in bytes.
const maxHistory = 4 << 20

// WAL is the body of a record of kind [KindPostgres] that holds write-ahead log.
type WAL struct {
	Start postgres.LSN // of the first byte
	Bytes []byte       // 1 to MaxWAL, of one WAL segment
}

// End is where the next WAL starts.
func (w *WAL) End() postgres.LSN { return w.Start + postgres.LSN(len(w.Bytes)) }

// History is the body of a record of kind [KindPostgres] that holds a timeline's history file.
type History struct {
	Timeline uint32 // from 2
	Content  []byte // as the server gave it
}

// Types of bodies.
const (
	bodyWAL     = 'w'
	bodyHistory = 'h'
)

// appendWAL appends the body of a record of kind [KindPostgres].
func (r *Record) appendWAL(dst []byte) []byte {
	if r.WAL != nil {
		dst = binary.AppendUvarint(append(dst, bodyWAL), uint64(r.WAL.Start))
		return append(dst, r.WAL.Bytes...)
	}
	dst = binary.AppendUvarint(append(dst, bodyHistory), uint64(r.History.Timeline))
	return append(dst, r.History.Content...)
}

// decodeWAL parses a record of kind [KindPostgres] into r, which aliases it. segment is the size of WAL segments; 0: not
// known.
func decodeWAL(e *entry, segment uint32, r *Record) error {
	body := e.body
	d := decoder{b: body}
	kind := d.bytes(1)
	value := d.uvarint()
	if e.more {
		d.fail("WAL is no transaction of several records")
	}
	if d.err != nil {
		return fmt.Errorf("decode WAL: %w", d.err)
	}
	rest := body[d.off:]
	switch {
	case kind[0] == bodyWAL:
		r.WAL = &WAL{Start: postgres.LSN(value), Bytes: rest}
		return r.WAL.check(segment)
	case kind[0] == bodyHistory && value >= 2 && value <= math.MaxUint32 && len(rest) > 0 && len(rest) <= maxHistory:
		r.History = &History{Timeline: uint32(value), Content: rest}
		return nil
	}
	return fmt.Errorf("decode WAL: %w: type %q, number %d, %d bytes", snapshot.ErrFormat, kind[0], value, len(rest))
}

// check reports WAL that can't be in one record.
func (w *WAL) check(segment uint32) error {
	if len(w.Bytes) == 0 || len(w.Bytes) > MaxWAL || w.End() < w.Start {
		return fmt.Errorf("%w: %d bytes of WAL at %s in one record", snapshot.ErrFormat, len(w.Bytes), w.Start)
	}
	if segment != 0 && w.End() > w.Start.SegmentEnd(segment) {
		return fmt.Errorf("%w: WAL from %s to %s in one record is of two segments", snapshot.ErrFormat, w.Start, w.End())
	}
	return nil
}

// PositionError says that WAL does not go on where it should.
type PositionError struct {
	Timeline uint32       // of the WAL
	Want     postgres.LSN // where it should start, or, over to another timeline, at the latest
	Got      postgres.LSN
	Problem  string // what else is wrong; empty: WAL is missing, or comes twice
}

func (e *PositionError) Error() string {
	switch {
	case e.Problem != "":
		return fmt.Sprintf("WAL of timeline %d at %s: %s", e.Timeline, e.Got, e.Problem)
	case e.Got < e.Want:
		return fmt.Sprintf("WAL of timeline %d goes back from %s to %s", e.Timeline, e.Want, e.Got)
	}
	return fmt.Sprintf("WAL of timeline %d from %s to %s is missing", e.Timeline, e.Want, e.Got)
}

// Position follows where WAL goes on from record to record, over epochs and timelines. Its zero value knows nothing: what
// comes first is believed.
type Position struct {
	next     postgres.LSN // 0: not known
	stream   string       // of the last record; empty: there was none
	timeline uint32
	history  *postgres.TimelineHistory // of the timeline, if it was seen
	fresh    bool                      // the stream has no WAL yet: it begins, or goes on from another timeline
	from     uint32                    // then: that timeline; 0: the stream begins a log
}

// Next is where the next WAL starts; 0: not known, or another timeline follows.
func (p *Position) Next() postgres.LSN {
	if p.fresh {
		return 0
	}
	return p.next
}

// PositionAt is where WAL of a timeline has ended with a record of a stream.
func PositionAt(stream string, timeline uint32, end postgres.LSN) Position {
	return Position{stream: stream, timeline: timeline, next: end}
}

// Start checks that WAL may go on at a place; history is that of the timeline, if it is known. An error is a
// *PositionError.
func (p *Position) Start(start postgres.LSN, segment uint32, history *postgres.TimelineHistory) error {
	if history != nil {
		p.history = history
	}
	if p.fresh {
		return p.begin(start, segment)
	}
	if p.next != 0 && start != p.next {
		return &PositionError{Timeline: p.timeline, Want: p.next, Got: start}
	}
	return nil
}

// Enter goes over to an epoch of a stream: it begins the stream, or goes on after what was followed. begins says that
// the stream's first record comes next.
func (p *Position) Enter(stream string, l *record.PostgresLog, begins bool) {
	switch {
	case p.stream == stream:
		return // WAL goes on in another epoch
	case begins:
		p.fresh, p.from = true, p.timeline
	default:
		p.fresh, p.next = false, 0
	}
	p.stream, p.timeline, p.history = stream, l.Timeline, nil
}

// Take checks that a record goes on where the one before it ended. An error is a *PositionError.
func (p *Position) Take(r *Record, segment uint32) error {
	if r.History != nil {
		if r.History.Timeline != p.timeline {
			return nil
		}
		h, err := postgres.ParseHistory(p.timeline, r.History.Content)
		if err != nil {
			return &PositionError{Timeline: p.timeline, Want: p.next, Got: p.next, Problem: err.Error()}
		}
		p.history = h
		return nil
	}
	if r.WAL == nil {
		return nil
	}
	if err := p.Start(r.WAL.Start, segment, nil); err != nil {
		return err
	}
	p.fresh, p.next = false, r.WAL.End()
	return nil
}

// begin checks where the first WAL of a stream starts: with a segment, and over to another timeline with that in which
// the old one was left, or earlier, so that nothing is between.
func (p *Position) begin(start postgres.LSN, segment uint32) error {
	fail := func(problem string) error {
		return &PositionError{Timeline: p.timeline, Want: p.next, Got: start, Problem: problem}
	}
	if start.SegmentStart(segment) != start {
		return fail("the first of the timeline does not start with a segment")
	}
	if p.timeline == p.from && p.next != 0 && start > p.next {
		return &PositionError{Timeline: p.timeline, Want: p.next, Got: start}
	}
	if p.timeline == p.from {
		return nil
	}
	if p.timeline == 1 {
		if p.from > 1 {
			return fail(fmt.Sprintf("it does not come from timeline %d", p.from))
		}
		return nil
	}
	if p.history == nil {
		return fail("the history of the timeline is missing")
	}
	_, limit := p.history.Parent()
	left, ok := p.history.SwitchOf(p.from)
	switch {
	case p.from == 0:
		return nil
	case !ok:
		return fail(fmt.Sprintf("it does not come from timeline %d", p.from))
	case p.next != 0:
		left = min(left, p.next)
	}
	if limit = min(limit, left); start > limit {
		return &PositionError{Timeline: p.timeline, Want: limit, Got: start}
	}
	return nil
}

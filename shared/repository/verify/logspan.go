package verify

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// span is objects of an epoch that were read and follow each other, pieces or segments. Objects are joined into spans as
// they come, so that memory does not grow with their number.
type span struct {
	first, last    uint64        // records
	previous, hash snapshot.Hash // that the first record says of the one before it; of the last record
	start, end     postgres.LSN  // of WAL; 0: none
	joined         bool
}

// walEnds are the places in the WAL at which records end that signed documents name: only there epochs can go on.
type walEnds map[inventory.LogName]map[uint64]postgres.LSN

// walBegin is the first WAL of an epoch that was read from its beginning.
type walBegin struct {
	epoch   *log.Epoch
	first   uint64
	start   postgres.LSN
	history *postgres.TimelineHistory
}

// extend takes an object that was read and found good: it goes on from the last span, or begins another one.
func (c *chainCheck) extend(o layout.LogObject, i log.Inspection) {
	s := span{first: o.First, last: o.Last, previous: i.Previous, hash: i.Last, start: i.WAL, joined: o.Joined}
	if n := len(i.Ends); n > 0 {
		s.end = i.Ends[n-1]
	}
	if i.Gap != nil {
		c.gap(o.First, i.Gap)
	}
	if i.History != nil {
		c.history = i.History
	}
	k := len(c.spans) - 1
	follows := k >= 0 && c.spans[k].joined == o.Joined && c.spans[k].last+1 == o.First
	before := postgres.LSN(0)
	if follows {
		before = c.spans[k].end
		if s.start != 0 && before != 0 && s.start != before {
			c.gap(o.First, &log.PositionError{Timeline: c.epoch.Described.Postgres.Timeline, Want: before, Got: s.start})
			follows = false
		}
	}
	for n := range c.claims[c.epoch.LogName] {
		if o.First <= n && n <= o.Last && len(i.Ends) > 0 {
			c.ended(n, cmp.Or(i.Ends[n-o.First], before))
		}
	}
	if !follows {
		c.spans = append(c.spans, s)
		return
	}
	last := &c.spans[k]
	last.last, last.hash = s.last, s.hash
	last.start, last.end = cmp.Or(last.start, s.start), cmp.Or(s.end, last.end)
}

// ended notes where WAL ends at a record that somebody names.
func (c *chainCheck) ended(n uint64, at postgres.LSN) {
	if at == 0 {
		return
	}
	if c.walEnds[c.epoch.LogName] == nil {
		c.walEnds[c.epoch.LogName] = map[uint64]postgres.LSN{}
	}
	c.walEnds[c.epoch.LogName][n] = at
}

// finish compares the spans of an epoch with each other, when all of its objects were read.
func (c *chainCheck) finish() {
	if !c.deep {
		return
	}
	slices.SortFunc(c.spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	start := uint64(1)
	if p := c.epoch.Described.Continues; p != nil {
		start = p.Sequence + 1
	}
	begins := walBegin{epoch: c.epoch, history: c.history}
	before := map[uint64][]int{} // by the first record after the span
	for i := range c.spans {
		before[c.spans[i].last+1] = append(before[c.spans[i].last+1], i)
	}
	for _, b := range c.spans {
		if b.first == start && b.start != 0 {
			begins.first, begins.start = b.first, b.start
		}
		for _, i := range before[b.first] {
			a := &c.spans[i]
			switch {
			case a.joined == b.joined:
			case a.hash != b.previous && a.joined: // the other way round it was seen at once
				c.c.findings.add(c.key(c.object(b.first)), Disconnected, fmt.Sprintf("record %d %v", b.first, log.ErrChain))
			case a.end != 0 && b.start != 0 && a.end != b.start:
				c.gap(b.first, &log.PositionError{Timeline: c.epoch.Described.Postgres.Timeline, Want: a.end, Got: b.start})
			}
		}
	}
	if begins.start != 0 {
		c.walBegins = append(c.walBegins, begins)
	}
}

func (c *chainCheck) object(n uint64) layout.LogObject {
	return layout.LogObject{Stream: c.epoch.Stream, Epoch: c.epoch.Epoch, First: n, Last: n}
}

// gap tells that the WAL in record n, or soon after it, does not go on where that before it ended: the records are what
// was written, but no server recovers over it.
func (c *chainCheck) gap(n uint64, err error) { c.logs.gap(c.epoch, n, err) }

func (l *logs) gap(e *log.Epoch, n uint64, err error) {
	key := l.key(layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: n, Last: n})
	moments := l.momentsOf(e, n)
	l.c.findings.add(key, Gap, err.Error()+"; "+moments.String())
	l.lost(key, Gap, moments)
	// Who writes the log makes a base backup when it finds the record of that.
	e.All(func(o layout.LogObject, _ inventory.LogPiece) {
		if o.First == n && !o.Joined {
			l.bad[o] = Gap
		}
	})
}

// checkWAL compares where the WAL of epochs begins with where that ended which they continue, over timelines too, when all
// objects were read.
func (l *logs) checkWAL() {
	for _, b := range l.walBegins {
		head := b.epoch.Described
		var p log.Position
		begins := head.Continues == nil || head.Continues.Stream != b.epoch.Stream
		if c := head.Continues; c != nil {
			before := inventory.LogName{Stream: c.Stream, Epoch: c.Epoch}
			end, known := l.walEnds[before][c.Sequence]
			timeline := l.timeline(before)
			if !known || timeline == 0 {
				continue // it was removed, or not read
			}
			p = log.PositionAt(c.Stream, timeline, end)
		}
		p.Enter(b.epoch.Stream, head.Postgres, begins)
		if err := p.Start(b.start, head.Postgres.SegmentSize, b.history); err != nil {
			l.gap(b.epoch, b.first, err)
		}
	}
}

// timeline is that of an epoch of WAL; 0: not known.
func (l *logs) timeline(name inventory.LogName) uint32 {
	for _, st := range l.streams {
		for _, e := range st.Epochs {
			if e.LogName == name && e.Described != nil && e.Described.Postgres != nil {
				return e.Described.Postgres.Timeline
			}
		}
	}
	return 0
}

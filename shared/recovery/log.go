package recovery

import (
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// LogEpoch is what must be known of one epoch of a source's log. An epoch counts from Opened on: what lower epochs of its
// stream hold that is later does not, by default (a fork: a restart, or a cloned machine).
type LogEpoch struct {
	Stream    string
	Epoch     uint64
	Opened    time.Time
	Continues *snapshot.LogPlace // nil: it begins the stream
	Runs      []LogRun           // ascending, with holes between
}

// LogRun is records that follow each other without a hole. From and To are the times of the first and the last, as far as
// they are known; else their arrivals, which are later by the lag.
type LogRun struct {
	First, Last uint64
	From, To    time.Time
}

// LogRange is the records that are applied to a snapshot: after From, up to Through, and of these none that is later than
// Until.
type LogRange struct {
	From    snapshot.LogPlace `json:"from"`           // the snapshot's own place
	Through snapshot.LogPlace `json:"through"`        // without the record's hash
	Until   time.Time         `json:"until,omitzero"` // zero: no limit
}

type epochName struct {
	stream string
	epoch  uint64
}

// logs is the epochs of a source by name, with what supersedes what.
type logs struct {
	points []Point // ascending
	all    []LogEpoch
	index  map[epochName]*LogEpoch
	root   map[epochName]string // the stream in which the history of an epoch begins
}

func newLogs(points []Point, epochs []LogEpoch) *logs {
	l := &logs{points: points, all: epochs, index: map[epochName]*LogEpoch{}, root: map[epochName]string{}}
	for i := range epochs {
		l.index[epochName{epochs[i].Stream, epochs[i].Epoch}] = &epochs[i]
	}
	for i := range epochs {
		l.root[epochName{epochs[i].Stream, epochs[i].Epoch}] = l.rootOf(&epochs[i])
	}
	return l
}

// rootOf follows what epochs continue to the stream in which that begins.
func (l *logs) rootOf(e *LogEpoch) string {
	for range l.all {
		if e.Continues == nil {
			return e.Stream
		}
		before := l.index[epochName{e.Continues.Stream, e.Continues.Epoch}]
		if before == nil {
			return e.Continues.Stream
		}
		e = before
	}
	return e.Stream
}

// above reports whether b counts rather than a, from when it was opened on.
func (l *logs) above(b, a *LogEpoch) bool {
	if l.root[epochName{b.Stream, b.Epoch}] != l.root[epochName{a.Stream, a.Epoch}] {
		return false
	}
	if a.Stream == b.Stream {
		return b.Epoch > a.Epoch
	}
	return b.Opened.After(a.Opened)
}

// superseded is the time up to which an epoch counts; zero: to the end. Epochs without records supersede nothing: their
// writers ended before they stored anything.
func (l *logs) superseded(e *LogEpoch) time.Time {
	var at time.Time
	for i := range l.all {
		b := &l.all[i]
		if len(b.Runs) == 0 || !l.above(b, e) {
			continue
		}
		if end := b.Opened.Add(-1); at.IsZero() || end.Before(at) {
			at = end
		}
	}
	return at
}

// run returns the run that holds record n.
func (e *LogEpoch) run(n uint64) (LogRun, bool) {
	i := slices.IndexFunc(e.Runs, func(r LogRun) bool { return r.First <= n && n <= r.Last })
	if i < 0 {
		return LogRun{}, false
	}
	return e.Runs[i], true
}

// way is a base with the records of one branch after it, as far as they are there without a hole.
type way struct {
	base    *Point
	through *snapshot.LogPlace // nil: no records
	from    time.Time          // not earlier: before that another branch counts; zero: the snapshot's time
	end     time.Time          // the last moment whose state it gives
	limit   time.Time          // not later: from then on another branch counts; zero: no limit
}

// ways returns the base alone and each branch that leads on from it.
func (l *logs) ways(base *Point) []way {
	alone := way{base: base, end: base.Time()}
	if base.Log == nil {
		return []way{alone}
	}
	own := l.index[epochName{base.Log.Stream, base.Log.Epoch}]
	if own != nil {
		if alone.limit = l.superseded(own); !alone.limit.IsZero() && alone.limit.Before(alone.end) && l.onBranch(own, base.Log.Sequence) {
			alone.end = alone.limit
		}
		alone.limit = time.Time{}
	}
	if alone.end.Equal(base.Time()) {
		if end := earliest(l.idle(base.Log), l.replaced(base)); end.After(alone.end) {
			alone.end = end
		}
	}
	out := []way{alone}
	for i := range l.all {
		e := &l.all[i]
		if first, ok := l.leads(base.Log, e); ok {
			if run, ok := e.run(first); ok {
				out = append(out, l.along(base, e, run))
			}
		}
	}
	return out
}

// onBranch reports whether the record lies behind the place where a branch that counts rather than the epoch leaves it: a
// base there is on a branch that was given up.
func (l *logs) onBranch(e *LogEpoch, sequence uint64) bool {
	for i := range l.all {
		b := &l.all[i]
		if len(b.Runs) > 0 && l.above(b, e) && !l.passes(b, e, sequence) {
			return true
		}
	}
	return false
}

// passes reports whether the history of b holds the record of epoch e.
func (l *logs) passes(b, e *LogEpoch, sequence uint64) bool {
	for range l.all {
		if b == nil || b.Continues == nil {
			return sequence == 0
		}
		if b.Continues.Stream == e.Stream && b.Continues.Epoch == e.Epoch {
			return sequence <= b.Continues.Sequence
		}
		b = l.index[epochName{b.Continues.Stream, b.Continues.Epoch}]
	}
	return false
}

// along is the way from the base to the end of a run of e.
func (l *logs) along(base *Point, e *LogEpoch, run LogRun) way {
	w := way{base: base, through: &snapshot.LogPlace{Stream: e.Stream, Epoch: e.Epoch, Sequence: run.Last}, limit: l.superseded(e), end: run.To}
	w.limit = earliest(w.limit, l.replaced(base))
	if e.Stream != base.Log.Stream || e.Epoch != base.Log.Epoch {
		w.from = l.since(e)
	}
	if end := l.idle(w.through); end.After(w.end) {
		w.end = end
	}
	if w.end.Before(base.Time()) {
		w.end = base.Time()
	}
	if !w.limit.IsZero() && w.limit.Before(w.end) {
		w.end = w.limit
	}
	return w
}

// idle is until when it is known that nothing was committed after a record: the newest snapshot has the same place.
// Where records are known that come later, of any branch that counts, it ends with these. It is in the past if nothing
// is known.
func (l *logs) idle(at *snapshot.LogPlace) time.Time {
	until := time.Unix(0, 0)
	for i := range l.points {
		p := &l.points[i]
		if p.Log != nil && !p.Unfinished && !p.Beyond && p.Log.Stream == at.Stream && p.Log.Epoch == at.Epoch && p.Log.Sequence == at.Sequence && p.Time().After(until) {
			until = p.Time()
		}
	}
	e := l.index[epochName{at.Stream, at.Epoch}]
	for i := range l.all {
		b := &l.all[i]
		n := len(b.Runs)
		switch {
		case n == 0:
		case b == e && b.Runs[n-1].Last > at.Sequence:
			return time.Unix(0, 0) // and when the first of them was committed may not be known
		case e == nil && b.Stream == at.Stream && b.Epoch > at.Epoch, e != nil && l.above(b, e):
			until = earliest(until, b.Opened.Add(-1))
		}
	}
	return until
}

// since is the time from which on an epoch counts: from when it was opened, if there are records that counted until then and
// that it does not go on from; else from when the last record that it goes on from was written.
func (l *logs) since(e *LogEpoch) time.Time {
	for i := range l.all {
		o := &l.all[i]
		if n := len(o.Runs); n > 0 && l.above(e, o) && !l.passes(e, o, o.Runs[n-1].Last) && l.superseded(o).Equal(e.Opened.Add(-1)) {
			return e.Opened
		}
	}
	c := e.Continues
	if c == nil {
		return time.Time{}
	}
	before := l.index[epochName{c.Stream, c.Epoch}]
	if before == nil {
		return time.Time{} // the snapshot needs nothing of it
	}
	if run, ok := before.run(c.Sequence); ok && run.Last == c.Sequence {
		return earliest(run.To, e.Opened)
	}
	return time.Time{}
}

// replaced is the time up to which the log of a snapshot counts because of later ones: the next that begins, or is in, a
// stream of another history says that this one is over. Zero: to the end.
func (l *logs) replaced(base *Point) time.Time {
	var at time.Time
	for i := range l.points {
		p := &l.points[i]
		if p.Sequence <= base.Sequence || p.Log == nil || p.Unfinished || l.rootAt(p.Log) == l.rootAt(base.Log) {
			continue
		}
		at = earliest(at, p.Time().Add(-1))
	}
	return at
}

// rootAt is the stream in which the history of a place begins.
func (l *logs) rootAt(p *snapshot.LogPlace) string {
	if root, ok := l.root[epochName{p.Stream, p.Epoch}]; ok {
		return root
	}
	return p.Stream
}

// leads finds the first record of epoch e that is needed after a place, if all records between are there.
func (l *logs) leads(from *snapshot.LogPlace, e *LogEpoch) (first uint64, ok bool) {
	if e.Stream == from.Stream && e.Epoch == from.Epoch {
		return from.Sequence + 1, true
	}
	first = 1
	if e.Continues != nil {
		first = e.Continues.Sequence + 1
	}
	for range l.all {
		c := e.Continues
		switch {
		case c == nil:
			return first, from.Sequence == 0 && from.Stream == e.Stream
		case c.Stream == from.Stream && c.Epoch == from.Epoch:
			if c.Sequence < from.Sequence {
				return 0, false // it leaves the branch before the place
			}
			return first, c.Sequence == from.Sequence || l.has(from.Stream, from.Epoch, from.Sequence+1, c.Sequence)
		}
		before := l.index[epochName{c.Stream, c.Epoch}]
		if before == nil {
			return 0, false
		}
		start := uint64(1)
		if before.Continues != nil {
			start = before.Continues.Sequence + 1
		}
		if c.Sequence >= start && !l.has(c.Stream, c.Epoch, start, c.Sequence) {
			return 0, false
		}
		e = before
	}
	return 0, false
}

// has reports whether all records from first to last are there.
func (l *logs) has(stream string, epoch, first, last uint64) bool {
	e := l.index[epochName{stream, epoch}]
	if e == nil {
		return false
	}
	run, ok := e.run(first)
	return ok && run.Last >= last
}

package recovery

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// SelectMoment is [Select] for a source with a log: the newest state, or the one of a moment, is a snapshot and the
// records after it. A snapshot that is asked for by number is that snapshot alone.
//
// Of several ways to a moment it takes the one that comes nearest to it, then one whose snapshot has no flaws, then the
// newest snapshot, so that few records are read. Nothing later than the moment is ever taken. Where a log was written by
// two, the higher epoch counts from when it was opened on. What is missing on the way to what is wanted is in
// [Selection.Lost]. An error is a [NotFoundError].
func SelectMoment(candidates []Point, epochs []LogEpoch, want Selector) (Selection, error) {
	points := ascending(candidates)
	if want.Sequence != 0 || len(epochs) == 0 {
		s, err := Select(candidates, want)
		s.Reached = s.Point.Time()
		return s, err
	}
	l := newLogs(points, epochs)
	best := -1
	var chosenWay way
	var reach time.Time
	for i := range points {
		p := &points[i]
		if p.Unfinished || !want.At.IsZero() && p.Time().After(want.At) {
			continue
		}
		for _, w := range l.ways(p) {
			if !want.At.IsZero() && want.At.Before(w.from) {
				continue
			}
			end := w.end
			if !want.At.IsZero() && end.After(want.At) {
				end = want.At
			}
			if best < 0 || cmp.Or(end.Compare(reach), flaws(&points[best])-flaws(p)) >= 0 {
				best, chosenWay, reach = i, w, end
			}
		}
	}
	if best < 0 {
		s, err := Select(candidates, want) // unfinished ones, or the reason why there is none
		s.Reached = s.Point.Time()
		return s, err
	}
	return l.describe(points, best, chosenWay, want, reach), nil
}

// flaws counts what is wrong with a snapshot.
func flaws(p *Point) int {
	n := 0
	if p.Partial {
		n++
	}
	if p.Damaged {
		n += 2
	}
	return n
}

// describe says what was chosen, and why.
func (l *logs) describe(points []Point, i int, w way, want Selector, reach time.Time) Selection {
	reason := fmt.Sprintf("newest of %d snapshots", len(points))
	if !want.At.IsZero() {
		reason = "newest at or before " + stamp(want.At)
	}
	if w.through != nil {
		reason = fmt.Sprintf("snapshot @%d and the log after it, up to %s", points[i].Sequence, moment(reach))
	}
	s := chosen(points, i, reason)
	s.Reached = reach
	if w.through != nil {
		s.Log = &LogRange{From: *points[i].Log, Through: *w.through, Until: earliest(want.At, w.limit)}
	}
	if !want.At.IsZero() && !reach.Before(want.At) {
		return s
	}
	if s.Lost = l.lostAfter(points[i].Log, w); s.Lost != nil {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: what was committed after %s can not be restored", s.Lost, moment(reach)))
	}
	if want.At.IsZero() {
		return s
	}
	s.Reason += fmt.Sprintf(", %s earlier", rough(want.At.Sub(reach)))
	if next, ok := l.next(points, want.At); ok {
		s.Warnings = append(s.Warnings, fmt.Sprintf("nothing tells what was committed between %s and %s, when the next state is known", moment(reach), moment(next)))
	}
	return s
}

// mostBeside is how many other histories [Beside] looks at: those of the newest snapshots, which are the ones of today.
const mostBeside = 8

// Beside tells of logs of other histories that go on behind a selection: whoever wrote them did not know that a later snapshot
// had begun another, as where two processes with state directories of their own follow the same database. exact replaces the
// arrivals in an epoch, by its index, by the times of the records themselves: in a copy all of them have arrived late.
func Beside(candidates []Point, epochs []LogEpoch, s Selection, exact func(i int) error) ([]string, error) {
	if s.Point.Log == nil {
		return nil, nil
	}
	points := ascending(candidates)
	l := newLogs(points, epochs)
	var out []string
	seen := map[string]bool{l.rootAt(s.Point.Log): true}
	for _, p := range slices.Backward(points) {
		if p.Log == nil || p.Unfinished || seen[l.rootAt(p.Log)] {
			continue
		}
		if len(seen) > mostBeside {
			break
		}
		seen[l.rootAt(p.Log)] = true
		i := l.newestOf(l.rootAt(p.Log))
		if i < 0 || !epochs[i].end().After(s.Reached) {
			continue
		}
		if err := exact(i); err != nil {
			return nil, err
		}
		if end := epochs[i].end(); end.After(s.Reached) {
			out = append(out, fmt.Sprintf("another log, which begins before, goes on beside this one up to %s: two processes have followed the source; snapshot @%d with a time leads along it", moment(end), p.Sequence))
		}
	}
	return out, nil
}

// newestOf is the index of the epoch of a history that was opened last of those that have records; -1: there is none.
func (l *logs) newestOf(root string) int {
	newest := -1
	for i := range l.all {
		e := &l.all[i]
		if len(e.Runs) > 0 && l.root[epochName{e.Stream, e.Epoch}] == root && (newest < 0 || e.Opened.After(l.all[newest].Opened)) {
			newest = i
		}
	}
	return newest
}

// end is the time of the last record.
func (e *LogEpoch) end() time.Time { return e.Runs[len(e.Runs)-1].To }

// lostAfter is what is missing right after a way, if the log goes on behind that.
func (l *logs) lostAfter(base *snapshot.LogPlace, w way) *LostRecords {
	if w.through != nil {
		base = w.through
	}
	if base == nil {
		return nil
	}
	if lost, ok := l.hole(base); ok {
		return &lost
	}
	return nil
}

// earliest is the earlier of two times, of which zero ones do not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// moment is a time to the millisecond: two commits may lie within a second.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// next is the first moment after at to which the source can be restored.
func (l *logs) next(points []Point, at time.Time) (time.Time, bool) {
	var first time.Time
	for i := range points {
		if t := points[i].Time(); t.After(at) && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first, !first.IsZero()
}

// RecoverableMoments is [Recoverable] for a source with a log: spans of which every moment can be restored, snapshots
// that stand alone as spans of one moment, and the gaps between with their causes. Gaps are told whatever their size: a
// log has none unless something was lost or could not be known. The last one is open, and told only if it is longer than
// the RPO, for a database in which nothing happens stores nothing, or if the log goes on behind what is missing.
func RecoverableMoments(candidates []Point, epochs []LogEpoch, rpo time.Duration, now time.Time) Window {
	if len(epochs) == 0 {
		return Recoverable(candidates, rpo, now)
	}
	points := ascending(candidates)
	l := newLogs(points, epochs)
	var parts []Span
	for i := range points {
		p := &points[i]
		if p.Partial || p.Damaged || p.Condemned {
			continue
		}
		for _, w := range l.ways(p) {
			from := p.Time()
			if w.from.After(from) {
				from = w.from
			}
			if !w.end.Before(from) {
				parts = append(parts, Span{From: from, To: w.end, First: p.Sequence, Last: p.Sequence, Points: 1, Log: w.through != nil})
			}
		}
	}
	w := Window{Spans: merge(parts), Gaps: []Gap{}}
	for i := 1; i < len(w.Spans); i++ {
		from, to := &w.Spans[i-1], &w.Spans[i]
		w.Gaps = append(w.Gaps, Gap{From: from.To, To: to.From, After: from.Last, Cause: l.cause(points, from, to), Size: to.From.Sub(from.To)})
	}
	newest, err := SelectMoment(candidates, epochs, Selector{})
	lost := err == nil && newest.Lost != nil
	if n := len(w.Spans); n > 0 && (now.Sub(w.Spans[n-1].To) > rpo || lost) {
		s := w.Spans[n-1]
		g := Gap{From: s.To, To: now, After: s.Last, Open: true, Size: now.Sub(s.To), Cause: "no record since: nothing was committed, or the log is not followed"}
		if lost {
			g.Cause = newest.Lost.String()
		}
		w.Gaps = append(w.Gaps, g)
	}
	return w
}

// touching is how far apart two spans may be that touch: one branch ends a moment before the next one counts, and the clock
// of PostgreSQL counts in microseconds.
const touching = time.Microsecond

// merge joins spans that overlap or touch. One moment within a span of a log is part of it.
func merge(parts []Span) []Span {
	slices.SortFunc(parts, func(a, b Span) int {
		return cmp.Or(a.From.Compare(b.From), b.To.Compare(a.To), cmp.Compare(a.First, b.First))
	})
	out := []Span{}
	seen := map[uint64]bool{}
	for _, p := range parts {
		n := len(out)
		if n == 0 || p.From.After(out[n-1].To.Add(touching)) {
			seen = map[uint64]bool{p.First: true}
			out = append(out, p)
			continue
		}
		s := &out[n-1]
		s.First, s.Last, s.Log = min(s.First, p.First), max(s.Last, p.Last), s.Log || p.Log
		if p.To.After(s.To) {
			s.To = p.To
		}
		if !seen[p.First] {
			seen[p.First] = true
			s.Points++
		}
	}
	return out
}

// cause says why nothing is known between two spans.
func (l *logs) cause(points []Point, from, to *Span) string {
	var base, next *Point
	for i := range points {
		switch points[i].Sequence {
		case from.Last:
			base = &points[i]
		case to.First:
			next = &points[i]
		}
	}
	if base == nil || base.Log == nil {
		return "no log was kept"
	}
	if lost, ok := l.hole(base.Log); ok {
		return lost.String()
	}
	if next != nil && next.Log != nil && next.Log.Stream != base.Log.Stream {
		return fmt.Sprintf("the log ended: it could not be proven that nothing was missed; snapshot @%d begins a new one", next.Sequence)
	}
	if own := l.index[epochName{base.Log.Stream, base.Log.Epoch}]; own != nil && !l.superseded(own).IsZero() {
		return "another writer took over the log, and no snapshot of its branch is there"
	}
	return fmt.Sprintf("the log was not followed until snapshot @%d was made", to.First)
}

// hole is the first hole in the log after a place, over the epochs that lead on from it.
func (l *logs) hole(from *snapshot.LogPlace) (lost LostRecords, ok bool) {
	own := l.index[epochName{from.Stream, from.Epoch}]
	for _, e := range l.chain(own, from) {
		due := uint64(1)
		if e.Continues != nil {
			due = e.Continues.Sequence + 1
		}
		if e == own {
			due = from.Sequence + 1
		}
		for _, r := range e.Runs {
			if r.Last < due {
				continue
			}
			if r.First > due {
				return LostRecords{e.Stream, e.Epoch, due, r.First - 1}, true
			}
			due = r.Last + 1
		}
		// What a later epoch says it continues was there.
		for i := range l.all {
			if c := l.all[i].Continues; c != nil && c.Stream == e.Stream && c.Epoch == e.Epoch && c.Sequence >= due {
				return LostRecords{e.Stream, e.Epoch, due, c.Sequence}, true
			}
		}
	}
	return LostRecords{}, false
}

// chain is an epoch and those that go on from it, or from the beginning of a stream, in the order of their opening.
func (l *logs) chain(own *LogEpoch, from *snapshot.LogPlace) []*LogEpoch {
	var out []*LogEpoch
	if own != nil {
		out = append(out, own)
	}
	known := map[epochName]bool{{from.Stream, from.Epoch}: true}
	for range l.all {
		grown := false
		for i := range l.all {
			e := &l.all[i]
			name := epochName{e.Stream, e.Epoch}
			c := e.Continues
			follows := c == nil && from.Sequence == 0 && e.Stream == from.Stream
			follows = follows || c != nil && known[epochName{c.Stream, c.Epoch}] && (c.Stream != from.Stream || c.Epoch != from.Epoch || c.Sequence >= from.Sequence)
			if !known[name] && follows {
				known[name], grown = true, true
				out = append(out, e)
			}
		}
		if !grown {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b *LogEpoch) int { return a.Opened.Compare(b.Opened) })
	return out
}

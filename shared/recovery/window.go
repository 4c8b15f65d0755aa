package recovery

import (
	"fmt"
	"time"
)

// Span is a stretch of time within which no more than the RPO lies between one restorable state and the next.
type Span struct {
	From   time.Time `json:"from"` // first state
	To     time.Time `json:"to"`   // last state
	First  uint64    `json:"first"`
	Last   uint64    `json:"last"`
	Points int       `json:"points"`
	// Log says that every moment of the span can be restored, not only the states of its snapshots.
	Log bool `json:"log,omitempty"`
}

// Gap is a stretch of time longer than the RPO without a state to restore to.
type Gap struct {
	From  time.Time     `json:"from"`
	To    time.Time     `json:"to"` // now, if Open
	After uint64        `json:"after"`
	Cause string        `json:"cause"`
	Open  bool          `json:"open,omitempty"` // nothing came after it yet
	Size  time.Duration `json:"size_ns"`
}

// Window is the recoverable window of a source.
type Window struct {
	Spans []Span `json:"spans"`
	Gaps  []Gap  `json:"gaps"`
}

// Recoverable gives the spans to which a source can be restored, and the gaps between with their causes, up to now. A
// partial, damaged or condemned snapshot is no state to rely on. The result's slices are never nil.
func Recoverable(candidates []Point, rpo time.Duration, now time.Time) Window {
	w := Window{Spans: []Span{}, Gaps: []Gap{}}
	unusable := newCounter()
	var last *Point
	points := ascending(candidates)
	for i := range points {
		p := &points[i]
		if p.Partial || p.Damaged || p.Condemned {
			unusable.add(p)
			continue
		}
		if last == nil || p.Time().Sub(last.Time()) > rpo {
			if last != nil {
				w.Gaps = append(w.Gaps, gap(last, p.Time(), unusable.cause(last.Sequence, p.Sequence)))
			}
			w.Spans = append(w.Spans, Span{From: p.Time(), First: p.Sequence})
		}
		s := &w.Spans[len(w.Spans)-1]
		s.To, s.Last = p.Time(), p.Sequence
		s.Points++
		last = p
		unusable = newCounter()
	}
	if last != nil && now.Sub(last.Time()) > rpo {
		open := gap(last, now, unusable.cause(0, 0))
		open.Open = true
		w.Gaps = append(w.Gaps, open)
	}
	return w
}

func gap(after *Point, to time.Time, cause string) Gap {
	return Gap{From: after.Time(), To: to, After: after.Sequence, Cause: cause, Size: to.Sub(after.Time())}
}

// counter remembers the snapshots between two usable ones.
type counter struct{ partial, damaged, condemned int }

func newCounter() *counter { return &counter{} }

func (c *counter) add(p *Point) {
	switch {
	case p.Condemned:
		c.condemned++
	case p.Damaged:
		c.damaged++
	default:
		c.partial++
	}
}

// cause says why there is nothing between two snapshots; to is 0 for an open gap.
func (c *counter) cause(from, to uint64) string {
	switch {
	case c.damaged > 0:
		return count(c.damaged, "snapshot") + " between failed verification"
	case c.partial > 0:
		return count(c.partial, "snapshot") + " between partial"
	case c.condemned > 0:
		return count(c.condemned, "snapshot") + " between announced for deletion"
	case to > from+1:
		return count(int(to-from-1), "snapshot") + " between removed by retention"
	case to == 0:
		return "no snapshot since"
	}
	return "no snapshot was made"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

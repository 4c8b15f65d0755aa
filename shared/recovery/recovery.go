// Package recovery chooses the snapshot to restore and says to which times a source can be restored. It does no I/O.
//
// [Select] answers "the newest", "number 42" and "as it was at 10:15" with a snapshot, the reason and what a person
// should know before restoring it. [Recoverable] lists the spans of time that the snapshots cover and the gaps between.
package recovery

import (
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ClockTolerance is how far a host's clock may differ from the store's before its times are not believed.
const ClockTolerance = 5 * time.Minute

// Point is a snapshot as a place to which a source can be restored.
type Point struct {
	Sequence uint64    `json:"sequence"`
	Started  time.Time `json:"started"`  // by the host's clock
	Finished time.Time `json:"finished"` // by the host's clock
	Arrived  time.Time `json:"arrived"`  // by the store's clock
	Partial  bool      `json:"partial,omitempty"`
	// Unfinished: stored by a long run that was still at work; it is partial as well.
	Unfinished bool `json:"unfinished,omitempty"`
	Verified   bool `json:"verified,omitempty"`
	Damaged    bool `json:"damaged,omitempty"` // failed its newest verification
	Condemned  bool `json:"condemned,omitempty"`
	// NotConsistent: holds files that a database may have been writing to.
	NotConsistent bool `json:"not_consistent,omitempty"`
	// Log is the place in the source's log up to which the snapshot holds all records; nil: it stands alone.
	Log *snapshot.LogPlace `json:"log,omitempty"`
	// Beyond says that it also holds what was committed after that place, as base backups of clusters do: that two of them
	// have the same place does not say that nothing happened between.
	Beyond bool `json:"-"`
}

// FromManifest gives the point of a snapshot. Verified, Damaged and Condemned are not in a manifest.
func FromManifest(m *snapshot.Manifest, arrived time.Time) Point {
	return Point{
		Sequence: m.Sequence, Started: m.Started, Finished: m.Finished, Arrived: arrived,
		Partial: m.Partial, Unfinished: m.Unfinished, NotConsistent: m.Counts.NotConsistent > 0, Log: m.Log, Beyond: m.Postgres != nil,
	}
}

// ClockOff reports whether the host's clock was more than [ClockTolerance] off when the snapshot finished. An unknown
// arrival (zero) says nothing.
func (p Point) ClockOff() bool {
	return !p.Arrived.IsZero() && p.Finished.Sub(p.Arrived).Abs() > ClockTolerance
}

// Time is the time whose state the snapshot holds: when its capture ended, or when it arrived if the host's clock is
// not believed. What changed between start and end of the capture may be in it or not.
func (p Point) Time() time.Time {
	if p.ClockOff() {
		return p.Arrived
	}
	return p.Finished
}

// Selector says which snapshot is wanted: the one with Sequence if that is not 0, else the state at At if that is not
// zero, else the newest.
type Selector struct {
	Sequence uint64
	At       time.Time
}

// Selection is the snapshot to restore.
type Selection struct {
	Point    Point    `json:"point"`
	Reason   string   `json:"reason"`   // why this one, like "newest of 12 snapshots"
	Warnings []string `json:"warnings"` // what a person should know first; never nil
	// Alternative is the nearest earlier snapshot without the flaws that Warnings name: complete and not damaged.
	Alternative *Point `json:"alternative,omitempty"`
	// Log is what of the log is applied to the snapshot; nil: nothing.
	Log *LogRange `json:"log,omitempty"`
	// Reached is the time whose state the result holds. Where it is earlier than what was asked for, nothing is known of
	// what was committed between.
	Reached time.Time `json:"reached,omitzero"`
	// Lost is what keeps the state from being the one that was asked for: records that are missing, behind which the log goes
	// on. nil: nothing is missing that is known of.
	Lost *LostRecords `json:"lost,omitempty"`
}

// LostRecords are records of a log that are missing.
type LostRecords struct {
	Stream string `json:"stream"`
	Epoch  uint64 `json:"epoch"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
}

func (l LostRecords) String() string {
	if l.First == l.Last {
		return fmt.Sprintf("record %d of the log is missing", l.First)
	}
	return fmt.Sprintf("records %d to %d of the log are missing", l.First, l.Last)
}

// NotFoundError says that no snapshot fits, and which are nearest.
type NotFoundError struct {
	Want   string // "snapshot 42", "a snapshot at or before 2026-…"
	Before *Point // nearest before what was wanted, or nil
	After  *Point // nearest after, or nil
}

func (e *NotFoundError) Error() string {
	msg := "select snapshot: no " + e.Want
	if e.Before == nil && e.After == nil {
		return msg + "; the source has no snapshots"
	}
	near := func(p *Point) string { return fmt.Sprintf("@%d of %s", p.Sequence, stamp(p.Time())) }
	switch {
	case e.After == nil:
		return msg + "; nearest before: " + near(e.Before)
	case e.Before == nil:
		return msg + "; nearest after: " + near(e.After)
	}
	return msg + "; nearest before: " + near(e.Before) + "; nearest after: " + near(e.After)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Select chooses among the snapshots of one source, in any order. Order is by sequence, never by clock. Snapshots with
// flaws are chosen too when they are the ones that were asked for; the warnings say so. Only unfinished ones are passed
// over, unless asked for by number, as long as there is another one. An error is a [NotFoundError].
func Select(candidates []Point, want Selector) (Selection, error) {
	points := ascending(candidates)
	switch {
	case want.Sequence != 0:
		return bySequence(points, want.Sequence)
	case !want.At.IsZero():
		return byTime(points, want.At)
	case len(points) == 0:
		return Selection{}, &NotFoundError{Want: "snapshot"}
	}
	newest := len(points) - 1
	for i := range points {
		if !points[i].Unfinished {
			newest = i
		}
	}
	if !points[newest].Unfinished {
		return chosen(points, newest, fmt.Sprintf("newest of %d snapshots", len(points))), nil
	}
	return chosen(points, len(points)-1, "newest of unfinished snapshots: there is no other"), nil
}

func ascending(candidates []Point) []Point {
	points := slices.Clone(candidates)
	slices.SortFunc(points, func(a, b Point) int {
		switch {
		case a.Sequence < b.Sequence:
			return -1
		case a.Sequence > b.Sequence:
			return 1
		}
		return 0
	})
	return points
}

func bySequence(points []Point, seq uint64) (Selection, error) {
	missing := &NotFoundError{Want: fmt.Sprintf("snapshot %d", seq)}
	for i := range points {
		switch {
		case points[i].Sequence == seq:
			return chosen(points, i, fmt.Sprintf("snapshot %d was asked for", seq)), nil
		case points[i].Sequence < seq:
			missing.Before = &points[i]
		case missing.After == nil:
			missing.After = &points[i]
		}
	}
	return Selection{}, missing
}

func byTime(points []Point, at time.Time) (Selection, error) {
	best, after := -1, -1
	for i := range points {
		if !points[i].Time().After(at) {
			if best < 0 || !points[i].Unfinished || points[best].Unfinished {
				best = i
			}
		} else if after < 0 || points[i].Time().Before(points[after].Time()) {
			after = i
		}
	}
	if best < 0 {
		missing := &NotFoundError{Want: "snapshot at or before " + stamp(at)}
		if after >= 0 {
			missing.After = &points[after]
		}
		return Selection{}, missing
	}
	s := chosen(points, best, fmt.Sprintf("newest at or before %s", stamp(at)))
	if lost := at.Sub(points[best].Time()); lost > 0 && best+1 < len(points) {
		s.Reason += fmt.Sprintf(", %s earlier", rough(lost))
	} else if lost > 0 {
		s.Reason += fmt.Sprintf(", %s earlier; there is none after it", rough(lost))
	}
	return s, nil
}

func rough(d time.Duration) string { return policy.Duration(d).Rough() }

// chosen describes points[i].
func chosen(points []Point, i int, reason string) Selection {
	p := points[i]
	s := Selection{Point: p, Reason: reason, Warnings: []string{}}
	warn := func(cond bool, format string, args ...any) {
		if cond {
			s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
		}
	}
	warn(p.Unfinished, "@%d is unfinished: its backup was still at work, so that it lacks things or has them as they were before", p.Sequence)
	warn(p.Partial && !p.Unfinished, "@%d is partial: something could not be captured", p.Sequence)
	warn(p.Damaged, "@%d failed its newest verification", p.Sequence)
	warn(p.NotConsistent, "@%d holds files that a database may have been writing to", p.Sequence)
	warn(p.ClockOff(), "the host's clock was %s off when @%d was made; its arrival %s counts",
		rough(p.Finished.Sub(p.Arrived).Abs()), p.Sequence, stamp(p.Arrived))
	warn(p.Condemned, "@%d is announced for deletion; pin it to keep it", p.Sequence)
	if p.Partial || p.Damaged {
		for j := i - 1; j >= 0; j-- {
			if !points[j].Partial && !points[j].Damaged {
				s.Alternative = &points[j]
				warn(true, "the nearest earlier snapshot without this is @%d of %s", points[j].Sequence, stamp(points[j].Time()))
				break
			}
		}
	}
	return s
}

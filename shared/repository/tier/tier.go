// Package tier decides which packs may move to a colder and cheaper storage class. It does no I/O: what moves them is a
// rule of the bucket that goes by the tag [Tag], which callers put on them.
//
// A chain moves as a whole, once: when it is closed (a newer one has begun), old enough, and every snapshot of it that
// stays is proven, that is, all of its bytes were read and found good. What was never read may be damaged already, and in
// a cold class nobody looks at it again for long. Use [Plan].
package tier

import (
	"slices"
	"time"
)

// The tag by which a rule of the bucket knows what may move.
const (
	Tag  = "holdfast-class"
	Cold = "cold"
)

// Least is the shortest time after which a chain moves: cold classes charge for months whatever is in them, so that what
// retention may remove soon is cheaper where it is.
const Least = 30 * 24 * time.Hour

// Snapshot is what is to be known of a snapshot.
type Snapshot struct {
	Sequence uint64
	Chain    string
	Arrived  time.Time
	Keep     bool // retention keeps it
	Proven   bool // all of its bytes were read and found good
	Damaged  bool // uses a pack that is on record as damaged
}

// Plan returns the chains that move now, in ascending order: closed, with their newest snapshot older than after (at
// least Least), and all of what stays proven. moved are those that did before; a chain of which nothing stays is left to
// retention.
func Plan(snaps []Snapshot, moved []string, after time.Duration, now time.Time) []string {
	after = max(after, Least)
	var newest *Snapshot
	for i := range snaps {
		if newest == nil || snaps[i].Sequence > newest.Sequence {
			newest = &snaps[i]
		}
	}
	fit := map[string]bool{}
	for i := range snaps {
		s := &snaps[i]
		if _, seen := fit[s.Chain]; !seen {
			fit[s.Chain] = s.Chain != newest.Chain && !slices.Contains(moved, s.Chain)
		}
		if now.Sub(s.Arrived) < after || s.Damaged || s.Keep && !s.Proven {
			fit[s.Chain] = false
		}
	}
	var out []string
	for i := range snaps {
		if s := &snaps[i]; s.Keep && fit[s.Chain] && !slices.Contains(out, s.Chain) {
			out = append(out, s.Chain)
		}
	}
	slices.Sort(out)
	return out
}

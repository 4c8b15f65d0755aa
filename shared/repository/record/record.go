// Package record has the payloads of the small signed documents that stand beside a source's snapshots: marks,
// announced and finished removals, receipts of verifications and reports of damaged packs, as docs/format.md, "Order
// of writing and deleting", specifies them. It is pure; the repository signs and stores them.
package record

import (
	"slices"
	"time"
)

// Condemned announces that a snapshot will be removed.
type Condemned struct {
	Sequence uint64    `json:"sequence"`
	Manifest string    `json:"manifest"` // hex SHA-256 of the manifest's bytes
	Time     time.Time `json:"time"`     // by the clock of whoever wrote it; waits count from the store's
	Reasons  []string  `json:"reasons"`
}

// Expired says that a snapshot was removed by retention; it keeps the link between its neighbours.
type Expired struct {
	Sequence uint64    `json:"sequence"`
	Manifest string    `json:"manifest"` // hex SHA-256 of the removed manifest's bytes
	Previous string    `json:"previous"` // as in the removed manifest
	Time     time.Time `json:"time"`
}

// MarkKind says what a mark does.
type MarkKind string

// The kinds of marks.
const (
	Pin  MarkKind = "pin"  // retention keeps the snapshot
	Tag  MarkKind = "tag"  // a word that policies can name; keeps nothing by itself
	Hold MarkKind = "hold" // legal hold: nothing removes the snapshot
)

// Mark is set on a snapshot after it was made, or ends another mark.
type Mark struct {
	Sequence uint64     `json:"sequence"`
	Manifest string     `json:"manifest"`
	Mark     MarkKind   `json:"mark"`
	Value    string     `json:"value"` // the tag, or why it is pinned or held
	Time     time.Time  `json:"time"`
	Until    *time.Time `json:"until,omitempty"` // ends by itself then
	Ends     string     `json:"ends,omitempty"`  // id of the mark that this one ends
}

// Active returns the marks of one snapshot that are in force at now, by their ids: not ended, not run out.
func Active(marks map[string]Mark, now time.Time) map[string]Mark {
	ended := map[string]bool{}
	for _, m := range marks {
		if m.Ends != "" {
			ended[m.Ends] = true
		}
	}
	out := map[string]Mark{}
	for id, m := range marks {
		if m.Ends != "" || ended[id] || (m.Until != nil && !now.Before(*m.Until)) {
			continue
		}
		out[id] = m
	}
	return out
}

// Keeps reports whether any of the marks protects its snapshot, and as what. A mark of a kind that is not known protects:
// a newer program has set it, and may mean just that.
func Keeps(active map[string]Mark) (MarkKind, bool) {
	var kinds []MarkKind
	for _, m := range active {
		if m.Mark != Tag {
			kinds = append(kinds, m.Mark)
		}
	}
	switch {
	case len(kinds) == 0:
		return "", false
	case slices.Contains(kinds, Hold):
		return Hold, true
	case slices.Contains(kinds, Pin):
		return Pin, true
	}
	return slices.Min(kinds), true
}

// The results of a verification.
const (
	Pass = "pass"
	Fail = "fail"
)

// LevelKey is the level of a receipt that no verification wrote: an identity that is kept elsewhere was proven to open
// every chain of the source, of which the snapshot is the newest. It says nothing of the snapshot's bytes.
const LevelKey = "key"

// Receipt is what a verification of one snapshot found.
type Receipt struct {
	Sequence uint64    `json:"sequence"`
	Manifest string    `json:"manifest"`
	Level    string    `json:"level"`  // structure, bytes, content, restore; or LevelKey
	Result   string    `json:"result"` // Pass or Fail
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Packs    int       `json:"packs"`            // packs of the snapshot that were checked, at this level
	Bytes    int64     `json:"bytes"`            // their size
	Sample   string    `json:"sample,omitempty"` // "1/30": only this share of the packs was read
	Problems []string  `json:"problems"`
	Copy     string    `json:"copy,omitempty"` // address of the copy whose objects were checked; empty: those of the primary

	// Recipients are, at LevelKey, the public keys of the identity that was proven.
	Recipients []string `json:"recipients,omitempty"`

	// Of a database, at level restore: which state was restored, how many records of the log that took on top of the
	// snapshot, and each step with its time. Bytes is the size of the restored database then.
	Reached *time.Time `json:"reached,omitempty"`
	Records int        `json:"records,omitempty"`
	Steps   []Step     `json:"steps,omitempty"`
}

// Step is one step of a restore that was tried. A query of the policy is known by its number only.
type Step struct {
	Name    string  `json:"name"`
	Result  string  `json:"result"` // Pass or Fail
	Seconds float64 `json:"seconds"`
}

// Damaged says that a pack failed a check; whoever writes the source's next snapshot stores its chunks again.
type Damaged struct {
	Pack    string    `json:"pack"`
	Chain   string    `json:"chain"`
	Time    time.Time `json:"time"`
	Problem string    `json:"problem"`
}

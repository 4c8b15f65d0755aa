package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Source is what a cluster is built from.
type Source struct {
	ID   string // of the snapshot, for people
	Base restorer.Snapshot
	Root string    // the data directory in it
	Time time.Time // when it was complete

	System      uint64
	Major       int
	Timeline    uint32
	Start, Stop pg.LSN // WAL from Start to Stop makes it consistent; the snapshot has that

	Log *Log // nil: nothing follows the snapshot
	// Histories are the history files of all timelines that are stored, whether they are on the branch or not, also where no
	// log is used: a new timeline must get a number that none of them has.
	Histories map[uint32][]byte
}

// Log is the WAL that follows a snapshot on one branch.
type Log struct {
	From     snapshot.LogPlace // right before its first record
	Timeline uint32            // in which the branch ends
	End      pg.LSN            // where it ends
	Segment  uint64            // bytes of a WAL segment
	// Records yields the records after a place up to the end of the branch, each proven to follow the one before it. A
	// record is valid until the next is asked for.
	Records func(ctx context.Context, after snapshot.LogPlace) iter.Seq2[Record, error]
	// Reader goes into [Plan.Reader].
	Reader []byte
}

// Record is a piece of the log: WAL of one timeline, or where that is nil a timeline's history.
type Record struct {
	Place    snapshot.LogPlace
	Time     time.Time // no commit in it is later
	Timeline uint32
	Start    pg.LSN
	WAL      []byte
	History  []byte
}

// Opener opens what a cluster is built from.
type Opener func(ctx context.Context) (*Source, error)

// ErrBranch says that the timelines of a snapshot and its log do not fit together.
var ErrBranch = errors.New("the timelines do not lead from the snapshot to the end of the log")

// legs are the parts of the branch by timeline, from the base's on.
func (s *Source) legs() ([]Leg, error) {
	l := s.Log
	if l == nil {
		return nil, nil
	}
	if l.Timeline == s.Timeline {
		return []Leg{{Timeline: s.Timeline, End: l.End}}, nil
	}
	h, err := pg.ParseHistory(l.Timeline, s.Histories[l.Timeline])
	if err != nil {
		return nil, fmt.Errorf("the history of timeline %d: %w", l.Timeline, err)
	}
	i := slices.IndexFunc(h.Entries, func(e pg.HistoryEntry) bool { return e.Parent == s.Timeline })
	if i < 0 {
		return nil, fmt.Errorf("%w: timeline %d does not come from timeline %d", ErrBranch, l.Timeline, s.Timeline)
	}
	if at := h.Entries[i].Switch; at < s.Stop {
		return nil, fmt.Errorf("%w: timeline %d leaves timeline %d at %s, before the snapshot ends at %s", ErrBranch, l.Timeline, s.Timeline, at, s.Stop)
	}
	var out []Leg
	var begin pg.LSN
	for _, e := range h.Entries[i:] {
		out = append(out, Leg{Timeline: e.Parent, Begin: begin, End: e.Switch})
		begin = e.Switch
	}
	return append(out, Leg{Timeline: l.Timeline, Begin: begin, End: l.End}), nil
}

// plan is what a spool for it says.
func (s *Source) plan(t Target) (*Plan, error) {
	legs, err := s.legs()
	if err != nil {
		return nil, err
	}
	p := &Plan{System: s.System, Legs: legs, Target: t, Snapshot: s.ID}
	if s.Log != nil {
		p.Segment, p.From, p.Reader = s.Log.Segment, s.Log.From, s.Log.Reader
	}
	p.Stored = slices.Sorted(maps.Keys(s.Histories))
	return p, nil
}

// settle makes the target one that the source can give: a log that ends before the snapshot does adds nothing to it.
func (s *Source) settle(t Target) Target {
	if s.Log != nil && s.Log.End <= s.Stop {
		s.Log = nil
	}
	if s.Log == nil && t.mayEndAtLog() {
		t.Kind = Base
	}
	return t
}

// timeline is the one that is recovered.
func (s *Source) timeline() uint32 {
	if s.Log != nil {
		return s.Log.Timeline
	}
	return s.Timeline
}

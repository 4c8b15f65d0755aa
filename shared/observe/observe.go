// Package observe gathers what objectives are judged by: it turns listings, receipts, copies and the state of jobs into
// [compliance.Facts]. Everything is read; nothing is written.
//
// [Read] looks at a source as a whole and remembers nothing: what commands on one host use. A [Watch] looks at many
// sources again and again and keeps a [Memory] of each, so that a source in which nothing happened costs one listing.
// Both come to the same facts.
package observe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// History is everything that stands in the repository about a source's snapshots.
type History struct {
	Source    snapshot.Source
	Manifests []*repository.Stored // ascending
	Bad       *repository.BadManifestError
	Verified  map[uint64]*Verification   // by what its receipts say together
	Proven    map[uint64]bool            // all its bytes were read and found good
	Checked   map[uint64]bool            // the control plane left a receipt
	Damaged   map[uint64][]snapshot.Hash // packs on record as damaged that the snapshot uses
	Condemned map[uint64]bool
	Marks     map[uint64][]record.Mark // in force
	Missing   []uint64                 // numbers without manifest and without a record of its removal; of very many the first
	Restored  *compliance.Restore      // newest restore that a receipt tells of; nil: none
	deep      deep
	Stored    int64     // bytes of all objects
	KeyProven time.Time // last proof, by a receipt, that the offline identity opens all chains; zero: none
	LogUntil  time.Time // arrival of the newest record of the source's log; zero: there is none
}

// Read reads all of it.
func Read(ctx context.Context, repo *repository.Repository, src snapshot.Source) (*History, error) {
	h, err := ReadReceipts(ctx, repo, src)
	if err != nil {
		return nil, err
	}
	inv, err := inventory.Take(ctx, repo.Store(), src)
	if err != nil {
		return nil, err
	}
	if err := h.readMarks(ctx, repo, inv); err != nil {
		return nil, err
	}
	h.Stored, h.LogUntil = storedBytes(inv), newestRecord(inv)
	h.findMissing(inv)
	return h, nil
}

// ReadReceipts reads what stands about the snapshots without a listing of all objects: no marks, no stored bytes, no
// missing numbers.
func ReadReceipts(ctx context.Context, repo *repository.Repository, src snapshot.Source) (*History, error) {
	h := &History{Source: src, Condemned: map[uint64]bool{}, Marks: map[uint64][]record.Mark{}}
	var err error
	h.Manifests, err = Manifests(ctx, repo, src)
	if err != nil && !errors.As(err, &h.Bad) {
		return nil, err
	}
	if h.Damaged, err = repair.Affected(ctx, repo, src); err != nil {
		return nil, err
	}
	condemned, err := repo.Condemned(ctx, src)
	if err != nil {
		return nil, err
	}
	for _, c := range condemned {
		h.Condemned[c.Sequence] = true
	}
	return h, h.readVerdicts(ctx, repo)
}

// most is how many missing numbers are told.
const most = 1000

// findMissing finds the gaps in the numbers. Manifests that were read before the listing count as there: a prune may have
// removed them in between, and written the record when the listing had passed its place.
func (h *History) findMissing(inv *inventory.Inventory) {
	known := map[uint64]bool{}
	for _, m := range h.Manifests {
		known[m.Sequence] = true
	}
	for _, there := range []map[uint64]inventory.Object{inv.Manifests, inv.Expired} {
		for n := range there {
			known[n] = true
		}
	}
	next := uint64(1)
	for _, n := range slices.Sorted(maps.Keys(known)) {
		for ; next < n && len(h.Missing) < most; next++ {
			h.Missing = append(h.Missing, next)
		}
		next = n + 1
	}
}

// ReadMarks reads the marks by a listing of them alone. One that ends at a time may be taken for in force for longer
// than it is: what else has arrived in the store, which tells its time, is not looked at.
func (h *History) ReadMarks(ctx context.Context, repo *repository.Repository) error {
	inv, err := inventory.TakeParts(ctx, repo.Store(), h.Source, layout.MarkPrefix(h.Source))
	if err != nil {
		return err
	}
	h.Marks = map[uint64][]record.Mark{}
	return h.readMarks(ctx, repo, inv)
}

// readMarks reads the marks of all snapshots and keeps those in force.
func (h *History) readMarks(ctx context.Context, repo *repository.Repository, inv *inventory.Inventory) error {
	all := map[uint64]map[string]record.Mark{}
	for at := range inv.Marks {
		var m record.Mark
		id := snapshot.ID{Source: h.Source, Sequence: at.Sequence}
		_, err := repo.Document(ctx, layout.MarkKey(id, at.ID), &m)
		switch {
		case errors.Is(err, objstore.ErrNotExist):
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			// What can not be read may be a hold: better keep too much.
			m = record.Mark{Sequence: at.Sequence, Mark: record.Hold, Value: "unreadable mark"}
		}
		if all[at.Sequence] == nil {
			all[at.Sequence] = map[string]record.Mark{}
		}
		all[at.Sequence][at.ID] = m
	}
	for n, marks := range all {
		for _, m := range record.Active(marks, inv.Newest) {
			h.Marks[n] = append(h.Marks[n], m)
		}
	}
	return nil
}

func storedBytes(inv *inventory.Inventory) int64 {
	var sum int64
	for _, m := range []map[uint64]inventory.Object{inv.Manifests, inv.Condemned, inv.Expired} {
		for _, o := range m {
			sum += o.Size
		}
	}
	for _, o := range inv.Packs {
		sum += o.Size
	}
	for _, o := range inv.Lists {
		sum += o.Size
	}
	for _, o := range inv.Keys {
		sum += o.Size
	}
	for _, o := range inv.Receipts {
		sum += o.Size
	}
	for _, e := range inv.Logs {
		sum += e.Head.Size
		e.All(func(_ layout.LogObject, p inventory.LogPiece) { sum += int64(p.Size) })
	}
	return sum
}

// Verdict is what the verifications of a snapshot say: that all its bytes are good, or that some are not.
func (h *History) Verdict(m *repository.Stored) (passed, failed bool) {
	v := h.Verified[m.Sequence]
	if v == nil {
		return false, false
	}
	return h.Proven[m.Sequence], v.Result == record.Fail
}

// Retention is the history as retention looks at it.
func (h *History) Retention() []retention.Snapshot {
	out := make([]retention.Snapshot, 0, len(h.Manifests))
	for _, m := range h.Manifests {
		s := retention.FromManifest(m.Manifest, m.Arrived)
		s.Verified, _ = h.Verdict(m)
		s.Verified = s.Verified && len(h.Damaged[m.Sequence]) == 0
		s.Condemned = h.Condemned[m.Sequence]
		for _, mark := range h.Marks[m.Sequence] {
			switch mark.Mark {
			case record.Pin:
				s.Pinned = true
			case record.Hold:
				s.Held = true
			case record.Tag:
				s.Tags = append(s.Tags, mark.Value)
			}
		}
		out = append(out, s)
	}
	return out
}

// Compliance is the history as objectives are judged by it.
func (h *History) Compliance() []compliance.Snapshot {
	out := make([]compliance.Snapshot, 0, len(h.Manifests))
	for _, m := range h.Manifests {
		s := compliance.Snapshot{Point: recovery.FromManifest(m.Manifest, m.Arrived), Bytes: contentBytes(m)}
		s.Verified, s.Damaged = h.Verdict(m)
		if len(h.Damaged[m.Sequence]) > 0 {
			s.Verified, s.Damaged = false, true
		}
		s.Condemned, s.Checked = h.Condemned[m.Sequence], h.Checked[m.Sequence]
		out = append(out, s)
	}
	return out
}

func contentBytes(m *repository.Stored) int64 { return int64(min(m.Counts.Bytes, 1<<62)) }

// Broken says that some manifests can't be read.
func (h *History) Broken() error {
	if h.Bad == nil {
		return nil
	}
	return fmt.Errorf("source %s: %w", h.Source, h.Bad)
}

// Deep is what the policy wants verified by the agent, and when that was done last.
func (h *History) Deep(v policy.Verification) []compliance.Deep { return h.deep.wanted(v) }

// Facts is what the history says for [compliance.Evaluate]; what a host or a control plane knows besides is left out.
func (h *History) Facts() *compliance.Facts {
	f := &compliance.Facts{Source: h.Source, Snapshots: h.Compliance(), Missing: h.Missing, Stored: h.Stored, Restored: h.Restored, KeyProven: h.KeyProven, LogUntil: h.LogUntil}
	if h.Bad != nil {
		f.Unreadable = slices.Sorted(maps.Keys(h.Bad.Errors))
	}
	return f
}

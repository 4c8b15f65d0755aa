package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// history is everything that stands in the repository about a source's snapshots.
type history struct {
	source    snapshot.Source
	manifests []*repository.Stored // ascending
	bad       *repository.BadManifestError
	verified  map[uint64]*verifiedLine   // by what its receipts say together
	proven    map[uint64]bool            // all its bytes were read and found good
	damaged   map[uint64][]snapshot.Hash // packs on record as damaged that the snapshot uses
	condemned map[uint64]bool
	marks     map[uint64][]record.Mark // in force
	missing   []uint64                 // numbers without manifest and without a record of its removal; of very many the first
	stored    int64                    // bytes of all objects
}

// history reads all of it.
func (a *app) history(ctx context.Context, repo *repository.Repository, src snapshot.Source) (*history, error) {
	h, err := a.receipts(ctx, repo, src)
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
	h.stored = storedBytes(inv)
	h.findMissing(inv)
	return h, nil
}

// findMissing finds the gaps in the numbers. Manifests that were read before the listing count as there: a prune may have
// removed them in between, and written the record when the listing had passed its place.
func (h *history) findMissing(inv *inventory.Inventory) {
	known := map[uint64]bool{}
	for _, m := range h.manifests {
		known[m.Sequence] = true
	}
	for _, there := range []map[uint64]inventory.Object{inv.Manifests, inv.Expired} {
		for n := range there {
			known[n] = true
		}
	}
	const most = 1000
	next := uint64(1)
	for _, n := range slices.Sorted(maps.Keys(known)) {
		for ; next < n && len(h.missing) < most; next++ {
			h.missing = append(h.missing, next)
		}
		next = n + 1
	}
}

// receipts reads what stands about the snapshots without a listing of all objects: no marks, no stored bytes.
func (a *app) receipts(ctx context.Context, repo *repository.Repository, src snapshot.Source) (*history, error) {
	h := &history{source: src, condemned: map[uint64]bool{}, marks: map[uint64][]record.Mark{}}
	var err error
	h.manifests, err = a.manifests(ctx, repo, src)
	if err != nil && !errors.As(err, &h.bad) {
		return nil, err
	}
	if h.damaged, err = repair.Affected(ctx, repo, src); err != nil {
		return nil, err
	}
	condemned, err := repo.Condemned(ctx, src)
	if err != nil {
		return nil, err
	}
	for _, c := range condemned {
		h.condemned[c.Sequence] = true
	}
	h.verified, h.proven, err = verdicts(ctx, repo, src, h.manifests)
	return h, err
}

// readMarks reads the marks of all snapshots and keeps those in force.
func (h *history) readMarks(ctx context.Context, repo *repository.Repository, inv *inventory.Inventory) error {
	all := map[uint64]map[string]record.Mark{}
	for at := range inv.Marks {
		var m record.Mark
		id := snapshot.ID{Source: h.source, Sequence: at.Sequence}
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
			h.marks[n] = append(h.marks[n], m)
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
	return sum
}

// verdict is what the verifications of a snapshot say: that all its bytes are good, or that some are not.
func (h *history) verdict(m *repository.Stored) (passed, failed bool) {
	v := h.verified[m.Sequence]
	if v == nil {
		return false, false
	}
	return h.proven[m.Sequence], v.Result == record.Fail
}

// retention is the history as retention looks at it.
func (h *history) retention() []retention.Snapshot {
	out := make([]retention.Snapshot, 0, len(h.manifests))
	for _, m := range h.manifests {
		s := retention.FromManifest(m.Manifest, m.Arrived)
		s.Verified, _ = h.verdict(m)
		s.Verified = s.Verified && len(h.damaged[m.Sequence]) == 0
		s.Condemned = h.condemned[m.Sequence]
		for _, mark := range h.marks[m.Sequence] {
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

// compliance is the history as objectives are judged by it.
func (h *history) compliance() []compliance.Snapshot {
	out := make([]compliance.Snapshot, 0, len(h.manifests))
	for _, m := range h.manifests {
		s := compliance.Snapshot{Point: recovery.FromManifest(m.Manifest, m.Arrived), Bytes: int64(min(m.Counts.Bytes, 1<<62))}
		s.Verified, s.Damaged = h.verdict(m)
		if len(h.damaged[m.Sequence]) > 0 {
			s.Verified, s.Damaged = false, true
		}
		s.Condemned = h.condemned[m.Sequence]
		out = append(out, s)
	}
	return out
}

// broken says that some manifests can't be read.
func (h *history) broken() error {
	if h.bad == nil {
		return nil
	}
	return fmt.Errorf("source %s: %w", h.source, h.bad)
}

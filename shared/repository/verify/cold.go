package verify

import (
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// spared says why a pack was not read.
type spared uint8

const (
	notSpared  spared = iota
	archived          // it must be thawed first
	notItsTurn        // reading it is dear, and this sweep reads others
)

// maxArchived bounds the archived packs that a sweep remembers, beside those of which a listing tells.
const maxArchived = maxBad

// spare marks a pack that the sweep does not read because of its storage class: what must be thawed never is read, and of
// what is dear to read each sweep reads another share. All of it was read before it moved there.
func (w *sweeper) spare(p *pack) bool {
	id := p.ID.String()
	_, damaged := w.source.inv.Damaged[p.ID]
	switch w.source.inv.Packs[p.name()].Class {
	case objstore.Frozen, objstore.Deep:
		p.spared = archived
	case objstore.Cool:
		turn := Sample{K: 1, N: max(1, w.budget.Cool), Cursor: w.budget.Turn}
		if !damaged && !slices.Contains(w.sweep.Bad, id) && !turn.Chooses(p.ID) {
			p.spared = notItsTurn
		}
	default:
		if slices.Contains(w.sweep.Archived, id) {
			p.spared = archived // an earlier call has tried
		}
	}
	return p.spared != notSpared
}

// toRead is how many bytes of a pack a sweep reads, on average over many.
func (w *sweeper) toRead(p *pack) int64 {
	switch class := w.source.inv.Packs[p.name()].Class; {
	case class.Archived():
		return 0
	case class == objstore.Cool:
		return int64(p.Size / max(1, w.budget.Cool))
	}
	return int64(p.Size)
}

// passedBy counts a pack that was not read, and remembers it if no listing tells of it.
func (w *sweeper) passedBy(p *pack) {
	switch p.spared {
	case notSpared:
		return
	case notItsTurn:
		w.sweep.Spared++
		w.source.c.result.Spared++
		return
	case archived:
		w.sweep.Frozen++
		w.source.c.result.Archived++
	}
	id := p.ID.String()
	switch {
	case w.source.inv.Packs[p.name()].Class.Archived(), slices.Contains(w.sweep.Archived, id):
	case len(w.sweep.Archived) == maxArchived:
		w.sweep.TooBad = true // nobody knows any more what was not read: no snapshot passes
	default:
		w.sweep.Archived = append(w.sweep.Archived, id)
	}
}

// readWhole takes out the snapshots that pass and use a pack which was not read because of its class: a receipt of level
// bytes says that all were. Their older receipts go on to stand.
func (c *checker) readWhole(s *source, judged []SnapshotResult) []SnapshotResult {
	cold := map[uint64]bool{}
	for _, sn := range s.snaps {
		sn.live(func(p *pack) { cold[sn.Sequence] = cold[sn.Sequence] || p.spared != notSpared })
	}
	return slices.DeleteFunc(slices.Clone(judged), func(r SnapshotResult) bool { return r.Pass && cold[r.ID.Sequence] })
}

package verify

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Sweep is how far the reading of all packs of a source has come, at level bytes, in as many calls of [Continue] as it
// takes. It is small JSON; the zero value begins anew. Packs are read in the order of their ids.
//
// When a sweep is done, each pack that a snapshot uses was read once since it began, and the snapshots that had arrived
// before it began get a receipt of level bytes about all of their packs.
type Sweep struct {
	// Since leaves out the packs that snapshots use which had arrived by then, and gives those no receipts: what is new
	// can be read before what was read already. Zero: everything.
	Since time.Time `json:"since,omitzero"`

	// From and To leave out the packs whose ids, in hex, are less than From, or not less than To: several such sweeps read
	// a source at the same time, and [Sweep.Join] makes one of them again, whose end judges the source. Empty: all.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`

	Horizon  time.Time `json:"horizon,omitzero"`   // newest arrival when it began, by the store's clock; zero: not begun
	Position string    `json:"position,omitempty"` // id of the pack that was read last
	Bad      []string  `json:"bad,omitempty"`      // ids of packs that failed; read again at the end, if no longer bad forgotten
	TooBad   bool      `json:"too_bad,omitempty"`  // more than maxBad failed: no snapshot passes
	Blind    []uint64  `json:"blind,omitempty"`    // snapshots of which not all packs were known, ascending
	Total    int64     `json:"total,omitempty"`    // bytes that a whole sweep reads, when last looked at
	Packs    int       `json:"packs,omitempty"`    // read so far
	Bytes    int64     `json:"bytes,omitempty"`    // their size
	Frozen   int       `json:"frozen,omitempty"`   // packs passed by because they must be thawed first
	Spared   int       `json:"spared,omitempty"`   // packs passed by because reading them is dear, see Budget.Cool
	Archived []string  `json:"archived,omitempty"` // ids of frozen ones of which only the attempt to read them told
	Log      string    `json:"log,omitempty"`      // key of the object of a log that was read last; logs come after packs
}

// ranged reports whether the sweep is about a part of the packs only.
func (s *Sweep) ranged() bool { return s.From != "" || s.To != "" }

// Split returns n sweeps that together read what is left of this one, about equally much each. It is for sweeps that have
// begun.
func (s Sweep) Split(n int) []Sweep {
	const space = 1 << 16 // by the first two bytes of ids, which are hashes
	begin := 0
	if len(s.Position) >= 4 {
		if at, err := strconv.ParseUint(s.Position[:4], 16, 32); err == nil {
			begin = int(at) //nolint:gosec // sixteen bits
		}
	}
	n = max(1, min(n, space-begin))
	bound := func(i int) string { return fmt.Sprintf("%04x", begin+(space-begin)*i/n) }
	out := make([]Sweep, n)
	for i := range out {
		out[i] = Sweep{Since: s.Since, Horizon: s.Horizon, Position: s.Position, From: bound(i)}
		if i < n-1 {
			out[i].To = bound(i + 1)
		}
	}
	return out
}

// Join returns the sweep with what its parts have read, which are all done: its next call judges the source.
func (s Sweep) Join(parts []Sweep) Sweep {
	bad, blind, frozen := map[string]bool{}, map[uint64]bool{}, map[string]bool{}
	note := func(p *Sweep) {
		for _, id := range p.Bad {
			bad[id] = true
		}
		for _, n := range p.Blind {
			blind[n] = true
		}
		for _, id := range p.Archived {
			frozen[id] = true
		}
	}
	note(&s)
	for i := range parts {
		p := &parts[i]
		note(p)
		s.TooBad = s.TooBad || p.TooBad
		s.Packs, s.Bytes, s.Frozen, s.Spared = s.Packs+p.Packs, s.Bytes+p.Bytes, s.Frozen+p.Frozen, s.Spared+p.Spared
	}
	s.Bad, s.Blind, s.Archived = slices.Sorted(maps.Keys(bad)), slices.Sorted(maps.Keys(blind)), slices.Sorted(maps.Keys(frozen))
	if len(s.Bad) > maxBad || len(s.Archived) > maxArchived {
		s.Bad, s.Archived, s.TooBad = s.Bad[:min(len(s.Bad), maxBad)], s.Archived[:min(len(s.Archived), maxArchived)], true
	}
	s.Position = strings.Repeat("f", 2*len(snapshot.Hash{}))
	return s
}

// overlap is taken off Since: stores tell arrivals by the second, and a manifest that came in the second of the horizon,
// after the listing, must not count as read for ever.
const overlap = 2 * time.Second

// maxBad bounds what a sweep remembers.
const maxBad = 1000

// Budget limits one call of [Continue].
type Budget struct {
	Bytes int64       // of packs; what is reached is not passed by more than a few packs. 0: no limit
	Stop  func() bool // asked between packs; nil: never
	Cool  uint64      // of packs that are dear to read, each sweep reads one of so many; 0: all of them
	Turn  uint64      // which of them: callers count their sweeps, so that none is left out for ever
}

// spent reports whether the call has to end.
func (b *Budget) spent(read int64) bool {
	return b.Bytes > 0 && read >= b.Bytes || b.Stop != nil && b.Stop()
}

// Continue reads further packs of a source, within the budget, and reports whether the sweep is done. The next sweep
// must be stored before the next call; where that fails, the same packs are read again, which harms nothing.
//
// Damage is not an error: it is in the result, which tells only of what this call has read until the sweep is done, and
// then of the source as a whole. Snapshots that use a pack which this call found bad get a failing receipt at once.
// Of opts, Record, Place, Copy, Workers, MaxFiles, Expect, Now and Progress count. Errors are as for [Run]; the next sweep is
// good beside an error too.
func Continue(ctx context.Context, repo *repository.Repository, src snapshot.Source, sweep Sweep, budget Budget, opts Options) (next Sweep, result *Result, done bool, err error) {
	c := newChecker(repo, Options{
		Level: Bytes, Sources: []snapshot.Source{src}, Expect: opts.Expect, Record: opts.Record, Place: opts.Place, Copy: opts.Copy,
		Workers: opts.Workers, MaxFiles: opts.MaxFiles, Now: opts.Now, Progress: opts.Progress,
	})
	sweep.Bad, sweep.Blind, sweep.Archived = slices.Clone(sweep.Bad), slices.Clone(sweep.Blind), slices.Clone(sweep.Archived)
	w := &sweeper{source: newSource(c, src), sweep: sweep, budget: budget, failed: map[*pack]bool{}}
	c.sweep = w
	if err := w.run(ctx); err != nil {
		// What was read was read: bad packs are in the sweep, and read again at its end.
		return w.sweep, nil, false, fmt.Errorf("verify %s: %w", src, err)
	}
	return w.sweep, c.end(), w.done, nil
}

// sweeper is one call of Continue.
type sweeper struct {
	*source
	sweep  Sweep
	budget Budget
	done   bool
	failed map[*pack]bool // that this call has read and found bad
	packs  int            // read in this call
	read   int64          // their size
}

// run reads. Manifests are loaded before the listing, so that all packs that they name are in it.
func (w *sweeper) run(ctx context.Context) error {
	s := w.source
	if err := s.load(ctx); err != nil {
		return err
	}
	if w.sweep.Horizon.IsZero() {
		w.sweep.Horizon = s.inv.Newest
	}
	var numbers []uint64
	for n, m := range s.stored {
		if !m.Arrived.After(w.sweep.Horizon) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		s.snaps = append(s.snaps, &snap{Stored: s.stored[n], id: s.id(n)})
	}
	if err := s.checkLists(ctx); err != nil {
		return err
	}
	w.look()
	left := w.pick()
	if err := w.readAll(ctx, left); err != nil {
		return err
	}
	if w.done && !w.sweep.ranged() {
		if err := w.readLogs(ctx); err != nil {
			return err
		}
	}
	if w.done && !w.sweep.ranged() {
		if err := w.judgeAll(ctx); err != nil {
			return err
		}
	}
	s.c.result.Packs, s.c.result.Bytes = w.packs, w.read
	if err := s.walk(ctx); err != nil {
		return err
	}
	return s.finish(ctx)
}

// look notes the snapshots of which the manifest or a list can't be read. When one can be again, because somebody has put
// it back, packs of it may have been passed by: then the reading begins anew.
func (w *sweeper) look() {
	s := w.source
	blind := map[uint64]bool{}
	for _, n := range w.sweep.Blind {
		blind[n] = true
	}
	for n := range s.bad {
		blind[n] = true
	}
	for _, sn := range s.snaps {
		whole := sn.chain != nil && !slices.ContainsFunc(sn.lists, func(l *list) bool { return !l.found })
		if whole && blind[sn.Sequence] {
			w.sweep.Position = "" // what was read counts as read: budgets go by it
			delete(blind, sn.Sequence)
		} else if !whole {
			blind[sn.Sequence] = true
		}
	}
	w.sweep.Blind = slices.Sorted(maps.Keys(blind))
}

// pick marks the packs that the sweep is about and returns those that it has not read yet, by their ids. Snapshots that
// it is not about go.
func (w *sweeper) pick() []*pack {
	s := w.source
	old := map[*pack]bool{}
	var about []*snap
	for _, sn := range s.snaps {
		if w.sweep.Since.IsZero() || sn.Arrived.After(w.sweep.Since.Add(-overlap)) {
			about = append(about, sn)
			continue
		}
		sn.live(func(p *pack) { old[p] = true })
	}
	s.snaps = about
	for _, sn := range about {
		sn.live(func(p *pack) { p.used = !old[p] })
	}
	var left []*pack
	w.sweep.Total = 0
	for _, p := range s.usedPacks() {
		w.sweep.Total += w.toRead(p)
		if id := p.ID.String(); id > w.sweep.Position && id >= w.sweep.From && (w.sweep.To == "" || id < w.sweep.To) {
			left = append(left, p)
		}
	}
	slices.SortFunc(left, func(a, b *pack) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return left
}

// readAll reads packs until none is left or the budget is spent, some at a time.
func (w *sweeper) readAll(ctx context.Context, left []*pack) error {
	s := w.source
	step := 2 * s.c.opts.Workers
	for len(left) > 0 {
		if w.budget.spent(w.read) {
			return nil
		}
		part := left[:min(step, len(left))]
		if err := w.hash(ctx, part); err != nil {
			return err
		}
		for _, p := range part {
			if p.spared != notSpared {
				w.passedBy(p)
				continue
			}
			w.sweep.Packs++
			w.sweep.Bytes += int64(p.Size)
			if p.fault.Load() != nil {
				w.bad(p)
			}
		}
		w.sweep.Position = part[len(part)-1].ID.String()
		left = left[len(part):]
	}
	w.done = true
	return nil
}

// hash reads some packs.
func (w *sweeper) hash(ctx context.Context, part []*pack) error {
	s := w.source
	buffers := sync.Pool{New: func() any { return new(buffer) }}
	for _, p := range part {
		s.checkPresence(p)
		if !p.lost && w.spare(p) {
			continue
		}
		w.packs++
		w.read += int64(p.Size)
	}
	return inParallel(ctx, s.c.opts.Workers, part, func(ctx context.Context, p *pack) {
		if p.lost || p.spared != notSpared {
			return
		}
		b := buffers.Get().(*buffer)
		defer buffers.Put(b)
		s.hashPack(ctx, p, b)
		s.c.progress(func(at *Progress) { at.Source, at.Packs, at.Bytes = s.src, at.Packs+1, at.Bytes+int64(p.Size) })
	})
}

func (w *sweeper) bad(p *pack) {
	w.failed[p] = true
	id := p.ID.String()
	switch {
	case slices.Contains(w.sweep.Bad, id):
	case len(w.sweep.Bad) == maxBad:
		w.sweep.TooBad = true
	default:
		w.sweep.Bad = append(w.sweep.Bad, id)
	}
}

// judgeAll ends the sweep: packs that were bad, or that somebody else found bad, are read once more, because they may
// have been repaired; what was good is still there; documents and links are checked.
func (w *sweeper) judgeAll(ctx context.Context) error {
	s := w.source
	for _, sn := range s.snaps {
		sn.live(func(p *pack) { p.used = true })
	}
	var again []*pack
	for _, p := range s.usedPacks() {
		_, known := s.inv.Damaged[p.ID]
		switch {
		case w.failed[p] || p.read:
		case known || slices.Contains(w.sweep.Bad, p.ID.String()):
			again = append(again, p)
		default:
			s.checkPresence(p)
			p.read = !p.lost && p.spared == notSpared && !w.spare(p)
		}
	}
	if err := w.hash(ctx, again); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.checkRecords, s.checkLinks, s.checkKeys} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// receiptsFor are the snapshots of which a receipt is to be written: not those of which all that is wrong is that the store
// did not give something, as when rights are missing. That is no verdict, and a receipt would stay.
func (c *checker) receiptsFor(s *source, judged []SnapshotResult) []SnapshotResult {
	judged = slices.DeleteFunc(c.readWhole(s, judged), func(r SnapshotResult) bool { return c.findings.only(r.ID, Unreadable) })
	w := c.sweep
	if w == nil {
		return judged
	}
	hit := map[uint64]bool{}
	for _, sn := range s.snaps {
		sn.live(func(p *pack) {
			if w.failed[p] {
				hit[sn.Sequence] = true
			}
		})
	}
	return slices.DeleteFunc(slices.Clone(judged), func(r SnapshotResult) bool {
		switch {
		case w.sweep.ranged(): // the others are judged when all ranges are read
		case w.done && w.sweep.TooBad:
			return r.Pass
		case w.done:
			return false
		}
		return !hit[r.ID.Sequence]
	})
}

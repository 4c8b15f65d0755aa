package log

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"golang.org/x/sync/semaphore"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// readAhead is how many sealed bytes are on their way at most.
	readAhead = 32 << 20
	// leastWeight makes it 16 objects at most.
	leastWeight = 2 << 20
	// near is among how many objects the one that holds a record is looked for first.
	near = 64
)

// candidate is an object that holds a record.
type candidate struct {
	layout.LogObject
	size int64
}

// candidates are the objects that hold record n, the best first: segments, the longest first, then the piece.
func (e *Epoch) candidates(n uint64, excluded map[layout.LogObject]error) []candidate {
	var out []candidate
	add := func(p inventory.LogPiece, joined bool) {
		o := layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: p.First, Last: p.Last, Joined: joined}
		if _, bad := excluded[o]; !bad && p.First <= n && n <= p.Last {
			out = append(out, candidate{o, int64(p.Size)})
		}
	}
	for _, part := range []struct {
		all    []inventory.LogPiece
		joined bool
	}{{e.Segments, true}, {e.Pieces, false}} {
		// Ascending by First: what holds n is among the last that begin before it, unless it is missing.
		k := sort.Search(len(part.all), func(i int) bool { return part.all[i].First > n })
		begin := len(out)
		for i := k - 1; i >= 0 && (i >= k-near || len(out) == 0); i-- {
			add(part.all[i], part.joined)
		}
		sort.SliceStable(out[begin:], func(i, j int) bool { return out[begin+i].Last > out[begin+j].Last })
	}
	return out
}

// piece returns the piece of exactly one record, if it is there.
func (e *Epoch) piece(n uint64) (layout.LogObject, bool) {
	k := sort.Search(len(e.Pieces), func(i int) bool { return e.Pieces[i].First >= n })
	if k == len(e.Pieces) || e.Pieces[k].First != n || e.Pieces[k].Last != n {
		return layout.LogObject{}, false
	}
	return layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: n, Last: n}, true
}

// cover returns objects that hold the records from first to last, in order, up to the first record that is in none.
func (e *Epoch) cover(first, last uint64, excluded map[layout.LogObject]error) []candidate {
	var out []candidate
	for n := first; n <= last; {
		all := e.candidates(n, excluded)
		if len(all) == 0 {
			break
		}
		out = append(out, all[0])
		n = all[0].Last + 1
	}
	return out
}

// after is the first record after n that is in some object; 0: there is none.
func (e *Epoch) after(n uint64) uint64 {
	next := uint64(0)
	for _, all := range [][]inventory.LogPiece{e.Pieces, e.Segments} {
		k := sort.Search(len(all), func(i int) bool { return all[i].First > n })
		if k < len(all) && (next == 0 || all[k].First < next) {
			next = all[k].First
		}
	}
	return next
}

// follower follows records and proves that each follows the one before it.
type follower struct {
	reader   *Reader
	yield    func(located, error) bool
	previous snapshot.Hash
	known    bool // previous is
	zero     bool // previous is that of no record
}

// leg yields the records of a leg from a number on; it reports false if nobody wants more.
func (w *follower) leg(ctx context.Context, number int, l leg, from uint64) (bool, error) {
	if from > l.to {
		return true, nil
	}
	if err := w.enter(l, from); err != nil {
		return false, err
	}
	keys, err := w.reader.Keys(ctx, l.epoch)
	if err != nil {
		return false, err
	}
	n := from
	excluded := map[layout.LogObject]error{}
	for n <= l.to {
		plan := l.epoch.cover(n, l.to, excluded)
		if len(plan) == 0 {
			return false, w.hole(l, n, excluded)
		}
		next, more, err := w.plan(ctx, number, l, keys, plan, n, excluded)
		if err != nil || !more {
			return more, err
		}
		n = next
	}
	return true, nil
}

// enter checks that an epoch goes on where the records before it ended.
func (w *follower) enter(l leg, from uint64) error {
	if l.epoch.Described == nil {
		return &HoleError{Stream: l.epoch.Stream, Epoch: l.epoch.Epoch, First: from, Last: l.to, Err: fmt.Errorf("%w: %w", ErrNoHead, l.epoch.Err)}
	}
	c := l.epoch.Described.Continues
	if c == nil || c.Sequence+1 != from {
		return nil
	}
	if w.known && !w.zero && w.previous.String() != c.Record {
		return &HoleError{
			Stream: l.epoch.Stream, Epoch: l.epoch.Epoch, First: from, Last: l.to,
			Err: fmt.Errorf("the epoch goes on after another record %d than the one that is there", c.Sequence),
		}
	}
	h, err := snapshot.ParseHash(c.Record)
	w.previous, w.known, w.zero = h, true, false
	return err
}

// hole says what is missing from record n on.
func (w *follower) hole(l leg, n uint64, excluded map[layout.LogObject]error) error {
	e := &HoleError{Stream: l.epoch.Stream, Epoch: l.epoch.Epoch, First: n, Last: l.to}
	if next := l.epoch.after(n); next > n && next-1 < l.to {
		e.Last = next - 1
	}
	for o, err := range excluded {
		if o.First <= n && n <= o.Last {
			e.Err = errors.Join(e.Err, err)
			e.Last = min(l.to, max(n, o.Last))
		}
	}
	return e
}

// future is an object that is being read.
type future struct {
	candidate
	weight int64
	done   chan struct{}
	loaded *loaded
	err    error
}

// plan yields the records of objects in order, from record n on. It returns the next record that is due; an object that
// is damaged is added to excluded, and the caller looks for another way.
func (w *follower) plan(ctx context.Context, number int, l leg, keys *seal.Keys, plan []candidate, n uint64, excluded map[layout.LogObject]error) (uint64, bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	window := semaphore.NewWeighted(readAhead)
	r := reading{follower: w, number: number, leg: l, keys: keys, excluded: excluded, n: n}
	more, err := r.objects(ctx, w.fetch(ctx, l.epoch, keys, plan, window), window)
	if errors.Is(err, errOtherWay) {
		return r.n, true, nil
	}
	return r.n, more, err
}

// fetch reads objects ahead, within the window, and gives them in order.
func (w *follower) fetch(ctx context.Context, epoch *Epoch, keys *seal.Keys, plan []candidate, window *semaphore.Weighted) <-chan *future {
	out := make(chan *future)
	go func() {
		defer close(out)
		for _, c := range plan {
			f := &future{candidate: c, weight: min(max(c.size, leastWeight), readAhead), done: make(chan struct{})}
			if window.Acquire(ctx, f.weight) != nil {
				return
			}
			go func() {
				defer close(f.done)
				f.loaded, f.err = w.reader.object(ctx, epoch, keys, f.LogObject)
			}()
			select {
			case out <- f:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// object reads an object, of which the last record may not be proven. A segment must be equal to its pieces as long as they are
// there: equal last records prove all before them, since each has the hash of the one before it.
func (r *Reader) object(ctx context.Context, epoch *Epoch, keys *seal.Keys, o layout.LogObject) (*loaded, error) {
	l, err := loadOpen(ctx, r.repo, r.src, keys, o)
	if err != nil || !o.Joined {
		return l, err
	}
	last, ok := epoch.piece(o.Last)
	if !ok {
		return l, nil
	}
	if b, err := objstore.ReadAll(ctx, r.repo.Store(), layout.LogKey(r.src, last), objstore.MaxObject); err == nil && holds(keys, b, l.open.plain[l.tail:]) {
		l.open = nil // which proves the record as well
		return l, nil
	}
	piece, err := load(ctx, r.repo, r.src, keys, last)
	var damage *repository.DamageError
	switch {
	case errors.As(err, &damage):
		return l, nil // it says nothing against the segment
	case err != nil:
		return nil, err
	case piece.last() != l.last():
		return nil, &repository.DamageError{Key: layout.LogKey(r.src, o), Err: ErrOther}
	}
	return l, nil
}

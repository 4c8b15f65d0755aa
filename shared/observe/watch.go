package observe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// How often a source is looked at.
const (
	// Page is how many objects one request lists. A source with fewer is always listed whole.
	Page = 1000
	// AuditEvery is how long at most nobody lists everything of a source.
	AuditEvery = 24 * time.Hour
	// receiptsEvery is how long at most nobody lists the receipts of a source that is larger than a page.
	receiptsEvery = 6 * time.Hour
	// logsEvery is how long at most nobody compares the log of a source with those of its copies. It is not compared by each look:
	// a log has something new each time, and hundreds of objects.
	logsEvery = time.Hour
)

// Place is a copy of the repository.
type Place struct {
	Address   string
	Dependent bool           // whoever can delete the primary can delete it
	Unseen    bool           // only a host can look at it
	Store     objstore.Store // nil: it can't be looked at
	Err       error          // why
}

// Watch looks at the sources of one repository again and again. It is safe for concurrent use on different sources.
type Watch struct {
	Repo   *repository.Repository
	Places []Place
	Copied bool // the repository is itself a copy, see [IsCopy]

	requests atomic.Int64
}

// Requests is how many requests all looks have made, copies included; a listing counts one for each page.
func (w *Watch) Requests() int64 { return w.requests.Load() }

// Interval is how often a source is to be looked at: three times in its RPO.
func Interval(rpo time.Duration) time.Duration { return rpo / 3 }

// Due reports whether a source is to be looked at, and whether everything of it. m is nil for one that was never seen.
// The first look is whole; later ones come at the interval, the whole ones once a day. The phase of a source is its own, so
// that thousands that were added at once are not all audited in the same minute for ever.
func Due(m *Memory, rpo time.Duration, now time.Time) (due, whole bool) {
	if m == nil || m.Looked.IsZero() {
		return true, true
	}
	// A quarter of the period is spread by name.
	early := time.Duration(sha256.Sum256([]byte(m.Source))[0]) * (AuditEvery / 4) / 256
	whole = !now.Before(m.Audited.Add(AuditEvery - early))
	return whole || !now.Before(m.Looked.Add(Interval(rpo))), whole
}

// look is one look at one source.
type look struct {
	w     *Watch
	src   snapshot.Source
	m     *Memory // of before; the next one is made from it
	now   time.Time
	whole bool
	inv   *inventory.Inventory
	fresh map[uint64]bool // snapshots that were read in this look
	best  best            // of before
}

// best are the newest of the remembered snapshots that are usable, and that are proven.
type best struct{ usable, proven uint64 }

// best finds them; with announced, those whose deletion is announced count too: it may be withdrawn.
func (m *Memory) best(announced bool) best {
	var b best
	for i := range m.Kept {
		k := m.Kept[i]
		k.Condemned = k.Condemned && !announced
		if k.usable() {
			b.usable = k.Sequence
		}
		if k.proven() {
			b.proven = k.Sequence
		}
	}
	return b
}

// Look lists a source and reads what is new. It returns the new memory; the old one, which may be nil, is not changed.
// An error means that nothing was learnt: the old memory goes on to count.
//
// A source that fits a page, or that is due for its audit (whole), is listed in whole. Of a larger one only the
// manifests are listed; its receipts as well if there is something new, or something that is still to be verified.
func (w *Watch) Look(ctx context.Context, src snapshot.Source, old *Memory, whole bool, now time.Time) (*Memory, error) {
	l := &look{w: w, src: src, m: next(old, src), now: now, fresh: map[uint64]bool{}}
	l.whole = whole || old == nil || old.Objects < Page
	l.best = l.m.best(true)
	if old == nil {
		l.best = best{usable: math.MaxUint64, proven: math.MaxUint64} // everything is still to be found
	}
	if err := l.list(ctx); err != nil {
		return nil, err
	}
	mark := l.digest(l.inv.Manifests)
	changed := mark != l.m.Mark || whole
	if changed {
		if err := l.manifests(ctx); err != nil {
			return nil, err
		}
	}
	if err := l.others(ctx, changed); err != nil {
		return nil, err
	}
	if err := l.copies(ctx, changed); err != nil {
		return nil, err
	}
	if err := l.lock(ctx); err != nil {
		return nil, err
	}
	l.m.Mark, l.m.Looked = mark, now.UTC()
	if l.whole {
		// A source of one page is audited by each look at it.
		l.m.Objects, l.m.Stored, l.m.Audited = l.inv.Objects, storedBytes(l.inv), now.UTC()
		l.m.sample(now)
	}
	l.m.trim(now)
	return l.m, ctx.Err()
}

// next is a memory to change: it shares nothing with the old one that is written to.
func next(old *Memory, src snapshot.Source) *Memory {
	if old == nil {
		return &Memory{Source: src.String()}
	}
	m := *old
	m.Kept, m.Days, m.Expired = slices.Clone(old.Kept), slices.Clone(old.Days), slices.Clone(old.Expired)
	m.Copies = maps.Clone(old.Copies)
	return &m
}

// list makes the inventory: of everything, or of the manifests alone.
func (l *look) list(ctx context.Context) (err error) {
	if l.whole {
		l.inv, err = inventory.Take(ctx, l.w.store(), l.src)
		return err
	}
	l.inv = &inventory.Inventory{Source: l.src, Receipts: map[string]inventory.Object{}}
	l.inv.Manifests, err = l.numbered(ctx, l.w.store(), layout.ManifestPrefix(l.src))
	return err
}

func (l *look) numbered(ctx context.Context, store objstore.Store, prefix string) (map[uint64]inventory.Object, error) {
	out := map[uint64]inventory.Object{}
	err := store.List(ctx, prefix, func(o objstore.Info) error {
		if n, err := layout.ParseNumbered(prefix, o.Key); err == nil {
			out[n] = inventory.Object{Size: o.Size, Modified: o.Modified}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return out, nil
}

// digest tells two listings apart.
func (l *look) digest(of map[uint64]inventory.Object) string {
	h := sha256.New()
	for _, n := range inventory.Sequences(of) {
		fmt.Fprintf(h, "%d %d %d\n", n, of[n].Size, of[n].Modified.UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// rest tells two listings of what stands beside the manifests apart.
func (l *look) rest() string {
	h := sha256.New()
	for _, m := range []map[uint64]inventory.Object{l.inv.Condemned, l.inv.Expired} {
		fmt.Fprintln(h, l.digest(m))
	}
	var keys []string
	for key, o := range l.inv.Receipts {
		keys = append(keys, fmt.Sprintf("%s %d", key, o.Modified.UnixNano()))
	}
	for id, o := range l.inv.Damaged {
		keys = append(keys, fmt.Sprintf("%s %d", id, o.Modified.UnixNano()))
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintln(h, k)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// manifests reads those that are new and to be remembered, and forgets those that are gone.
func (l *look) manifests(ctx context.Context) error {
	sequences := inventory.Sequences(l.inv.Manifests)
	l.m.Count = len(sequences)
	have := map[uint64]int{}
	l.m.Kept = slices.DeleteFunc(l.m.Kept, func(k Kept) bool {
		o, there := l.inv.Manifests[k.Sequence]
		return !there || !o.Modified.Truncate(time.Millisecond).Equal(k.listed) // gone, or another one is there
	})
	for i := range l.m.Kept {
		have[l.m.Kept[i].Sequence] = i
	}
	var read []repository.Listed
	for i, n := range sequences {
		o := l.inv.Manifests[n]
		fromEnd := len(sequences) - 1 - i
		wanted := i == 0 || fromEnd < keepNewest || fromEnd < keepMost && l.now.Sub(o.Modified) < keepDays*24*time.Hour
		if _, known := have[n]; wanted && !known {
			read = append(read, repository.Listed{Sequence: n, Info: objstore.Info{Key: l.inv.ManifestKey(n), Size: o.Size, Modified: o.Modified}})
		}
	}
	if err := l.read(ctx, read); err != nil {
		return err
	}
	if n := len(sequences); n > 0 {
		l.m.LastSeen = max(l.m.LastSeen, sequences[n-1])
	}
	return l.missing(ctx, sequences)
}

// read reads manifests. One that can't be read is remembered as such until the listing changes or the next audit.
func (l *look) read(ctx context.Context, at []repository.Listed) error {
	stored, errs := make([]*repository.Stored, len(at)), make([]error, len(at))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i := range at {
		g.Go(func() error {
			l.w.requests.Add(1)
			stored[i], errs[i] = l.w.Repo.ManifestAt(gctx, l.src, at[i])
			if objstore.IsTransient(errs[i]) || errors.Is(errs[i], objstore.ErrDenied) {
				return errs[i] // no answer says nothing about the manifest
			}
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	l.m.Unreadable = nil
	for i, m := range stored {
		switch {
		case errors.Is(errs[i], objstore.ErrNotExist):
		case errs[i] != nil:
			l.m.Unreadable = append(l.m.Unreadable, at[i].Sequence)
		default:
			listed := m.Arrived
			if l.w.Copied {
				adjust(m)
			}
			k := kept(m, listed)
			if !l.whole {
				l.m.Stored += k.Added // until the next listing of everything
			}
			l.m.Kept = append(l.m.Kept, k)
			l.fresh[m.Sequence] = true
		}
	}
	slices.SortFunc(l.m.Kept, func(a, b Kept) int { return compare(a.Sequence, b.Sequence) })
	return nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// missing finds the numbers of which there is neither a manifest nor a record of its removal.
func (l *look) missing(ctx context.Context, sequences []uint64) error {
	if l.whole {
		l.m.Expired = ranges(inventory.Sequences(l.inv.Expired))
	}
	l.m.Missing = l.gaps(sequences)
	if len(l.m.Missing) == 0 || l.whole {
		return nil
	}
	expired, err := l.numbered(ctx, l.w.store(), layout.ExpiredPrefix(l.src))
	if err != nil {
		return err
	}
	l.m.Expired = ranges(inventory.Sequences(expired))
	l.m.Missing = l.gaps(sequences)
	return nil
}

func (l *look) gaps(sequences []uint64) []uint64 {
	var out []uint64
	want := uint64(1)
	for _, n := range sequences {
		for ; want < n && len(out) < most; want++ {
			if !l.m.removed(want) {
				out = append(out, want)
			}
		}
		want = n + 1
	}
	return out
}

// ranges joins neighbours of an ascending list.
func ranges(numbers []uint64) []snapshot.Range {
	var out []snapshot.Range
	for _, n := range numbers {
		if k := len(out); k > 0 && out[k-1].Last+1 == n {
			out[k-1].Last = n
			continue
		}
		out = append(out, snapshot.Range{First: n, Last: n})
	}
	return out
}

// others looks at what stands beside the manifests.
func (l *look) others(ctx context.Context, changed bool) error {
	if !l.whole {
		if !changed && !l.awaits() && l.now.Sub(l.m.Awaited) < receiptsEvery {
			return nil
		}
		prefix := layout.SourcePrefix(l.src) + "receipts/"
		err := l.w.store().List(ctx, prefix, func(o objstore.Info) error {
			l.inv.Receipts[o.Key] = inventory.Object{Size: o.Size, Modified: o.Modified}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		l.m.Awaited = l.now.UTC()
		return l.receipts(ctx)
	}
	rest := l.rest()
	if rest == l.m.Rest && !changed {
		return nil
	}
	l.condemned()
	if err := l.receipts(ctx); err != nil {
		return err
	}
	if err := l.damaged(ctx); err != nil {
		return err
	}
	l.condemned()
	if err := l.forgotten(ctx); err != nil {
		return err
	}
	l.m.Rest = rest
	return nil
}

// condemned notes which of the remembered snapshots are announced for deletion.
func (l *look) condemned() {
	for i := range l.m.Kept {
		_, l.m.Kept[i].Condemned = l.inv.Condemned[l.m.Kept[i].Sequence]
	}
}

// awaits reports whether a receipt is expected that would change what is known.
func (l *look) awaits() bool {
	n := len(l.m.Kept)
	return n > 0 && (!l.m.Kept[n-1].Checked || slices.ContainsFunc(l.m.Kept, func(k Kept) bool { return k.failed }))
}

// damaged notes the snapshots that use packs on record as damaged.
func (l *look) damaged(ctx context.Context) error {
	var affected map[uint64][]snapshot.Hash
	if len(l.inv.Damaged) > 0 {
		var err error
		if affected, err = repair.Affected(ctx, l.w.Repo, l.src); err != nil {
			return err
		}
	}
	if err := l.remember(ctx, slices.Collect(maps.Keys(affected))); err != nil {
		return err
	}
	for i := range l.m.Kept {
		k := &l.m.Kept[i]
		k.packs = len(affected[k.Sequence]) > 0
		k.settle()
	}
	return nil
}

// remember reads manifests that were not kept and that matter now.
func (l *look) remember(ctx context.Context, numbers []uint64) error {
	unreadable := l.m.Unreadable
	for _, n := range numbers {
		o, there := l.inv.Manifests[n]
		if !there || l.index(n) >= 0 {
			continue
		}
		if err := l.read(ctx, []repository.Listed{{Sequence: n, Info: objstore.Info{Key: l.inv.ManifestKey(n), Modified: o.Modified}}}); err != nil {
			return err
		}
		unreadable = append(unreadable, l.m.Unreadable...)
	}
	slices.Sort(unreadable)
	l.m.Unreadable = slices.Compact(unreadable)
	return nil
}

func (l *look) index(n uint64) int {
	return slices.IndexFunc(l.m.Kept, func(k Kept) bool { return k.Sequence == n })
}

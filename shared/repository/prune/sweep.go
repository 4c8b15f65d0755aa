package prune

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// named is what the remaining manifests need.
type named struct {
	packs map[inventory.Pack]bool
	lists map[snapshot.Hash]bool
	keys  map[string]bool // key ids
}

// sweep is the second half of phase 2: it removes what no manifest names, lists first, then packs, then keys, so that
// what is there after a crash can still be made sense of.
//
// The manifests are read after snapshots were removed and before the source is listed. A backup that commits after that
// names packs that are young, or packs of its parent; the parent was not condemned when the backup began, which is not
// longer ago than 5 days, so that it is not removed by this run.
func (p *pruner) sweep(ctx context.Context, removed map[uint64]bool) error {
	before := p.inv
	if !p.opts.DryRun {
		if err := p.load(ctx); err != nil {
			return err
		}
	}
	n, err := p.names(ctx, removed)
	if err != nil {
		return err
	}
	p.gap = p.gapUntil()
	// What arrived after the first listing is young by any clock; leaving it out saves an argument.
	for name := range p.inv.Packs {
		if _, ok := before.Packs[name]; !ok {
			n.packs[name] = true
		}
	}
	if err := p.sweepLists(ctx, n); err != nil {
		return err
	}
	chains, err := p.sweepPacks(ctx, n)
	if err != nil {
		return err
	}
	if err := p.sweepKeys(ctx, n, chains); err != nil {
		return err
	}
	if err := p.sweepLogs(ctx, removed); err != nil || !p.opts.Receipts {
		return err
	}
	if err := p.sweepReceipts(ctx); err != nil {
		return err
	}
	return p.sweepOldReceipts(ctx)
}

// names reads the lists of all remaining manifests. Packs that a manifest leaves out are named by its list all the
// same, but nothing is in them that it needs.
func (p *pruner) names(ctx context.Context, removed map[uint64]bool) (*named, error) {
	n := &named{packs: map[inventory.Pack]bool{}, lists: map[snapshot.Hash]bool{}, keys: map[string]bool{}}
	for _, m := range p.manifests {
		if removed[m.Sequence] {
			continue // only in a dry run is it still there
		}
		chain, err := layout.ParseChain(m.Chain)
		if err != nil {
			return nil, fmt.Errorf("%w: manifest %d: %w", ErrBroken, m.Sequence, err)
		}
		for _, k := range m.Keys {
			n.keys[k.Key] = true
		}
		var all []snapshot.PackInfo
		for _, l := range m.Lists {
			id, err := layout.ParseHash(l.List)
			if err != nil {
				return nil, fmt.Errorf("%w: manifest %d: %w", ErrBroken, m.Sequence, err)
			}
			n.lists[id] = true
			infos, err := p.list(ctx, m, id, l)
			if err != nil {
				return nil, err
			}
			all = append(all, infos...)
		}
		live, err := repository.LivePacks(m.Manifest, all)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		for _, info := range live {
			n.packs[inventory.Pack{Chain: chain, ID: info.ID}] = true
		}
	}
	return n, p.nameLogKeys(ctx, n)
}

// list reads one list of a manifest, once in a run.
func (p *pruner) list(ctx context.Context, m *repository.Stored, id snapshot.Hash, l snapshot.List) ([]snapshot.PackInfo, error) {
	if infos, ok := p.lists[id]; ok {
		return infos, nil
	}
	one := *m.Manifest
	one.Lists, one.Without = []snapshot.List{l}, nil
	infos, err := p.repo.Lists(ctx, &one)
	var damage *repository.DamageError
	if errors.As(err, &damage) || errors.Is(err, objstore.ErrNotExist) || errors.Is(err, snapshot.ErrFormat) {
		return nil, fmt.Errorf("%w: snapshot %d: %w", ErrBroken, m.Sequence, err)
	}
	if err != nil {
		return nil, err
	}
	p.lists[id] = infos
	return infos, nil
}

// gapUntil looks for numbers of snapshots that are neither there nor recorded as removed. Somebody took such a manifest
// away, or it was hidden; while what it names is there it can be put back, from a copy or from the store's own versions.
// All of that arrived before any later manifest did: gapUntil returns when the first one after the last gap arrived, or
// zero if there is no gap. Where the newest are missing that is the present: the newest snapshot is never removed.
func (p *pruner) gapUntil() time.Time {
	newest := uint64(0)
	for n := range p.inv.Manifests {
		newest = max(newest, n)
	}
	if max(p.opts.Seen, p.inv.Told()) > newest {
		return p.now
	}
	var known []uint64
	for _, m := range []map[uint64]inventory.Object{p.inv.Manifests, p.inv.Expired} {
		known = append(known, inventory.Sequences(m)...)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	for i := len(known) - 1; i >= 0; i-- {
		before := uint64(0)
		if i > 0 {
			before = known[i-1]
		}
		if before+1 == known[i] {
			continue
		}
		until := p.now
		for n, o := range p.inv.Manifests {
			if n >= known[i] && o.Modified.Before(until) {
				until = o.Modified
			}
		}
		return until
	}
	return time.Time{}
}

// old reports whether an object has been in the store for long enough.
func (p *pruner) old(key string, o inventory.Object) bool {
	if !p.opts.Gaps && !o.Modified.After(p.gap) {
		p.report.Kept = append(p.report.Kept, Kept{key, inGap})
		return false
	}
	if !p.passed(o.Modified, p.opts.Age) {
		p.report.Kept = append(p.report.Kept, Kept{key, tooYoung})
		return false
	}
	return true
}

// sweepAll removes objects: all of them go into the journal before the first goes.
func (p *pruner) sweepAll(ctx context.Context, all []doomed) ([]bool, error) {
	keys := make([]string, len(all))
	for i, o := range all {
		keys[i] = o.key
	}
	if err := p.journal(ctx, keys...); err != nil {
		return nil, err
	}
	return p.deleteAll(ctx, all)
}

func (p *pruner) sweepLists(ctx context.Context, n *named) error {
	var all []doomed
	for _, id := range sorted(p.inv.Lists, p.inv.ListKey) {
		key, o := p.inv.ListKey(id), p.inv.Lists[id]
		if !n.lists[id] && p.old(key, o) {
			all = append(all, doomed{key, o.Size})
		}
	}
	gone, err := p.sweepAll(ctx, all)
	p.report.Lists += count(gone)
	return err
}

func count(all []bool) int {
	n := 0
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

// sweepPacks returns the chains that still have packs.
func (p *pruner) sweepPacks(ctx context.Context, n *named) (map[snapshot.ChainID]bool, error) {
	chains := map[snapshot.ChainID]bool{}
	var names []inventory.Pack
	var all []doomed
	for _, name := range sorted(p.inv.Packs, p.inv.PackKey) {
		key, o := p.inv.PackKey(name), p.inv.Packs[name]
		if n.packs[name] || !p.old(key, o) {
			chains[name.Chain] = true
			continue
		}
		names, all = append(names, name), append(all, doomed{key, o.Size})
	}
	gone, err := p.sweepAll(ctx, all)
	p.report.Packs += count(gone)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		if !gone[i] {
			chains[name.Chain] = true
			continue
		}
		if _, damaged := p.inv.Damaged[name.ID]; damaged && !p.opts.DryRun {
			if err := p.deleteQuietly(ctx, p.inv.DamagedKey(name.ID)); err != nil {
				return nil, err
			}
		}
	}
	return chains, nil
}

// sweepReceipts removes the receipts of snapshots that were removed: nobody can do anything with them.
func (p *pruner) sweepReceipts(ctx context.Context) error {
	var all []doomed
	for _, key := range slices.Sorted(maps.Keys(p.inv.Receipts)) {
		o := p.inv.Receipts[key]
		for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
			_, level, n, err := layout.ParseReceipt(p.src, where, key)
			if err != nil || level == record.LevelKey {
				continue // a proof of a key is about the source, not about the snapshot
			}
			_, there := p.inv.Manifests[n]
			_, expired := p.inv.Expired[n]
			if !there && expired && p.passed(o.Modified, p.opts.Age) {
				all = append(all, doomed{key, o.Size})
			}
		}
	}
	gone, err := p.sweepAll(ctx, all)
	p.report.Receipts += count(gone)
	return err
}

// sweepKeys removes the key objects of chains that have neither snapshots nor packs.
func (p *pruner) sweepKeys(ctx context.Context, n *named, chains map[snapshot.ChainID]bool) error {
	for _, k := range sorted(p.inv.Keys, p.inv.KeyKey) {
		key, o := p.inv.KeyKey(k), p.inv.Keys[k]
		if n.keys[k.ID] || !p.old(key, o) {
			continue
		}
		var doc repository.KeyDocument
		if b, err := p.repo.Document(ctx, key, &doc); err != nil {
			if b == nil && !errors.Is(err, objstore.ErrNotExist) {
				return err
			}
			continue // damaged: verify names it; whose key it is, nobody knows
		}
		if chain, err := layout.ParseChain(doc.Chain); err != nil || chains[chain] {
			p.report.Kept = append(p.report.Kept, Kept{key, packsStay})
			continue
		}
		ok, err := p.delete(ctx, key, o.Size)
		if err != nil {
			return err
		}
		if ok {
			p.report.Keys++
		}
	}
	return nil
}

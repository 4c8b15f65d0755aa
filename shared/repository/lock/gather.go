package lock

import (
	"context"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Gather finds the objects of the snapshots: manifest, lists, packs in use, keys and marks; and, as number [Records], the
// records of removals. The snapshots come without what the caller knows of them: Keep, Verified, Held. What a manifest
// names and the listing does not have is left out: verification misses it. A snapshot of which a list can't be read has
// what is known of it.
func Gather(ctx context.Context, repo *repository.Repository, inv *inventory.Inventory, manifests []*repository.Stored) ([]Object, []Snapshot, error) {
	g := &gatherer{inv: inv, index: map[string]int{}, lists: map[string][]snapshot.PackInfo{}}
	for _, m := range manifests {
		s := Snapshot{Sequence: m.Sequence, Arrived: m.Arrived}
		g.add(&s, layout.ManifestKey(m.ID()), inv.Manifests[m.Sequence])
		for _, id := range inv.MarksOf(m.Sequence) {
			mark := inventory.Mark{Sequence: m.Sequence, ID: id}
			g.add(&s, inv.MarkKey(mark), inv.Marks[mark])
		}
		for k, o := range inv.Keys {
			if slices.ContainsFunc(m.Keys, func(own snapshot.Key) bool { return own.Key == k.ID }) {
				g.add(&s, inv.KeyKey(k), o)
			}
		}
		if err := g.packs(ctx, repo, m, &s); err != nil {
			return nil, nil, err
		}
		g.snaps = append(g.snaps, s)
	}
	records := Snapshot{Sequence: Records, Keep: true}
	for _, n := range inventory.Sequences(inv.Expired) {
		g.add(&records, inv.ExpiredKey(n), inv.Expired[n])
	}
	if len(records.Objects) > 0 {
		g.snaps = append(g.snaps, records)
	}
	return g.objects, g.snaps, nil
}

type gatherer struct {
	inv     *inventory.Inventory
	objects []Object
	index   map[string]int // of an object, by its key
	snaps   []Snapshot
	lists   map[string][]snapshot.PackInfo // that were read
}

// add notes an object of a snapshot; the zero object is not there.
func (g *gatherer) add(s *Snapshot, key string, o inventory.Object) {
	if o.Modified.IsZero() {
		return
	}
	i, ok := g.index[key]
	if !ok {
		i = len(g.objects)
		g.objects, g.index[key] = append(g.objects, Object{Key: key, Arrived: o.Modified}), i
	}
	s.Objects = append(s.Objects, i)
}

// packs notes the lists of a snapshot and the packs that it uses.
func (g *gatherer) packs(ctx context.Context, repo *repository.Repository, m *repository.Stored, s *Snapshot) error {
	var all []snapshot.PackInfo
	for _, l := range m.Lists {
		id, err := layout.ParseHash(l.List)
		if err != nil {
			continue
		}
		g.add(s, g.inv.ListKey(id), g.inv.Lists[id])
		infos, ok := g.lists[l.List]
		if !ok {
			one := *m.Manifest
			one.Lists, one.Without = []snapshot.List{l}, nil
			if infos, err = repo.Lists(ctx, &one); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				infos = nil // verification names it
			}
			g.lists[l.List] = infos
		}
		all = append(all, infos...)
	}
	live, err := repository.LivePacks(m.Manifest, all)
	if err != nil {
		live = all // what it contradicts is not this package's concern: rather too much than too little
	}
	chain, err := layout.ParseChain(m.Chain)
	if err != nil {
		return fmt.Errorf("lock %s: %w", m.ID(), err)
	}
	for _, p := range live {
		name := inventory.Pack{Chain: chain, ID: p.ID}
		g.add(s, g.inv.PackKey(name), g.inv.Packs[name])
	}
	return nil
}

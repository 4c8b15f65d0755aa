package lock

import (
	"cmp"
	"context"
	"slices"
	"sort"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// GatherLogs adds to what [Gather] has found the objects of the source's log: each to the newest snapshot, of those from
// base on (0: all), from which it leads on. Older snapshots that a branch of the log needs ([log.Older]) count as well, and
// get Keep. Records before that snapshot's place are needed by no moment that is to stay,
// and prune is free to remove them.
//
// Pieces of which a segment has all records are left out: the segment is what a restore reads, and a request for each of
// a day's pieces would cost as much as storing them.
func GatherLogs(ctx context.Context, repo *repository.Repository, inv *inventory.Inventory, manifests []*repository.Stored, base uint64, objects []Object, snaps []Snapshot) ([]Object, []Snapshot, error) {
	if len(inv.Logs) == 0 {
		return objects, snaps, nil
	}
	streams, err := log.FromInventory(ctx, repo, inv)
	if err != nil {
		return nil, nil, err
	}
	order := slices.Clone(manifests)
	older := map[uint64]bool{}
	if i := slices.IndexFunc(manifests, func(m *repository.Stored) bool { return m.Sequence == base }); i >= 0 {
		older = log.Older(streams, manifests, manifests[i])
	}
	slices.SortFunc(order, func(a, b *repository.Stored) int { return cmp.Compare(b.Sequence, a.Sequence) })
	taken := map[inventory.LogName]uint64{} // records from here on belong to a newer snapshot
	for _, m := range order {
		i := slices.IndexFunc(snaps, func(s Snapshot) bool { return s.Sequence == m.Sequence })
		if i < 0 || m.Log == nil || m.Sequence < base && !older[m.Sequence] {
			continue
		}
		snaps[i].Keep = snaps[i].Keep || older[m.Sequence]
		for name, from := range log.Needed(streams, []log.Place{*m.Log}) {
			e := inv.Logs[name]
			if e == nil {
				continue
			}
			until, before := taken[name]
			if before && from >= until {
				continue
			}
			taken[name] = from
			add := func(key string, o Object) {
				o.Key = key
				snaps[i].Objects = append(snaps[i].Objects, len(objects))
				objects = append(objects, o)
			}
			if !before && !e.Head.Modified.IsZero() {
				add(layout.LogKey(inv.Source, layout.LogObject{Stream: e.Stream, Epoch: e.Epoch}), Object{Arrived: e.Head.Modified})
			}
			wanted(e, from, until, before, func(o layout.LogObject, p inventory.LogPiece) {
				add(layout.LogKey(inv.Source, o), Object{Arrived: p.Arrived()})
			})
		}
	}
	return objects, snaps, nil
}

// wanted calls fn with the objects that hold records from from on, and none from until on if there is such a limit.
func wanted(e *inventory.LogEpoch, from, until uint64, limited bool, fn func(layout.LogObject, inventory.LogPiece)) {
	within := func(p inventory.LogPiece) bool { return p.Last >= from && (!limited || p.Last < until) }
	for _, s := range e.Segments {
		if within(s) {
			fn(layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: s.First, Last: s.Last, Joined: true}, s)
		}
	}
	covered := func(p inventory.LogPiece) bool {
		k := sort.Search(len(e.Segments), func(i int) bool { return e.Segments[i].First > p.First })
		return k > 0 && e.Segments[k-1].Last >= p.Last
	}
	k := sort.Search(len(e.Pieces), func(i int) bool { return e.Pieces[i].Last >= from })
	for _, p := range e.Pieces[k:] {
		if limited && p.Last >= until {
			break
		}
		if !covered(p) {
			fn(layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: p.First, Last: p.Last}, p)
		}
	}
}

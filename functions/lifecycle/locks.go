package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/retention"
)

// lockReport is what was done about locks.
type lockReport struct {
	Until    time.Time            `json:"until,omitzero"` // to which Extended were locked
	Extended int                  `json:"extended"`       // objects; in a dry run: that would be
	Left     int                  `json:"left"`           // for the next pass
	Held     int                  `json:"held"`           // objects that got a legal hold
	Released int                  `json:"released"`
	Failed   int                  `json:"failed"`
	Snapshot map[uint64]time.Time `json:"snapshots,omitempty"` // until when each is locked
}

// gathered is what the snapshots of a source are made of.
type gathered struct {
	objects []lock.Object
	snaps   []lock.Snapshot
	newest  time.Time
}

func (v *visit) gather(ctx context.Context, repo *repository.Repository, h *observe.History, decisions []retention.Decision) (*gathered, error) {
	inv, err := inventory.Take(ctx, repo.Store(), v.src)
	if err != nil {
		return nil, err
	}
	g := &gathered{newest: inv.Newest}
	if g.objects, g.snaps, err = lock.Gather(ctx, repo, inv, h.Manifests); err != nil {
		return nil, err
	}
	if g.objects, g.snaps, err = lock.GatherLogs(ctx, repo, inv, h.Manifests, v.logBase, g.objects, g.snaps); err != nil {
		return nil, err
	}
	keep := map[uint64]bool{}
	for _, d := range decisions {
		keep[d.Sequence] = d.Keep
	}
	for i := range g.snaps {
		s := &g.snaps[i]
		if s.Sequence == lock.Records {
			continue
		}
		seen := h.Verified[s.Sequence]
		s.Keep, s.Verified = s.Keep || keep[s.Sequence], seen != nil && seen.Result == record.Pass
		for _, m := range h.Marks[s.Sequence] {
			s.Held = s.Held || m.Mark == record.Hold
		}
	}
	return g, nil
}

// kept are the keys of what the snapshots need that stay.
func (g *gathered) kept() map[string]bool {
	out := map[string]bool{}
	for i := range g.snaps {
		if !g.snaps[i].Keep {
			continue
		}
		for _, o := range g.snaps[i].Objects {
			out[g.objects[o].Key] = true
		}
	}
	return out
}

// locks extends the locks of what stays and sets legal holds.
func (v *visit) locks(ctx context.Context, h *observe.History, decisions []retention.Decision) error {
	if v.rules.Mode == "" {
		return nil
	}
	g, err := v.gather(ctx, v.repo, h, decisions)
	if err != nil {
		return err
	}
	store, ok := v.repo.Store().(objstore.Locker)
	if !ok {
		return objstore.ErrNoLocks
	}
	plan := lock.New(g.objects, g.snaps, v.doc.Lock, v.rules, g.newest, v.now())
	done := lock.Done{}
	if !v.order.DryRun {
		if done, err = plan.Apply(ctx, store, v.late); err != nil && ctx.Err() == nil {
			return fmt.Errorf("extend locks: %w", err)
		}
		v.doc.Lock = plan.Next(done)
	}
	v.tellLocks(ctx, plan, done)
	return errors.Join(err, done.Err())
}

// tellLocks says until when the snapshots are locked.
func (v *visit) tellLocks(ctx context.Context, plan *lock.Plan, done lock.Done) {
	r := &lockReport{Until: plan.Until, Extended: done.Extended, Held: len(plan.Hold), Released: len(plan.Release), Failed: len(done.Failed), Snapshot: plan.UntilOf()}
	r.Left = len(plan.Extend) - done.Extended
	if v.order.DryRun {
		r.Extended, r.Left = len(plan.Extend), 0
	}
	v.report.Locks = r
	v.doc.Until, v.doc.Protected = plan.UntilOf(), nil
	v.looked = append(v.looked, "lock")
	n, until, wanted, ok := plan.Protected()
	if !ok || v.order.DryRun {
		return
	}
	v.doc.Protected = &compliance.Lock{Sequence: n, Until: until.UTC(), Wanted: wanted.UTC(), Checked: v.now().UTC()}
	if until.Before(wanted) {
		v.find(ctx, control.Finding{
			By: "lock", Key: v.src.String(), Problem: "locked for less time than it is kept", Snapshots: []uint64{n},
			Detail: fmt.Sprintf("snapshot %d is sure to be locked until %s, it should be until %s", n, until.UTC().Format(time.RFC3339), wanted.UTC().Format(time.DateOnly)),
		})
	}
}

// lockRepository extends the locks of the documents that belong to no source. One of the shards does.
func (p *pass) lockRepository(ctx context.Context) error {
	if p.rules.Mode == "" || p.order.DryRun || p.order.Shard != 0 {
		return nil
	}
	store, ok := p.repo.Store().(objstore.Locker)
	if !ok {
		return objstore.ErrNoLocks
	}
	var objects []lock.Object
	var newest time.Time
	add := func(o objstore.Info) error {
		objects = append(objects, lock.Object{Key: o.Key, Arrived: o.Modified})
		if o.Modified.After(newest) {
			newest = o.Modified
		}
		return nil
	}
	info, err := p.repo.Store().Stat(ctx, layout.RepositoryKey)
	if err != nil {
		return err
	}
	if err := errors.Join(add(info), p.repo.Store().List(ctx, layout.AccessPrefix, add)); err != nil {
		return err
	}
	all := lock.Snapshot{Sequence: lock.Records, Keep: true}
	for i := range objects {
		all.Objects = append(all.Objects, i)
	}
	plan := lock.New(objects, []lock.Snapshot{all}, p.cursor.Repository, p.rules, newest, p.now())
	done, err := plan.Apply(ctx, store, p.late)
	p.cursor.Repository = plan.Next(done)
	return errors.Join(err, done.Err())
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

const (
	// thawers is how many packs are asked for at the same time.
	thawers = 32
	// thawStop is how long before the end of the invocation no more packs are asked for.
	thawStop = 20 * time.Second
)

// coldPack is a pack that a snapshot uses, in a class that costs to read from.
type coldPack struct {
	key   string
	class recovery.ColdClass
	size  int64
	thaw  objstore.Thaw
}

func (p *coldPack) archived() bool { return p.class != recovery.Instant }

// readable reports whether the bytes of the pack can be had.
func (p *coldPack) readable(now time.Time) bool { return !p.archived() || now.Before(p.thaw.Until) }

// coldPacks finds the packs of a snapshot that are in cold classes, by one listing of its chain. Which of them a restore
// of some paths needs stands in trees that only a key opens: all count.
func coldPacks(ctx context.Context, repo *repository.Repository, m *repository.Stored) ([]coldPack, error) {
	if m == nil {
		return nil, nil
	}
	chain, err := layout.ParseChain(m.Chain)
	if err != nil {
		return nil, err
	}
	infos, err := repo.Lists(ctx, m.Manifest)
	if err != nil {
		return nil, err
	}
	needed := make(map[snapshot.Hash]struct{}, len(infos))
	for i := range infos {
		needed[infos[i].ID] = struct{}{}
	}
	src := m.ID().Source
	var out []coldPack
	each := func(o objstore.Info, t objstore.Thaw) error {
		_, id, err := layout.ParsePack(src, o.Key)
		if _, uses := needed[id]; err != nil || !uses {
			return nil //nolint:nilerr // what is no pack is not this function's concern
		}
		switch o.Class {
		case objstore.Warm:
		case objstore.Cool:
			out = append(out, coldPack{o.Key, recovery.Instant, o.Size, t})
		case objstore.Frozen:
			out = append(out, coldPack{o.Key, recovery.Flexible, o.Size, t})
		case objstore.Deep:
			out = append(out, coldPack{o.Key, recovery.Deep, o.Size, t})
		}
		return nil
	}
	prefix := layout.PackPrefix(src) + chain.String() + "/"
	err = objstore.ErrNoThaw
	if s, ok := repo.Store().(objstore.Thawer); ok {
		err = s.ListThaws(ctx, prefix, each)
	}
	if errors.Is(err, objstore.ErrNoThaw) {
		out = nil
		err = repo.Store().List(ctx, prefix, func(o objstore.Info) error { return each(o, objstore.Thaw{}) })
	}
	if err != nil {
		return nil, fmt.Errorf("list the packs of %s: %w", m.ID(), err)
	}
	return out, nil
}

// count sums packs by class, in the order of how cold they are.
func count(packs []coldPack, now time.Time) []recovery.Cold {
	var out []recovery.Cold
	for _, class := range []recovery.ColdClass{recovery.Instant, recovery.Flexible, recovery.Deep} {
		c := recovery.Cold{Class: class}
		for i := range packs {
			if p := &packs[i]; p.class == class {
				c.Objects++
				c.Bytes += p.size
				switch {
				case !p.archived():
				case p.readable(now):
					c.Thawed++
				case p.thaw.Asked:
					c.Asked++
				}
			}
		}
		if c.Objects > 0 {
			out = append(out, c)
		}
	}
	return out
}

// passing reports whether the same look may have another answer later: then nothing follows from it.
func passing(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || objstore.IsTransient(err) || errors.Is(err, objstore.ErrDenied))
}

// thaw asks for what the snapshot needs and can't be read, and reports whether all can be.
func (f *function) thaw(ctx context.Context, doc *control.Restore) (*control.Restore, bool, error) {
	p, _, err := f.cloud.Policy(ctx)
	if err != nil {
		return nil, false, err
	}
	repo, err := f.cloud.Repository(ctx, p)
	if err != nil {
		return nil, false, err
	}
	m, err := repo.Manifest(ctx, snapshot.ID{Source: doc.Request.From(), Sequence: doc.Request.Snapshot})
	var packs []coldPack
	if err == nil {
		packs, err = coldPacks(ctx, repo, m)
	}
	if passing(ctx, err) {
		return nil, false, err
	}
	if err != nil {
		// What is damaged is no reason to hold a restore back: the agent brings what there is and says what is missing.
		invoke.Log(ctx).Error("what must be thawed is not known", "restore", doc.ID, "error", err.Error())
		return doc, true, nil
	}
	state, asking := f.ask(ctx, repo.Store(), packs, doc)
	if state.Packs == 0 {
		return doc, true, nil
	}
	ready := false
	next, err := f.update(ctx, doc.ID, func(d *control.Restore) error {
		ready = d.MarkThawing(state, f.now())
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	if asking != nil && !ready {
		return next, false, fmt.Errorf("restore %s: %w", doc.ID, asking)
	}
	return next, ready, nil
}

// ask asks for each archived pack that is not there and not on its way, and prolongs copies that end soon. What it has no
// time for the next look asks for. The error is the first of a pack; the others are asked for all the same.
func (f *function) ask(ctx context.Context, store objstore.Store, packs []coldPack, doc *control.Restore) (control.RestoreThaw, error) {
	now := f.now()
	days, speed := doc.ThawDays(now), objstore.ThawStandard
	if doc.Speed() == recovery.Bulk {
		speed = objstore.ThawBulk
	}
	var mu sync.Mutex
	var t control.RestoreThaw
	var first error
	least := func(until time.Time) {
		if t.Until.IsZero() || until.Before(t.Until) {
			t.Until = until.UTC()
		}
	}
	end, bounded := ctx.Deadline()
	var g errgroup.Group
	g.SetLimit(thawers)
	for i := range packs {
		p := &packs[i]
		if !p.archived() {
			continue
		}
		mu.Lock()
		t.Packs++
		there := p.readable(now)
		if !there {
			t.Waiting++
		}
		mu.Unlock()
		late := bounded && time.Until(end) < thawStop
		if !there && p.thaw.Asked || late || there && !control.RenewThaw(p.thaw.Until, now) {
			if there {
				mu.Lock()
				least(p.thaw.Until)
				mu.Unlock()
			}
			continue
		}
		g.Go(func() error {
			err := objstore.ErrNoThaw
			if s, ok := store.(objstore.Thawer); ok {
				err = s.Thaw(ctx, p.key, days, speed)
			}
			mu.Lock()
			defer mu.Unlock()
			until := p.thaw.Until
			if err == nil {
				until = now.AddDate(0, 0, days)
			} else if first == nil {
				first = fmt.Errorf("thaw: %w", err)
			}
			if there {
				least(until)
			}
			return nil
		})
	}
	_ = g.Wait()
	if t.Waiting > 0 {
		t.Until = time.Time{}
	}
	if first != nil {
		t.Problem = first.Error()
	}
	return t, first
}

// jobsOf is the document of a host; nil: there is none.
func (f *function) jobsOf(ctx context.Context, host string) (*control.HostJobs, error) {
	doc, _, err := statestore.Read[control.HostJobs](ctx, f.state, control.JobsKey(host))
	if errors.Is(err, statestore.ErrNotExist) {
		return nil, nil
	}
	return doc, err
}

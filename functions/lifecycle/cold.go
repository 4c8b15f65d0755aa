package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/tier"
	"github.com/btcdecoded/holdfast/shared/retention"
)

// taggers is how many objects are tagged at the same time.
const taggers = 64

// coldReport is what may move to a colder storage class.
type coldReport struct {
	Chains []string `json:"chains"` // that were tagged now; in a dry run: that would be
	Packs  int      `json:"packs"`
}

// cold tags the packs of chains that may move to a colder class; a rule of the bucket moves them. A crash, or the end of
// the time, leaves some of a chain tagged: the next pass tags all of it again.
func (v *visit) cold(ctx context.Context, h *observe.History, decisions []retention.Decision) error {
	if v.env.Cold <= 0 || h.Bad != nil || v.replica() { // the replica has a class of its own
		return nil //nolint:nilerr // while not all manifests can be read, nobody knows which chains are closed; prune tells
	}
	keep := map[uint64]bool{}
	for _, d := range decisions {
		keep[d.Sequence] = d.Keep
	}
	snaps := make([]tier.Snapshot, 0, len(h.Manifests))
	there := map[string]bool{}
	for _, m := range h.Manifests {
		proven, _ := h.Verdict(m)
		snaps = append(snaps, tier.Snapshot{
			Sequence: m.Sequence, Chain: m.Chain, Arrived: m.Arrived, Keep: keep[m.Sequence], Proven: proven, Damaged: len(h.Damaged[m.Sequence]) > 0,
		})
		there[m.Chain] = true
	}
	var moved []string
	for _, chain := range v.doc.Cold {
		if there[chain] {
			moved = append(moved, chain)
		}
	}
	v.doc.Cold = moved
	r := &coldReport{Chains: tier.Plan(snaps, moved, v.env.Cold, v.now())}
	if len(r.Chains) == 0 {
		return nil
	}
	v.report.Cold = r
	for _, chain := range r.Chains {
		if v.late() {
			return nil
		}
		n, err := v.tag(ctx, chain)
		r.Packs += n
		if err != nil {
			return fmt.Errorf("tag chain %s: %w", chain, err)
		}
		if !v.order.DryRun {
			v.doc.Cold = append(v.doc.Cold, chain)
			invoke.Log(ctx).Info("chain may move to a colder class", "source", v.src.String(), "chain", chain, "packs", n)
		}
	}
	return nil
}

// tag tags the packs of a chain and counts them.
func (v *visit) tag(ctx context.Context, chain string) (int, error) {
	store, ok := v.repo.Store().(objstore.Tagger)
	if !ok {
		return 0, objstore.ErrNoTags
	}
	n := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(taggers)
	err := v.repo.Store().List(ctx, layout.PackPrefix(v.src)+chain+"/", func(o objstore.Info) error {
		n++
		if v.order.DryRun {
			return gctx.Err()
		}
		g.Go(func() error {
			err := store.Tag(gctx, o.Key, tier.Tag, tier.Cold)
			if errors.Is(err, objstore.ErrNotExist) {
				return nil // prune was faster
			}
			return err
		})
		return gctx.Err()
	})
	if terr := g.Wait(); terr != nil {
		return n, terr
	}
	return n, err
}

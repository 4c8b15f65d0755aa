package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// smallChain is how many bytes of packs a chain may have before it is begun anew for what is dead in it.
const smallChain = 64 << 20

// continueChain fills out for a snapshot that goes on with the newest one's chain; where that can't be it says why.
// Errors are of the store, which may be well again soon: that is no reason to begin a new chain.
func (p *planner) continueChain(ctx context.Context, out *plan, newest *Stored) (reason string, err error) {
	if newest == nil {
		return "there is no snapshot to build on", nil
	}
	base := newest
	if p.options.Type == snapshot.Differential && !newest.Unfinished {
		full, err := p.repo.Manifest(ctx, snapshot.ID{Source: p.options.Source, Sequence: newest.ChainStart})
		if passing(ctx, err) {
			return "", err
		}
		if err != nil {
			return fmt.Sprintf("the chain's full snapshot %d is not usable: %v", newest.ChainStart, err), nil
		}
		base = full
	}
	if reason := p.usable(ctx, base, newest); reason != "" {
		return reason, nil
	}
	if reason, err := p.readLists(ctx, out, base, newest); reason != "" || err != nil {
		return reason, err
	}
	chain, err := layout.ParseChain(newest.Chain)
	if err != nil {
		return err.Error(), nil //nolint:nilerr // it is a reason
	}
	if reason := p.chainKey(ctx, out, newest, chain); reason != "" {
		return reason, nil
	}
	keys := seal.NewKeys(out.key, seal.Context{Repository: p.repo.id, Source: p.options.Source, Chain: chain})
	out.reader = func(ctx context.Context) (*Snapshot, error) { return p.repo.Snapshot(ctx, base) }
	out.parent, err = p.parentTree(ctx, keys, base)
	if passing(ctx, err) {
		return "", err
	}
	if err != nil {
		return fmt.Sprintf("the tree of snapshot %d can not be read: %v", base.Sequence, err), nil
	}
	out.chain, out.chainStart, out.nextPack, out.newest = chain, newest.ChainStart, newest.NextPack, newest
	p.decideType(out, newest)
	return "", nil
}

// decideType says of what type a snapshot is that goes on with a chain. What an unfinished snapshot lacks comes first:
// what builds on it finishes it.
func (p *planner) decideType(out *plan, newest *Stored) {
	asked := p.options.Type
	switch {
	case newest.Unfinished && newest.Type == snapshot.Full:
		out.kind, out.reread = snapshot.Full, asked == snapshot.Full
	case asked == snapshot.Differential && !newest.Unfinished:
		out.kind = snapshot.Differential
	default:
		out.kind = snapshot.Incremental
	}
	if newest.Unfinished && out.kind != asked {
		out.why = fmt.Sprintf("it goes on where the unfinished snapshot %d ended", newest.Sequence)
	}
}

// readLists reads the pack lists that the next snapshot goes on with; a differential needs those of its full as well.
// One that is missing, damaged or wrong is a reason for a new chain, which needs none of it: verify reports the damage, and a
// run that only noticed it when it commits would fail each time.
func (p *planner) readLists(ctx context.Context, out *plan, base, newest *Stored) (reason string, err error) {
	for _, m := range []*Stored{newest, base} {
		if m == newest && out.packs != nil {
			break
		}
		packs, err := p.repo.allLists(ctx, m.Manifest)
		if err == nil {
			_, err = LivePacks(m.Manifest, slices.Clone(packs)) // they may contradict each other
		}
		var damage *DamageError
		switch {
		case errors.Is(err, objstore.ErrNotExist) || errors.Is(err, snapshot.ErrFormat) || errors.As(err, &damage):
			out.warnings = append(out.warnings, fmt.Errorf("snapshot %d can not be built on: %w; `holdfast verify` tells what is lost", m.Sequence, err))
			return fmt.Sprintf("a pack list of snapshot %d is missing or damaged", m.Sequence), nil
		case err != nil:
			return "", err
		}
		if m == newest {
			out.packs = packs
		}
	}
	return "", nil
}

// listed are the packs that the lists of the newest snapshot name; the caller may change the result.
func (p *plan) listed(ctx context.Context, repo *Repository) ([]snapshot.PackInfo, error) {
	if p.packs != nil {
		packs := p.packs
		p.packs = nil
		return packs, nil
	}
	return repo.allLists(ctx, p.newest.Manifest)
}

// usable reports why a snapshot can't be a parent. Of a differential the newest snapshot must stay as well: its pack
// lists and its numbers are gone on with.
func (p *planner) usable(ctx context.Context, base, newest *Stored) string {
	if base.Kind != p.options.Kind {
		return fmt.Sprintf("snapshot %d is of kind %s", base.Sequence, base.Kind)
	}
	// In a copy a late arrival says nothing of a clock.
	if ClockOff(base) && !(p.repo.copied && base.Arrived.After(base.Finished)) {
		return fmt.Sprintf("the clock was off when snapshot %d was made", base.Sequence)
	}
	if c := newest.Counts; c.LiveBytes > 0 && c.PackBytes >= smallChain && c.LiveBytes < c.PackBytes/2 {
		return fmt.Sprintf("of the %d bytes of the packs of snapshot %d less than half are still in use", c.PackBytes, newest.Sequence)
	}
	condemned, err := p.repo.Condemned(ctx, p.options.Source)
	if err != nil {
		return err.Error()
	}
	for _, c := range condemned {
		if c.Sequence == base.Sequence || c.Sequence == newest.Sequence {
			return fmt.Sprintf("snapshot %d is about to be removed", c.Sequence)
		}
	}
	return ""
}

// newChain makes a chain, or takes up that of an interrupted full. A run older than maxRun is not taken up: its packs
// might be pruned before it commits.
func (p *planner) newChain(ctx context.Context, out *plan) error {
	out.chainStart, out.nextPack = out.next, 1
	var pending chainState
	// A chain that was committed is never begun again: its sequence number is taken then.
	if p.state.load(pendingFile, &pending) && pending.Sequence == out.next && len(pending.Key) == len(out.key) && p.now.Sub(pending.Begun).Abs() < maxRun {
		if chain, err := layout.ParseChain(pending.Chain); err == nil && pending.Signer == p.signer() && p.sealedForAll(pending.Wrapped) {
			out.chain, out.key, out.wrapped, out.begun = chain, seal.DataKey(pending.Key), pending.Wrapped, pending.Begun
			if err := p.wrap(ctx, out, chain); err != nil || len(out.wrapped) == len(pending.Wrapped) {
				return err
			}
			// Before the key objects: wrapped once more by a service, the same key is other bytes.
			pending.Wrapped = out.wrapped
			return p.state.save(pendingFile, pending)
		}
	}
	chain, err := newChainID()
	if err != nil {
		return err
	}
	out.chain, out.key, out.wrapped = chain, seal.NewDataKey(), nil // what is there may be of a chain that can't go on
	if err := p.wrap(ctx, out, chain); err != nil {
		return err
	}
	return p.state.save(pendingFile, chainState{Chain: chain.String(), Key: out.key[:], Wrapped: out.wrapped, Signer: p.signer(), Begun: p.now, Sequence: out.next})
}

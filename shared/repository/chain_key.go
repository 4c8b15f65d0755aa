package repository

import (
	"context"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// chainKey recovers the data key of the chain that goes on: from the state directory, or with the identity.
func (p *planner) chainKey(ctx context.Context, out *plan, newest *Stored, chain snapshot.ChainID) string {
	if len(newest.Keys) == 0 {
		return fmt.Sprintf("snapshot %d names no key", newest.Sequence)
	}
	out.wrapped = p.withLater(ctx, newest.Keys[0])
	var c chainState
	if p.state.load(chainFile, &c) && c.Chain == newest.Chain && len(c.Key) == len(out.key) {
		if out.key = seal.DataKey(c.Key); out.key.ID(p.repo.id).String() == newest.Keys[0].Key {
			return p.complete(ctx, out, chain)
		}
	}
	key, err := p.repo.unwrapKey(ctx, newest.Manifest, chain)
	if err != nil {
		return "the key of the chain is neither in the state directory nor can the identity open it"
	}
	out.key = key
	return p.complete(ctx, out, chain)
}

// complete wraps the chain's key for keys of KMS that could not be reached when the chain began, and stores that. What
// fails again is said, and is no reason to begin a chain. Other recipients that have no entry are left as they are: who
// was added later is given the old keys by whoever adds them.
func (p *planner) complete(ctx context.Context, out *plan, chain snapshot.ChainID) string {
	context := seal.Context{Repository: p.repo.id, Source: p.options.Source, Chain: chain}
	keyID := out.key.ID(p.repo.id).String()
	for _, r := range p.repo.access.Recipients {
		if r.Type != keyring.TypeKMS || slices.ContainsFunc(out.wrapped, func(w snapshot.Wrapped) bool { return w.Type == r.Type && w.Recipient == r.Recipient }) {
			continue
		}
		w := snapshot.Wrapped{Type: r.Type, Recipient: r.Recipient}
		var err error
		if w.Wrapped, err = p.repo.identity.Wrap(ctx, keyring.Recipient{Type: r.Type, Recipient: r.Recipient}, out.key, context); err == nil {
			// Before the manifest that repeats it, as always. A crash leaves an object that the next run takes over.
			err = p.repo.PutDocument(ctx, layout.KeyKey(p.options.Source, keyID, RecipientID(w.Type, w.Recipient)), KeyDocument{Key: keyID, Chain: chain.String(), Wrapped: w})
		}
		if err != nil {
			out.warnings = append(out.warnings, fmt.Errorf("%w; the backup goes on without it, the next one asks again", err))
			continue
		}
		out.wrapped = append(out.wrapped, w)
	}
	return ""
}

// withLater are the entries of a chain's key with those that recipients of today got later: the next manifest repeats
// them, so that they need no key object any more. One that can't be read costs nothing but that.
func (p *planner) withLater(ctx context.Context, key snapshot.Key) []snapshot.Wrapped {
	out := slices.Clone(key.Wrapped)
	for _, r := range p.repo.access.Recipients {
		if slices.ContainsFunc(out, func(w snapshot.Wrapped) bool { return w.Type == r.Type && w.Recipient == r.Recipient }) {
			continue
		}
		var doc KeyDocument
		object := layout.KeyKey(p.options.Source, key.Key, RecipientID(r.Type, r.Recipient))
		if _, err := p.repo.Document(ctx, object, &doc); err == nil && doc.Key == key.Key && doc.Type == r.Type && doc.Recipient == r.Recipient {
			out = append(out, doc.Wrapped)
		}
	}
	return out
}

// signer is the public key that this run signs with. The key objects of an interrupted run that another one signed
// can't be put again.
func (p *planner) signer() string {
	s, ok := p.repo.identity.Signer()
	if !ok {
		return ""
	}
	return s.Public().String()
}

// sealedForAll reports whether wrapped is for exactly the recipients of today. What a service did not wrap when it was
// asked is no reason to begin anew: it is asked again.
func (p *planner) sealedForAll(wrapped []snapshot.Wrapped) bool {
	found := 0
	for _, want := range p.repo.access.Recipients {
		has := slices.ContainsFunc(wrapped, func(w snapshot.Wrapped) bool { return w.Recipient == want.Recipient && w.Type == want.Type })
		if !has && want.Type != keyring.TypeKMS {
			return false
		}
		if has {
			found++
		}
	}
	return found == len(wrapped)
}

// wrap seals the chain's key for each recipient of today that has no entry yet. A key of KMS that can't be reached must
// not cost a backup: its entry is left out, which is said, and later runs of the chain ask again. Without any entry that
// needs no service nothing is written.
func (p *planner) wrap(ctx context.Context, out *plan, chain snapshot.ChainID) error {
	recipients, stale, err := p.repo.recipientsNow(ctx)
	if err != nil {
		return err
	}
	if stale != nil {
		out.warnings = append(out.warnings, stale)
	}
	context := seal.Context{Repository: p.repo.id, Source: p.options.Source, Chain: chain}
	offline := false
	for _, r := range recipients {
		offline = offline || r.Type != keyring.TypeKMS
		if slices.ContainsFunc(out.wrapped, func(w snapshot.Wrapped) bool { return w.Type == r.Type && w.Recipient == r.Recipient }) {
			continue
		}
		b, err := p.repo.identity.Wrap(ctx, r, out.key, context)
		switch {
		case err == nil:
			out.wrapped = append(out.wrapped, snapshot.Wrapped{Type: r.Type, Recipient: r.Recipient, Wrapped: b})
		case r.Type == keyring.TypeKMS && ctx.Err() == nil:
			out.warnings = append(out.warnings, fmt.Errorf("%w; the backup goes on without it, the next one asks again", err))
		default:
			return fmt.Errorf("seal the chain's key for %s: %w", r.Recipient, err)
		}
	}
	if !offline {
		return errNoOffline
	}
	return nil
}

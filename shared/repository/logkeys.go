package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// WrapKey seals a data key for each recipient of today that has no entry in have yet, and returns all entries. A key of
// KMS that can't be reached must not cost a backup: its entry is left out, which the warnings say. Without any entry
// that needs no service it is an error.
func (r *Repository) WrapKey(ctx context.Context, key seal.DataKey, c seal.Context, have []snapshot.Wrapped) (all []snapshot.Wrapped, warnings []error, err error) {
	recipients, stale, err := r.recipientsNow(ctx)
	if err != nil {
		return have, nil, err
	}
	if stale != nil {
		warnings = append(warnings, stale)
	}
	all = have
	offline := false
	for _, rec := range recipients {
		offline = offline || rec.Type != keyring.TypeKMS
		if slices.ContainsFunc(all, func(w snapshot.Wrapped) bool { return w.Type == rec.Type && w.Recipient == rec.Recipient }) {
			continue
		}
		b, err := r.identity.Wrap(ctx, rec, key, c)
		switch {
		case err == nil:
			all = append(all, snapshot.Wrapped{Type: rec.Type, Recipient: rec.Recipient, Wrapped: b})
		case rec.Type == keyring.TypeKMS && ctx.Err() == nil:
			warnings = append(warnings, err)
		default:
			return all, warnings, fmt.Errorf("seal the data key for %s: %w", rec.Recipient, err)
		}
	}
	if !offline {
		return all, warnings, errNoOffline
	}
	return all, warnings, nil
}

// UnwrapKey recovers a data key with the repository's identity: from the entries that a manifest, or the head of an
// epoch, repeats, or else from the key objects, where later recipients are. Errors: those of [keyring.UnwrapKey].
func (r *Repository) UnwrapKey(ctx context.Context, k snapshot.Key, c seal.Context) (seal.DataKey, error) {
	key, err := keyring.UnwrapKey(ctx, r.identity, k, c)
	if err == nil || ctx.Err() != nil {
		return key, err
	}
	if later, lerr := r.keyObjects(ctx, c.Source, k.Key); lerr == nil && len(later.Wrapped) > 0 {
		if key, lerr := keyring.UnwrapKey(ctx, r.identity, later, c); lerr == nil {
			return key, nil
		}
	}
	return key, err
}

// LogHeads reads the heads of all epochs of a source's logs, without listing what is in them. Those that are missing or no
// good are left out; verify names them.
func (r *Repository) LogHeads(ctx context.Context, src snapshot.Source) ([]*record.LogHead, error) {
	streams, err := names(ctx, r.store, layout.LogPrefix(src))
	if err != nil {
		return nil, err
	}
	var out []*record.LogHead
	for _, stream := range streams {
		epochs, err := names(ctx, r.store, layout.StreamPrefix(src, stream))
		if err != nil {
			return nil, err
		}
		for _, name := range epochs {
			n, err := strconv.ParseUint(name, 10, 64)
			if err != nil {
				continue
			}
			h := new(record.LogHead)
			_, err = r.Document(ctx, layout.LogKey(src, layout.LogObject{Stream: stream, Epoch: n}), h)
			switch {
			case ctx.Err() != nil, objstore.IsTransient(err), errors.Is(err, objstore.ErrDenied):
				return nil, errors.Join(ctx.Err(), err)
			case err == nil && h.Check(src, stream, n) == nil:
				out = append(out, h)
			}
		}
	}
	return out, nil
}

package log

import (
	"context"
	"errors"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

// Proven reads a segment, and the piece of its last record, and reports whether the segment has exactly the records of
// the pieces: each record has the hash of the one before it, so that equal last records prove all. It is false where
// either can't be read or opened, or the piece is gone. Errors are the store's and the context's.
func (r *Reader) Proven(ctx context.Context, e *Epoch, segment inventory.LogPiece) (bool, error) {
	keys, err := r.Keys(ctx, e)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, keyring.ErrNoIdentity), err != nil:
		return false, nil //nolint:nilerr // without the key nothing is proven
	}
	last, ok := e.piece(segment.Last)
	if !ok {
		return false, nil
	}
	o := layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: segment.First, Last: segment.Last, Joined: true}
	var both [2]*loaded
	for i, at := range []layout.LogObject{o, last} {
		both[i], err = load(ctx, r.repo, r.src, keys, at)
		var damage *repository.DamageError
		if errors.As(err, &damage) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return both[0].last() == both[1].last(), nil
}

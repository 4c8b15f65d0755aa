package objstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// ProbePrefix is where [Probe] puts its object. Nothing else is kept there.
const ProbePrefix = "probe/"

// ErrOverwrites says that a store replaces objects which Put must leave alone.
var ErrOverwrites = errors.New("the store overwrites objects instead of refusing to (it does not honour conditional writes)")

// Probe proves that s writes only what is absent, with two different objects under one key. Servers that pass over the
// condition of a Put answer with success: two hosts that commit at the same moment would lose one of their snapshots, and
// whoever has credentials to add could replace what is there. A new repository asks once, before its first object.
//
// The object is removed again; where the credentials may not delete, or it is locked, its few bytes stay.
// Errors: ErrOverwrites, those of Put.
func Probe(ctx context.Context, s Store) error {
	key := ProbePrefix + rand.Text()
	if err := s.Put(ctx, key, Bytes([]byte("first"))); err != nil {
		return fmt.Errorf("probe the store: %w", err)
	}
	err := s.Put(ctx, key, Bytes([]byte("other")))
	_ = s.Delete(ctx, key) // nothing depends on it
	switch {
	case errors.Is(err, ErrExist):
		return nil
	case err == nil:
		return fmt.Errorf("probe the store: %w", ErrOverwrites)
	}
	return fmt.Errorf("probe the store: %w", err)
}

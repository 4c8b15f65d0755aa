package limit

import (
	"context"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Thaw implements [objstore.Thawer].
func (s *Store) Thaw(ctx context.Context, key string, days int, speed objstore.ThawSpeed) error {
	below, ok := s.store.(objstore.Thawer)
	if !ok {
		return objstore.ErrNoThaw
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return below.Thaw(ctx, key, days, speed)
}

// ListThaws implements [objstore.Thawer]. Like List it takes no slot: fn may call the store.
func (s *Store) ListThaws(ctx context.Context, prefix string, fn func(objstore.Info, objstore.Thaw) error) error {
	below, ok := s.store.(objstore.Thawer)
	if !ok {
		return objstore.ErrNoThaw
	}
	return below.ListThaws(ctx, prefix, fn)
}

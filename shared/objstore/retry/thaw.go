package retry

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
	return s.do(ctx, "thaw", key, func() error { return below.Thaw(ctx, key, days, speed) })
}

// ListThaws implements [objstore.Thawer].
func (s *Store) ListThaws(ctx context.Context, prefix string, fn func(objstore.Info, objstore.Thaw) error) error {
	below, ok := s.store.(objstore.Thawer)
	if !ok {
		return objstore.ErrNoThaw
	}
	var thaw objstore.Thaw // of the object that is given out next; fn is called from one goroutine
	return s.list(ctx, prefix, func(ctx context.Context, prefix string, each func(objstore.Info) error) error {
		return below.ListThaws(ctx, prefix, func(i objstore.Info, t objstore.Thaw) error {
			thaw = t
			return each(i)
		})
	}, func(i objstore.Info) error { return fn(i, thaw) })
}

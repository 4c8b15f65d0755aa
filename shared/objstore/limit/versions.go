package limit

import (
	"context"
	"io"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// ListVersions implements [objstore.Versioned].
func (s *Store) ListVersions(ctx context.Context, prefix string, fn func(objstore.Version) error) error {
	below, err := objstore.VersionedOf(s.store)
	if err != nil {
		return err
	}
	return below.ListVersions(ctx, prefix, fn)
}

// GetVersion implements [objstore.Versioned].
func (s *Store) GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error) {
	below, err := objstore.VersionedOf(s.store)
	if err != nil {
		return nil, err
	}
	one := &Store{store: objstore.OneVersion(s.store, below, id), down: s.down, slots: s.slots}
	return one.Get(ctx, key, offset, length)
}

// DeleteVersion implements [objstore.Versioned].
func (s *Store) DeleteVersion(ctx context.Context, key, id string) error {
	return s.inSlot(ctx, func(below objstore.Versioned) error { return below.DeleteVersion(ctx, key, id) })
}

// Hide implements [objstore.Versioned].
func (s *Store) Hide(ctx context.Context, key string) error {
	return s.inSlot(ctx, func(below objstore.Versioned) error { return below.Hide(ctx, key) })
}

// PutVersion implements [objstore.Versioned].
func (s *Store) PutVersion(ctx context.Context, key string, c objstore.Content) error {
	return s.inSlot(ctx, func(below objstore.Versioned) error {
		if s.up != nil && c.ReaderAt != nil {
			c.ReaderAt = &metered{ReaderAt: c.ReaderAt, ctx: ctx, rate: s.up}
		}
		return below.PutVersion(ctx, key, c)
	})
}

func (s *Store) inSlot(ctx context.Context, fn func(objstore.Versioned) error) error {
	below, err := objstore.VersionedOf(s.store)
	if err != nil {
		return err
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return fn(below)
}

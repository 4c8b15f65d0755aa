package retry

import (
	"context"
	"io"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// ListVersions implements [objstore.Versioned]. After trouble it goes on behind the last key of which all versions were
// given out.
func (s *Store) ListVersions(ctx context.Context, prefix string, fn func(objstore.Version) error) error {
	below, err := objstore.VersionedOf(s.store)
	if err != nil {
		return err
	}
	a := s.begin("list", prefix)
	done, given := "", false
	var failed error // fn's own, which is never retried
	var group []objstore.Version
	flush := func() error {
		for _, v := range group {
			done, given = v.Key, true
			if failed = fn(v); failed != nil {
				return failed
			}
		}
		group = group[:0]
		return nil
	}
	for {
		group = group[:0]
		err := below.ListVersions(ctx, prefix, func(v objstore.Version) error {
			if given && v.Key <= done {
				return nil
			}
			if len(group) > 0 && group[0].Key != v.Key {
				a.progress()
				if err := flush(); err != nil {
					return err
				}
			}
			group = append(group, v)
			return nil
		})
		if failed != nil {
			return failed
		}
		if err == nil {
			return flush()
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}

// GetVersion implements [objstore.Versioned].
func (s *Store) GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error) {
	below, err := objstore.VersionedOf(s.store)
	if err != nil {
		return nil, err
	}
	one := &Store{store: objstore.OneVersion(s.store, below, id), options: s.options}
	return one.Get(ctx, key, offset, length)
}

// DeleteVersion implements [objstore.Versioned].
func (s *Store) DeleteVersion(ctx context.Context, key, id string) error {
	below, err := objstore.VersionedOf(s.store)
	if err != nil {
		return err
	}
	return s.do(ctx, "delete", key, func() error { return below.DeleteVersion(ctx, key, id) })
}

// PutVersion implements [objstore.Versioned]. A retry may leave the same version twice.
func (s *Store) PutVersion(ctx context.Context, key string, c objstore.Content) error {
	below, err := objstore.VersionedOf(s.store)
	if err != nil {
		return err
	}
	return s.put(ctx, key, c, func() error { return below.PutVersion(ctx, key, c) })
}

// Hide implements [objstore.Versioned]. A retry may leave two markers, which hide no more than one.
func (s *Store) Hide(ctx context.Context, key string) error {
	below, err := objstore.VersionedOf(s.store)
	if err != nil {
		return err
	}
	return s.do(ctx, "hide", key, func() error { return below.Hide(ctx, key) })
}

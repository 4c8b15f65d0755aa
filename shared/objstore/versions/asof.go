// Package versions reads a store that keeps versions as it was at an earlier time. Use [AsOf].
package versions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// ErrReadOnly says that the past can not be written to.
var ErrReadOnly = errors.New("the store is read as it was at an earlier time: nothing can be written")

// Store is another store as it was at one time. It implements [objstore.Store] and refuses to write.
type Store struct {
	past objstore.Versioned
	at   time.Time

	mu    sync.Mutex
	found map[string]objstore.Version // what was current then, or a marker if nothing was; guarded by mu
}

// AsOf returns store as it was at a time, by the store's clock: for each key the version that was current then. Delete
// markers and versions that came later do not matter. What was removed for good since, with its versions, as prune and
// repair do, is missing.
//
// Keys that were read or listed are remembered, about 200 bytes for each.
//
// Errors: objstore.ErrNoVersions, here or when the store is first read.
func AsOf(store objstore.Store, at time.Time) (*Store, error) {
	past, ok := store.(objstore.Versioned)
	if !ok {
		return nil, fmt.Errorf("read the repository as of %s: %w", at.UTC().Format(time.RFC3339), objstore.ErrNoVersions)
	}
	return &Store{past: past, at: at, found: map[string]objstore.Version{}}, nil
}

// each calls fn with what was current then under each key below prefix.
func (s *Store) each(ctx context.Context, prefix string, fn func(objstore.Version) error) error {
	var last string
	chosen := false // of the key last
	choose := func(v objstore.Version) error {
		if v.Key != last {
			last, chosen = v.Key, false
		}
		if chosen || v.Modified.After(s.at) {
			return nil
		}
		chosen = true
		s.mu.Lock()
		s.found[v.Key] = v
		s.mu.Unlock()
		return fn(v)
	}
	return s.past.ListVersions(ctx, prefix, choose)
}

// errFound ends a listing early.
var errFound = errors.New("found")

// find returns the version of key that was current then.
func (s *Store) find(ctx context.Context, op, key string) (objstore.Version, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Version{}, err
	}
	s.mu.Lock()
	v, ok := s.found[key]
	s.mu.Unlock()
	if !ok {
		// The key itself sorts before all others that it begins.
		err := s.past.ListVersions(ctx, key, func(o objstore.Version) error {
			switch {
			case o.Key != key:
				return errFound
			case o.Modified.After(s.at):
				return nil
			}
			v, ok = o, true
			return errFound
		})
		if err != nil && !errors.Is(err, errFound) {
			return v, err
		}
	}
	if !ok {
		v = objstore.Version{Key: key, DeleteMarker: true}
	}
	s.mu.Lock()
	s.found[key] = v
	s.mu.Unlock()
	if v.DeleteMarker {
		return v, fmt.Errorf("%s %s: %w as of %s", op, key, objstore.ErrNotExist, s.at.UTC().Format(time.RFC3339))
	}
	return v, nil
}

func info(v objstore.Version) objstore.Info {
	return objstore.Info{Key: v.Key, Size: v.Size, Modified: v.Modified}
}

// Get implements [objstore.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := objstore.CheckGet(key, offset); err != nil {
		return nil, err
	}
	v, err := s.find(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	return s.past.GetVersion(ctx, key, v.ID, offset, length)
}

// Stat implements [objstore.Store]. It knows no checksum.
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	v, err := s.find(ctx, "stat", key)
	if err != nil {
		return objstore.Info{}, err
	}
	return info(v), nil
}

// List implements [objstore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return err
	}
	return s.each(ctx, prefix, func(v objstore.Version) error {
		if v.DeleteMarker {
			return nil
		}
		return fn(info(v))
	})
}

// Put implements [objstore.Store]: it refuses.
func (*Store) Put(_ context.Context, key string, _ objstore.Content) error {
	return fmt.Errorf("put %s: %w", key, ErrReadOnly)
}

// Delete implements [objstore.Store]: it refuses.
func (*Store) Delete(_ context.Context, key string) error {
	return fmt.Errorf("delete %s: %w", key, ErrReadOnly)
}

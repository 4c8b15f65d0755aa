// Package overlay is a store with some documents over it, as if they had been put. Nothing can be written to it.
package overlay

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Store is a store, or none, with documents over it.
type Store struct {
	Under     objstore.Store // nil: only the documents
	Documents map[string][]byte
}

var _ objstore.Store = Store{}

// Get implements [objstore.Store].
func (s Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b, ok := s.Documents[key]
	if !ok && s.Under != nil {
		return s.Under.Get(ctx, key, offset, length)
	}
	if !ok {
		return nil, objstore.ErrNotExist
	}
	b = b[min(offset, int64(len(b))):]
	if length >= 0 {
		b = b[:min(length, int64(len(b)))]
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Stat implements [objstore.Store].
func (s Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	b, ok := s.Documents[key]
	switch {
	case ok:
		return objstore.Info{Key: key, Size: int64(len(b))}, nil
	case s.Under != nil:
		return s.Under.Stat(ctx, key)
	}
	return objstore.Info{}, objstore.ErrNotExist
}

// List implements [objstore.Store].
func (s Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	var waiting []string
	for _, key := range slices.Sorted(maps.Keys(s.Documents)) {
		if strings.HasPrefix(key, prefix) {
			waiting = append(waiting, key)
		}
	}
	give := func(before string) error {
		for len(waiting) > 0 && (before == "" || waiting[0] < before) {
			key := waiting[0]
			waiting = waiting[1:]
			if err := fn(objstore.Info{Key: key, Size: int64(len(s.Documents[key]))}); err != nil {
				return err
			}
		}
		return nil
	}
	if s.Under != nil {
		err := s.Under.List(ctx, prefix, func(i objstore.Info) error {
			if err := give(i.Key); err != nil {
				return err
			}
			if _, ok := s.Documents[i.Key]; ok {
				return nil // given with the others
			}
			return fn(i)
		})
		if err != nil {
			return err
		}
	}
	return give("")
}

// Put implements [objstore.Store]: it is denied.
func (Store) Put(context.Context, string, objstore.Content) error { return objstore.ErrDenied }

// Delete implements [objstore.Store]: it is denied.
func (Store) Delete(context.Context, string) error { return objstore.ErrDenied }

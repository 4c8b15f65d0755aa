package repair

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// view is a store, or none, with some documents over it, as if they had been put. It can only be read.
type view struct {
	objstore.Store // nil: only the documents
	docs           map[string][]byte
}

// Get implements [objstore.Store].
func (v view) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b, ok := v.docs[key]
	if !ok && v.Store != nil {
		return v.Store.Get(ctx, key, offset, length)
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
func (v view) Stat(ctx context.Context, key string) (objstore.Info, error) {
	b, ok := v.docs[key]
	switch {
	case ok:
		return objstore.Info{Key: key, Size: int64(len(b))}, nil
	case v.Store != nil:
		return v.Store.Stat(ctx, key)
	}
	return objstore.Info{}, objstore.ErrNotExist
}

// List implements [objstore.Store].
func (v view) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	var waiting []string
	for _, key := range slices.Sorted(maps.Keys(v.docs)) {
		if strings.HasPrefix(key, prefix) {
			waiting = append(waiting, key)
		}
	}
	give := func(before string) error {
		for len(waiting) > 0 && (before == "" || waiting[0] < before) {
			key := waiting[0]
			waiting = waiting[1:]
			if err := fn(objstore.Info{Key: key, Size: int64(len(v.docs[key]))}); err != nil {
				return err
			}
		}
		return nil
	}
	if v.Store != nil {
		err := v.Store.List(ctx, prefix, func(i objstore.Info) error {
			if err := give(i.Key); err != nil {
				return err
			}
			if _, ok := v.docs[i.Key]; ok {
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

// Put implements [objstore.Store].
func (view) Put(context.Context, string, objstore.Content) error { return errReadOnly }

// Delete implements [objstore.Store].
func (view) Delete(context.Context, string) error { return errReadOnly }

package copier

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// documents is a store with a few documents that have been read already. Nothing can be written to it.
type documents map[string][]byte

// Get implements [objstore.Store].
func (d documents) Get(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b, ok := d[key]
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
func (d documents) Stat(_ context.Context, key string) (objstore.Info, error) {
	b, ok := d[key]
	if !ok {
		return objstore.Info{}, objstore.ErrNotExist
	}
	return objstore.Info{Key: key, Size: int64(len(b))}, nil
}

// List implements [objstore.Store].
func (d documents) List(_ context.Context, prefix string, fn func(objstore.Info) error) error {
	for _, key := range slices.Sorted(maps.Keys(d)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if err := fn(objstore.Info{Key: key, Size: int64(len(d[key]))}); err != nil {
			return err
		}
	}
	return nil
}

// Put implements [objstore.Store].
func (documents) Put(context.Context, string, objstore.Content) error { return objstore.ErrDenied }

// Delete implements [objstore.Store].
func (documents) Delete(context.Context, string) error { return objstore.ErrDenied }

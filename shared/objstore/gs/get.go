package gs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"

	raw "google.golang.org/api/storage/v1"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Get implements [objstore.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := objstore.CheckGet(key, offset); err != nil {
		return nil, err
	}
	if length == 0 {
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return http.NoBody, nil
	}
	return s.download(ctx, key, s.raw.Get(s.name, s.prefix+key), offset, length)
}

// download reads length bytes, or all if that is negative, of what call names.
func (s *Store) download(ctx context.Context, key string, call *raw.ObjectsGetCall, offset, length int64) (io.ReadCloser, error) {
	call.Context(ctx)
	switch {
	case length > 0 && length <= math.MaxInt64-offset:
		call.Header().Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		call.Header().Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	r, err := call.Download() //nolint:bodyclose // it is handed out
	switch {
	case err == nil:
		if err := objstore.CheckRange(r.Header.Get("Content-Range"), offset); err != nil {
			_ = r.Body.Close()
			return nil, s.wrap(ctx, "get", key, err)
		}
		return &body{ReadCloser: r.Body, ctx: ctx, store: s, key: key}, nil
	case status(err) == http.StatusRequestedRangeNotSatisfiable:
		return http.NoBody, nil // it begins past the end
	case status(err) == http.StatusNotFound:
		err = fmt.Errorf("%w: %w", objstore.ErrNotExist, err)
	}
	return nil, s.wrap(ctx, "get", key, err)
}

type body struct {
	io.ReadCloser
	ctx   context.Context
	store *Store
	key   string
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil { // what has arrived already could go on for a while
		return 0, b.store.wrap(b.ctx, "read", b.key, err)
	}
	n, err := b.ReadCloser.Read(p)
	if err == nil || err == io.EOF { //nolint:errorlint // io.Reader promises EOF itself
		return n, err
	}
	if b.ctx.Err() == nil {
		err = objstore.Transient(err) // the connection broke: the rest can be asked for again
	}
	return n, b.store.wrap(b.ctx, "read", b.key, err)
}

// Stat implements [objstore.Store].
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	o, err := s.raw.Get(s.name, s.prefix+key).Context(ctx).Do()
	if status(err) == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", objstore.ErrNotExist, err)
	}
	if err != nil {
		return objstore.Info{}, s.wrap(ctx, "stat", key, err)
	}
	return info(key, o), nil
}

// List implements [objstore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return err
	}
	return s.each(ctx, prefix, s.raw.List(s.name).Prefix(s.prefix+prefix), func(page *raw.Objects) error {
		for _, o := range page.Items {
			key, ok := s.key(o.Name)
			if !ok {
				continue
			}
			if err := fn(info(key, o)); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

// each calls fn for each page of the answer, and returns its error as it is.
func (s *Store) each(ctx context.Context, prefix string, call *raw.ObjectsListCall, fn func(*raw.Objects) error) error {
	for {
		page, err := call.Context(ctx).Do()
		if err != nil {
			return s.wrap(ctx, "list", prefix, err)
		}
		if err := fn(page); err != nil {
			return err
		}
		if page.NextPageToken == "" {
			return ctx.Err()
		}
		call.PageToken(page.NextPageToken)
	}
}

// Prefixes implements [objstore.Lister].
func (s *Store) Prefixes(ctx context.Context, prefix string, fn func(name string) error) error {
	if err := objstore.CheckLevel(prefix); err != nil {
		return err
	}
	var names []string
	call := s.raw.List(s.name).Prefix(s.prefix + prefix).Delimiter("/")
	err := s.each(ctx, prefix, call, func(page *raw.Objects) error {
		for _, p := range page.Prefixes {
			name := strings.TrimSuffix(strings.TrimPrefix(p, s.prefix+prefix), "/")
			// With a key below it, it would be checked as a key.
			if objstore.CheckKey(prefix+name+"/x") == nil {
				names = append(names, name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return objstore.EachName(names, fn)
}

// Delete implements [objstore.Store]. In a bucket with versions each generation goes. (What a bucket's soft delete
// policy keeps for some days is out of reach.)
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	all, err := s.generations(ctx, key)
	if err != nil {
		return err
	}
	// Oldest first: if we stop between two, what is current stays current, and an older one never comes back to light.
	for _, o := range all {
		err := s.raw.Delete(s.name, s.prefix+key).Generation(o.Generation).Context(ctx).Do()
		if err != nil && status(err) != http.StatusNotFound {
			return s.wrap(ctx, "delete", key, err)
		}
	}
	return nil
}

var errEnough = errors.New("enough")

func ignoreEnough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

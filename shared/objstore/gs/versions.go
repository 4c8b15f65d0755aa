package gs

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	raw "google.golang.org/api/storage/v1"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Google Cloud Storage keeps versions as generations, of which at most one is live, and knows no delete markers: a
// generation that is not live has the time when it was replaced or deleted. From these times ListVersions tells where
// there was no object, and shows a marker for each such stretch. Sources:
// https://cloud.google.com/storage/docs/object-versioning and the reference of the JSON API's Objects.
//
// Two things are different from S3, therefore. Where the live generation is removed, no other takes its place by itself:
// DeleteVersion makes the newest one that is left live, whether there was a stretch without an object before it or not.
// And it does so by a copy within the store, which arrives anew: its time is that of the copy.

// markerID begins the id of a stretch without an object; the generation follows that was deleted.
const markerID = "deleted-"

// ListVersions implements [objstore.Versioned].
func (s *Store) ListVersions(ctx context.Context, prefix string, fn func(objstore.Version) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return err
	}
	if err := s.versioning(ctx, "list versions of", prefix, true); err != nil {
		return err
	}
	var group []*raw.Object // the generations of one key: more may come with the next page
	flush := func() error {
		all := group
		group = nil
		for _, v := range s.history(all) {
			if err := ctx.Err(); err != nil {
				return s.wrap(ctx, "list versions of", prefix, err)
			}
			if err := fn(v); err != nil {
				return err
			}
		}
		return nil
	}
	call := s.raw.List(s.name).Prefix(s.prefix + prefix).Versions(true)
	err := s.each(ctx, prefix, call, func(page *raw.Objects) error {
		for _, o := range page.Items {
			if len(group) > 0 && group[0].Name != o.Name {
				if err := flush(); err != nil {
					return err
				}
			}
			group = append(group, o)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// history makes versions, newest first, of the generations of one object.
func (s *Store) history(generations []*raw.Object) []objstore.Version {
	if len(generations) == 0 {
		return nil
	}
	key, ok := s.key(generations[0].Name)
	if !ok {
		return nil
	}
	slices.SortFunc(generations, byGeneration)
	var out []objstore.Version
	for i, o := range generations {
		about := info(key, o)
		out = append(out, objstore.Version{
			Key: key, ID: strconv.FormatInt(o.Generation, 10), Size: about.Size, Modified: about.Modified,
		})
		deleted, err := time.Parse(time.RFC3339Nano, o.TimeDeleted)
		if err != nil {
			continue // it is live
		}
		if i+1 == len(generations) || deleted.Before(info(key, generations[i+1]).Modified) {
			out = append(out, objstore.Version{
				Key: key, ID: markerID + strconv.FormatInt(o.Generation, 10), Modified: deleted, DeleteMarker: true,
			})
		}
	}
	out[len(out)-1].Current = true
	slices.Reverse(out)
	return out
}

func byGeneration(a, b *raw.Object) int { return cmp.Compare(a.Generation, b.Generation) }

// versioning is nil if the bucket keeps versions. Where that may not be asked, listings are left to tell (orUnknown), and
// what would be lost in a bucket without versions is refused.
func (s *Store) versioning(ctx context.Context, op, key string, orUnknown bool) error {
	b, err := s.buckets.Get(s.name).Fields("versioning").Context(ctx).Do()
	switch {
	case ctx.Err() != nil:
		return s.wrap(ctx, op, key, ctx.Err())
	case err != nil && orUnknown:
		return nil //nolint:nilerr // the listing itself tells, or fails with the better error
	case err == nil && b.Versioning != nil && b.Versioning.Enabled:
		return nil
	case err != nil:
		return s.wrap(ctx, op, key, fmt.Errorf("%w, as far as may be asked: %w", objstore.ErrNoVersions, err))
	}
	return s.wrap(ctx, op, key, objstore.ErrNoVersions)
}

// GetVersion implements [objstore.Versioned].
func (s *Store) GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error) {
	if err := objstore.CheckGet(key, offset); err != nil {
		return nil, err
	}
	generation, err := strconv.ParseInt(id, 10, 64)
	if err != nil || generation <= 0 {
		return nil, s.wrap(ctx, "get a version of", key, objstore.ErrNotExist)
	}
	if length == 0 {
		if _, err := s.raw.Get(s.name, s.prefix+key).Generation(generation).Context(ctx).Do(); err != nil {
			return nil, s.wrap(ctx, "get a version of", key, absent(err))
		}
		return http.NoBody, nil
	}
	return s.download(ctx, key, s.raw.Get(s.name, s.prefix+key).Generation(generation), offset, length)
}

// absent gives the answer "not found" its meaning.
func absent(err error) error {
	if status(err) == http.StatusNotFound {
		return fmt.Errorf("%w: %w", objstore.ErrNotExist, err)
	}
	return err
}

// generations lists those of one key, ascending.
func (s *Store) generations(ctx context.Context, key string) ([]*raw.Object, error) {
	var all []*raw.Object
	call := s.raw.List(s.name).Prefix(s.prefix + key).Versions(true)
	err := s.each(ctx, key, call, func(page *raw.Objects) error {
		for _, o := range page.Items {
			switch {
			case o.Name == s.prefix+key:
				all = append(all, o)
			case o.Name > s.prefix+key:
				return errEnough // the key itself sorts before all longer ones that it begins
			}
		}
		return nil
	})
	slices.SortFunc(all, byGeneration)
	return all, ignoreEnough(err)
}

// DeleteVersion implements [objstore.Versioned].
//
// A live generation is removed in two steps: 1. the newest of the others is copied over it, if it is live still; 2. it is
// deleted. After a crash between them it is one of the older ones, and the next try deletes it.
func (s *Store) DeleteVersion(ctx context.Context, key, id string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	all, err := s.generations(ctx, key)
	if err != nil {
		return err
	}
	live := func(o *raw.Object) bool { return o.TimeDeleted == "" }
	if strings.HasPrefix(id, markerID) {
		if len(all) == 0 || slices.ContainsFunc(all, live) {
			return nil // the stretch is over
		}
		return s.revive(ctx, key, all[len(all)-1], 0)
	}
	i := slices.IndexFunc(all, func(o *raw.Object) bool { return strconv.FormatInt(o.Generation, 10) == id })
	if i < 0 {
		return nil
	}
	generation := all[i].Generation
	if others := slices.Delete(slices.Clone(all), i, i+1); live(all[i]) && len(others) > 0 {
		if err := s.revive(ctx, key, others[len(others)-1], generation); err != nil {
			return err
		}
	}
	if err := s.raw.Delete(s.name, s.prefix+key).Generation(generation).Context(ctx).Do(); err != nil && status(err) != http.StatusNotFound {
		return s.wrap(ctx, "delete a version of", key, err)
	}
	return nil
}

// revive makes a generation live again by a copy over the one that is live now; 0: none may be.
func (s *Store) revive(ctx context.Context, key string, old *raw.Object, over int64) error {
	at := s.prefix + key
	for token := ""; ; {
		call := s.raw.Rewrite(s.name, at, s.name, at, &raw.Object{ContentType: old.ContentType}).
			SourceGeneration(old.Generation).IfGenerationMatch(over).Context(ctx)
		if token != "" {
			call.RewriteToken(token)
		}
		r, err := call.Do()
		switch {
		case status(err) == http.StatusPreconditionFailed:
			return s.wrap(ctx, "restore a version of", key, objstore.Transient(fmt.Errorf("somebody else is at work on it: %w", err)))
		case err != nil:
			return s.wrap(ctx, "restore a version of", key, err)
		case r.Done:
			return nil
		}
		token = r.RewriteToken
	}
}

// PutVersion implements [objstore.Versioned]: Put without the condition.
func (s *Store) PutVersion(ctx context.Context, key string, c objstore.Content) error {
	if err := objstore.CheckPut(key, c); err != nil {
		return err
	}
	sum, err := measure(ctx, c)
	if err != nil {
		return fmt.Errorf("put a version of %s: %w", key, err)
	}
	if err := s.versioning(ctx, "put a version of", key, false); err != nil {
		return err
	}
	if err := s.send(s.insert(ctx, key, sum), c); err != nil {
		return s.wrap(ctx, "put a version of", key, err)
	}
	return nil
}

// Hide implements [objstore.Versioned].
func (s *Store) Hide(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	if err := s.versioning(ctx, "hide", key, false); err != nil {
		return err // a delete would be one for good
	}
	if err := s.raw.Delete(s.name, s.prefix+key).Context(ctx).Do(); err != nil && status(err) != http.StatusNotFound {
		return s.wrap(ctx, "hide", key, err)
	}
	return nil
}

package granted

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// All is a store with everything that functions ask of one.
type All interface {
	objstore.Store
	objstore.Lister
	objstore.Versioned
	objstore.Locker
	objstore.Tagger
	objstore.Thawer
}

// Store is the repository of the role's own region.
func (r *Role) Store(inner All) objstore.Store { return &store{inner, r, r.here.Bucket} }

// First is the repository of the first region, for roles of the second.
func (r *Role) First(inner All) objstore.Store { return &store{inner, r, r.first.Bucket} }

// store asks before each request. What a request of the driver needs: "Actions, resources, and condition keys for Amazon
// S3" of the Service Authorization Reference, and of HeadObject the API reference.
type store struct {
	All
	role   *Role
	bucket string
}

func (s *store) may(ctx context.Context, action, key string, conditions map[string][]string) error {
	if !s.role.allowed(ctx, "s3:"+action, s.bucket, key, conditions) {
		return fmt.Errorf("%s %s: %w", action, key, objstore.ErrDenied)
	}
	return nil
}

func (s *store) list(ctx context.Context, action, prefix string) error {
	return s.may(ctx, action, "", map[string][]string{"s3:prefix": {prefix}})
}

func (s *store) Put(ctx context.Context, key string, c objstore.Content) error {
	err := s.may(ctx, "PutObject", key, map[string][]string{"s3:if-none-match": {"*"}, "s3:ObjectCreationOperation": {"true"}})
	if err != nil {
		return err
	}
	return s.All.Put(ctx, key, c)
}

func (s *store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.may(ctx, "GetObject", key, nil); err != nil {
		return nil, err
	}
	return s.All.Get(ctx, key, offset, length)
}

func (s *store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := s.may(ctx, "GetObject", key, nil); err != nil {
		return objstore.Info{}, err
	}
	return s.All.Stat(ctx, key)
}

func (s *store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	if err := s.list(ctx, "ListBucket", prefix); err != nil {
		return err
	}
	return s.All.List(ctx, prefix, fn)
}

func (s *store) Prefixes(ctx context.Context, prefix string, fn func(string) error) error {
	if err := s.list(ctx, "ListBucket", prefix); err != nil {
		return err
	}
	return s.All.Prefixes(ctx, prefix, fn)
}

func (s *store) ListThaws(ctx context.Context, prefix string, fn func(objstore.Info, objstore.Thaw) error) error {
	if err := s.list(ctx, "ListBucket", prefix); err != nil {
		return err
	}
	return s.All.ListThaws(ctx, prefix, fn)
}

// Delete looks for the versions of the object, and deletes each.
func (s *store) Delete(ctx context.Context, key string) error {
	if err := s.list(ctx, "ListBucketVersions", key); err != nil {
		return err
	}
	if err := s.may(ctx, "DeleteObjectVersion", key, nil); err != nil {
		return err
	}
	return s.All.Delete(ctx, key)
}

func (s *store) ListVersions(ctx context.Context, prefix string, fn func(objstore.Version) error) error {
	if err := s.may(ctx, "GetBucketVersioning", "", nil); err != nil {
		return err
	}
	if err := s.list(ctx, "ListBucketVersions", prefix); err != nil {
		return err
	}
	return s.All.ListVersions(ctx, prefix, fn)
}

func (s *store) GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error) {
	if err := s.may(ctx, "GetObjectVersion", key, nil); err != nil {
		return nil, err
	}
	return s.All.GetVersion(ctx, key, id, offset, length)
}

func (s *store) DeleteVersion(ctx context.Context, key, id string) error {
	if err := s.may(ctx, "DeleteObjectVersion", key, nil); err != nil {
		return err
	}
	return s.All.DeleteVersion(ctx, key, id)
}

func (s *store) Hide(ctx context.Context, key string) error {
	if err := s.may(ctx, "DeleteObject", key, nil); err != nil {
		return err
	}
	return s.All.Hide(ctx, key)
}

func (s *store) PutVersion(ctx context.Context, key string, c objstore.Content) error {
	if err := s.may(ctx, "PutObject", key, map[string][]string{"s3:ObjectCreationOperation": {"true"}}); err != nil {
		return err
	}
	return s.All.PutVersion(ctx, key, c)
}

func (s *store) LockOf(ctx context.Context, key string) (objstore.Lock, error) {
	for _, action := range []string{"GetObjectRetention", "GetObjectLegalHold"} {
		if err := s.may(ctx, action, key, nil); err != nil {
			return objstore.Lock{}, err
		}
	}
	return s.All.LockOf(ctx, key)
}

func (s *store) ExtendLock(ctx context.Context, key string, mode objstore.LockMode, until time.Time) error {
	if err := s.may(ctx, "PutObjectRetention", key, nil); err != nil {
		return err
	}
	return s.All.ExtendLock(ctx, key, mode, until)
}

func (s *store) HoldLock(ctx context.Context, key string, on bool) error {
	if err := s.may(ctx, "PutObjectLegalHold", key, nil); err != nil {
		return err
	}
	return s.All.HoldLock(ctx, key, on)
}

func (s *store) Tag(ctx context.Context, key, name, value string) error {
	if err := s.may(ctx, "PutObjectTagging", key, map[string][]string{"s3:RequestObjectTag/" + name: {value}}); err != nil {
		return err
	}
	return s.All.Tag(ctx, key, name, value)
}

func (s *store) Thaw(ctx context.Context, key string, days int, speed objstore.ThawSpeed) error {
	if err := s.may(ctx, "RestoreObject", key, nil); err != nil {
		return err
	}
	return s.All.Thaw(ctx, key, days, speed)
}

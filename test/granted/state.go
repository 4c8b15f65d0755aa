package granted

import (
	"context"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/statestore"
)

// State is the state bucket of the role's own region.
func (r *Role) State(inner statestore.Store) statestore.Store {
	return &state{inner, r, r.here.StateBucket()}
}

// FirstState is the state bucket of the first region, for roles of the second.
func (r *Role) FirstState(inner statestore.Store) statestore.Store {
	return &state{inner, r, r.first.StateBucket()}
}

type state struct {
	statestore.Store
	role   *Role
	bucket string
}

func (s *state) may(ctx context.Context, action, key string) error {
	if !s.role.allowed(ctx, "s3:"+action, s.bucket, key, nil) {
		return fmt.Errorf("%s %s: %w", action, key, statestore.ErrDenied)
	}
	return nil
}

func (s *state) Get(ctx context.Context, key string) ([]byte, string, error) {
	if err := s.may(ctx, "GetObject", key); err != nil {
		return nil, "", err
	}
	return s.Store.Get(ctx, key)
}

// GetUnless implements [statestore.Conditional].
func (s *state) GetUnless(ctx context.Context, key, tag string) ([]byte, string, error) {
	if err := s.may(ctx, "GetObject", key); err != nil {
		return nil, "", err
	}
	return statestore.GetUnless(ctx, s.Store, key, tag)
}

func (s *state) Put(ctx context.Context, key string, body []byte, tag string) (string, error) {
	if err := s.may(ctx, "PutObject", key); err != nil {
		return "", err
	}
	return s.Store.Put(ctx, key, body, tag)
}

func (s *state) Delete(ctx context.Context, key, tag string) error {
	if err := s.may(ctx, "DeleteObject", key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key, tag)
}

func (s *state) List(ctx context.Context, prefix string, fn func(string) error) error {
	if err := s.may(ctx, "ListBucket", ""); err != nil {
		return err
	}
	return s.Store.List(ctx, prefix, fn)
}

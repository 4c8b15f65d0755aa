package retry

import (
	"context"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// locker is the store below, if it can lock objects.
func (s *Store) locker() (objstore.Locker, error) {
	if l, ok := s.store.(objstore.Locker); ok {
		return l, nil
	}
	return nil, objstore.ErrNoLocks
}

// LockOf implements [objstore.Locker].
func (s *Store) LockOf(ctx context.Context, key string) (lock objstore.Lock, err error) {
	below, err := s.locker()
	if err != nil {
		return lock, err
	}
	err = s.do(ctx, "stat", key, func() error {
		lock, err = below.LockOf(ctx, key)
		return err
	})
	return lock, err
}

// ExtendLock implements [objstore.Locker].
func (s *Store) ExtendLock(ctx context.Context, key string, mode objstore.LockMode, until time.Time) error {
	below, err := s.locker()
	if err != nil {
		return err
	}
	return s.do(ctx, "lock", key, func() error { return below.ExtendLock(ctx, key, mode, until) })
}

// HoldLock implements [objstore.Locker].
func (s *Store) HoldLock(ctx context.Context, key string, on bool) error {
	below, err := s.locker()
	if err != nil {
		return err
	}
	return s.do(ctx, "lock", key, func() error { return below.HoldLock(ctx, key, on) })
}

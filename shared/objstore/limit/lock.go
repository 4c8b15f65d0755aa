package limit

import (
	"context"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// LockOf implements [objstore.Locker].
func (s *Store) LockOf(ctx context.Context, key string) (lock objstore.Lock, err error) {
	err = s.locking(ctx, func(below objstore.Locker) error {
		lock, err = below.LockOf(ctx, key)
		return err
	})
	return lock, err
}

// ExtendLock implements [objstore.Locker].
func (s *Store) ExtendLock(ctx context.Context, key string, mode objstore.LockMode, until time.Time) error {
	return s.locking(ctx, func(below objstore.Locker) error { return below.ExtendLock(ctx, key, mode, until) })
}

// HoldLock implements [objstore.Locker].
func (s *Store) HoldLock(ctx context.Context, key string, on bool) error {
	return s.locking(ctx, func(below objstore.Locker) error { return below.HoldLock(ctx, key, on) })
}

// locking calls fn with the store below, if it can lock objects, in a slot.
func (s *Store) locking(ctx context.Context, fn func(objstore.Locker) error) error {
	below, ok := s.store.(objstore.Locker)
	if !ok {
		return objstore.ErrNoLocks
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return fn(below)
}

package mem

import (
	"context"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// KeepLocks makes the store keep locks from now on, as a bucket with Object Lock does: see [objstore.Locker]. Each
// object that is put is locked for the time first. A delete of what is locked, by the store's clock, is refused.
func (s *Store) KeepLocks(first time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locks, s.firstLock = map[string]objstore.Lock{}, first
}

// currentLock is the lock of an object; the caller holds mu.
func (s *Store) currentLock(key string) objstore.Lock {
	l, ok := s.locks[key]
	if o, there := s.objects[key]; !ok && there && s.locks != nil && s.firstLock > 0 {
		l = objstore.Lock{Mode: objstore.Governance, Until: o.modified.Add(s.firstLock)}
	}
	return l
}

// refuse refuses to delete what is locked; the caller holds mu.
func (s *Store) refuse(key string) error {
	if l := s.currentLock(key); l.Hold || s.clock().Before(l.Until) {
		return fmt.Errorf("delete %s: %w until %s", key, objstore.ErrLocked, l.Until.Format(time.RFC3339))
	}
	return nil
}

// LockOf implements [objstore.Locker].
func (s *Store) LockOf(ctx context.Context, key string) (lock objstore.Lock, err error) {
	err = s.locking(ctx, Stat, key, func(l *objstore.Lock) error {
		lock = *l
		return nil
	})
	return lock, err
}

// ExtendLock implements [objstore.Locker].
func (s *Store) ExtendLock(ctx context.Context, key string, mode objstore.LockMode, until time.Time) error {
	return s.locking(ctx, Lock, key, func(l *objstore.Lock) error {
		if until.After(s.clock().Add(objstore.MaxLock)) {
			return fmt.Errorf("extend the lock of %s: too far ahead", key)
		}
		if l.Until.Before(until) {
			l.Mode, l.Until = mode, until
		}
		return nil
	})
}

// HoldLock implements [objstore.Locker].
func (s *Store) HoldLock(ctx context.Context, key string, on bool) error {
	return s.locking(ctx, Lock, key, func(l *objstore.Lock) error {
		l.Hold = on
		return nil
	})
}

func (s *Store) locking(ctx context.Context, op Op, key string, change func(*objstore.Lock) error) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	fault, err := s.begin(ctx, op, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks == nil {
		return objstore.ErrNoLocks
	}
	if _, there := s.objects[key]; !there {
		return fmt.Errorf("lock %s: %w", key, objstore.ErrNotExist)
	}
	l := s.currentLock(key)
	if err := change(&l); err != nil {
		return err
	}
	s.locks[key] = l
	return fault.Err
}

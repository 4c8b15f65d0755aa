package objstore

import (
	"context"
	"errors"
	"time"
)

// ErrNoLocks says that a store can not lock its objects.
var ErrNoLocks = errors.New("store can not lock objects against deletion")

// LockMode says who can undo a lock.
type LockMode string

// The modes of locks, in the words of S3.
const (
	Governance LockMode = "GOVERNANCE" // whoever has a special right
	Compliance LockMode = "COMPLIANCE" // nobody
)

// Lock is how an object is locked against deletion.
type Lock struct {
	Mode  LockMode  // empty: not for a time
	Until time.Time // zero: not for a time
	Hold  bool      // legal hold: until it is taken off
}

// MaxLock is the longest time for which [Locker.ExtendLock] locks an object from now on: a lock can't be taken back, and
// neither a wrong clock nor a stolen right may fill a store for ever.
const MaxLock = 100 * 24 * time.Hour

// Locker is implemented by stores that may lock objects against deletion. All methods are about the current version. A
// lock is no part of the repository's format. Whether a store really can is known when it is asked: each method may
// return ErrNoLocks.
type Locker interface {
	// LockOf tells how the object is locked. Errors: ErrNotExist, ErrDenied.
	LockOf(ctx context.Context, key string) (Lock, error)
	// ExtendLock locks the object at least until a time; a lock that lasts longer stays. More than MaxLock from now is
	// an error. Errors: ErrNotExist, ErrDenied.
	ExtendLock(ctx context.Context, key string, mode LockMode, until time.Time) error
	// HoldLock puts a legal hold on the object, or takes it off. Errors: ErrNotExist, ErrDenied.
	HoldLock(ctx context.Context, key string, on bool) error
}

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// lockRetry is how long to wait before a lock that somebody has is asked for again.
const lockRetry = 2 * time.Millisecond

var errLocked = errors.New("somebody has it locked exclusively")

// lockShared takes the lock that readers have: while it is held nobody writes into the file. It waits for a writer at most
// for some time, and its asking never makes a writer wait longer than that single call. Errors: errLocked.
//
// It is a lock of the open file description: closing other descriptors of the file does not drop it, as it would those of
// a process, and it conflicts with those that SQLite takes.
func lockShared(ctx context.Context, fd int, wait time.Duration) (release func(), err error) {
	deadline := time.Now().Add(wait)
	for {
		switch ok, err := tryShared(fd); {
		case err != nil:
			return nil, fmt.Errorf("lock the database: %w", err)
		case ok:
			return func() { _ = setLock(fd, unix.F_UNLCK, sqlite.SharedFirst, sqlite.SharedSize) }, nil
		case time.Now().After(deadline):
			return nil, errLocked
		}
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryShared asks once. The pending byte comes first, and is given back: a writer that waits for readers to end has it, and
// new readers keep out.
func tryShared(fd int) (bool, error) {
	if err := setLock(fd, unix.F_RDLCK, sqlite.PendingByte, 1); err != nil {
		return false, ignoreBusy(err)
	}
	err := setLock(fd, unix.F_RDLCK, sqlite.SharedFirst, sqlite.SharedSize)
	if uerr := setLock(fd, unix.F_UNLCK, sqlite.PendingByte, 1); err == nil {
		err = uerr
	}
	return err == nil, ignoreBusy(err)
}

func ignoreBusy(err error) error {
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

func setLock(fd int, kind int16, start, length int64) error {
	for {
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: start, Len: length})
		if err != unix.EINTR { //nolint:errorlint // a bare errno
			return err
		}
	}
}

// reserved reports whether a connection is about to write: its journal belongs to it.
func reserved(fd int) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: sqlite.ReservedByte, Len: 1}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l); err != nil {
		return false, fmt.Errorf("look at the locks of the database: %w", err)
	}
	return l.Type != unix.F_UNLCK, nil
}

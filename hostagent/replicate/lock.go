package replicate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrFollowed says that another process on this host follows the source.
var ErrFollowed = errors.New("another process follows this source already")

const (
	lockFile = "follow.lock"
	holdFile = "follow.hold"
)

// Locked is a lock of a source's directory that is held until it is closed.
type Locked struct{ f *os.File }

// Close gives the lock up, at once: also where a program that is being started just now has the open file, as it has all of this
// process.
func (l *Locked) Close() error {
	err := unix.FcntlFlock(l.f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	return errors.Join(err, l.f.Close())
}

// Lock takes the lock of a source's directory, which it makes. It is the kernel's, of the open file: it ends with the
// process. Errors: ErrFollowed, those of the directory.
func Lock(dir string) (*Locked, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	return lock(dir, lockFile)
}

// Hold keeps the source whose state is in the directory from being followed anew until the file is closed, or the process has
// ended: for who exchanges what is followed, and may put it back. What is followed now is followed to its end. Nil where nobody
// has ever followed it. Errors: ErrFollowed where another does so, those of the directory.
func Hold(dir string) (*Locked, error) {
	if _, err := os.Stat(filepath.Join(dir, markFile)); err != nil {
		return nil, nil //nolint:nilnil,nilerr // there is nobody to keep from it
	}
	return lock(dir, holdFile)
}

// Held reports whether somebody holds the source.
func Held(dir string) bool { return locked(dir, holdFile) }

func lock(dir, name string) (*Locked, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for patience := lockWithin; ; patience -= lockAgain {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			return &Locked{f}, nil
		}
		taken := errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES)
		if taken && patience > 0 {
			time.Sleep(lockAgain)
			continue
		}
		_ = f.Close()
		if taken {
			return nil, fmt.Errorf("%w: %s is locked", ErrFollowed, f.Name())
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
}

// A lock of a process that was killed lives on for a moment in a program that it was starting just then.
const (
	lockWithin = 500 * time.Millisecond
	lockAgain  = 20 * time.Millisecond
)

// Followed reports whether a process follows the source whose state is in the directory.
func Followed(dir string) bool { return locked(dir, lockFile) }

func locked(dir, name string) bool {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	held := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &held) == nil && held.Type != unix.F_UNLCK
}

// Package inplace is what restores in place do to the names of a file system. A [Work] is the directory beside a place in
// which the new one is made; [Exchange] and [Move] are the steps in which old and new change places; an [Identity] tells which
// of them is where, also after a crash. What is made, in which order things move and what a crash means is said by the
// packages that restore.
package inplace

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrBusy says that another restore to the same place is running.
	ErrBusy = errors.New("another restore to this place is running")
	// ErrMoved says that somebody changed the place while a restore was under way or after it died.
	ErrMoved = errors.New("somebody else changed the place meanwhile")
	// ErrNoExchange says that a file system can't let two names change places in one step (NFS; ZFS before 2.2).
	ErrNoExchange = errors.New("the file system can't exchange names")
)

// Identity names a file or a directory on its file system, whatever it is called. The zero one names nothing.
type Identity struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// Identify looks at a path, never through a symbolic link. The zero identity: nothing is there.
func Identify(path string) (Identity, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return Identity{}, nil
	}
	if err != nil {
		return Identity{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return Identity{Device: uint64(st.Dev), Inode: st.Ino}, nil //nolint:unconvert // Dev differs by architecture
}

// Beside is an identity that was written down, with the device number that its file system has now: that of another file on
// it. A reboot may have changed it.
func (id Identity) Beside(now Identity) Identity {
	if id != (Identity{}) {
		id.Device = now.Device
	}
	return id
}

// Name is the path that a set of files at place gets which leaves it: ".before-TIME", ".failed-TIME". Nothing has it yet, and
// nobody else makes such names while the working directory is locked.
func Name(place, what string, now time.Time) (string, error) {
	name := fmt.Sprintf("%s.%s-%s", place, what, now.UTC().Format("20060102T150405Z"))
	for n := 1; ; n++ {
		path := name
		if n > 1 {
			path = fmt.Sprintf("%s-%d", name, n)
		}
		if id, err := Identify(path); err != nil || id == (Identity{}) {
			return path, err
		}
	}
}

// Exchange lets what two names stand for change places, in one step. Errors: [ErrNoExchange], those of the system.
func Exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	switch {
	case lacks(err):
		return ErrNoExchange
	case err != nil:
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

// Move renames what may be missing, and never over something else. Errors: [ErrMoved] where something is there.
func Move(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EEXIST):
		return taken(from, to)
	case lacks(err):
		// Without the flag something could be lost, so look first; nobody else writes into our directories.
		if id, err := Identify(to); err != nil || id != (Identity{}) {
			return errors.Join(err, taken(from, to))
		}
		return os.Rename(from, to)
	case err != nil:
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func taken(from, to string) error {
	return fmt.Errorf("%s: %w: %s is there already", from, ErrMoved, to)
}

// lacks reports whether a file system lacks a form of rename.
func lacks(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP)
}

// Sync makes the names in a directory durable.
func Sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

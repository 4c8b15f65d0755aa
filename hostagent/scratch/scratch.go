// Package scratch makes directories and files that nobody keeps. A [File] has no name: nothing is left of it. The kernel has each directory
// locked while the process lives that works in it, and drops the lock with the process, however that ends: what a process left
// that was killed is removed by the next one that makes a directory beside it.
package scratch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrLocked says that a process is at work in a directory.
var ErrLocked = errors.New("another process is at work in it")

// File makes a file in a directory that has no name: nobody else can open it, and it goes with the process, however that ends.
// For the instant in which it has one, that is of a pattern as of [os.CreateTemp].
func File(dir, pattern string) (*os.File, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Dir is a directory of this process, which is locked.
type Dir struct {
	Path string
	lock *os.File
}

// New makes a directory below another one, which is made if it is missing; both get the mode, but for what was there. It is
// named by a pattern as of [os.MkdirTemp]. Before that it removes those of the pattern whose process is gone, with remove;
// nil: [os.RemoveAll]. What can't be removed is left for the next one.
func New(below, pattern string, mode fs.FileMode, remove func(path string) error) (*Dir, error) {
	if err := os.MkdirAll(below, mode); err != nil {
		return nil, err
	}
	sweep(below, pattern, remove)
	for {
		at, err := os.MkdirTemp(below, pattern)
		if err != nil {
			return nil, err
		}
		lock, err := Lock(at)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrLocked) {
			continue // another one was sweeping just then
		}
		if err != nil {
			return nil, err
		}
		d := &Dir{at, lock}
		if err := os.Chmod(at, mode); err != nil {
			return nil, errors.Join(err, d.Remove())
		}
		return d, nil
	}
}

// sweep removes directories whose process is gone.
func sweep(below, pattern string, remove func(path string) error) {
	if remove == nil {
		remove = os.RemoveAll
	}
	left, _ := filepath.Glob(filepath.Join(below, pattern)) // a pattern that is good
	for _, at := range left {
		if lock, err := Lock(at); err == nil {
			_ = errors.Join(remove(at), lock.Close()) // what stays is for the next one
		}
	}
}

// Remove removes the directory with all that is in it, and lets go of it.
func (d *Dir) Remove() error { return errors.Join(os.RemoveAll(d.Path), d.lock.Close()) }

// Lock opens a directory and locks it until it is closed. Errors: [ErrLocked]; [fs.ErrNotExist], also where it is not the one
// under this name any more; those of the system.
func Lock(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := lock(dir, path); err != nil {
		_ = dir.Close() // only read
		return nil, err
	}
	return dir, nil
}

func lock(dir *os.File, path string) error {
	err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	if err != nil {
		return err
	}
	held, err := dir.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(held, named) {
		return fs.ErrNotExist
	}
	return nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ToDir restores to a directory that is not there or empty. It ends with a cluster that is proven, stopped and ready to be
// started; with Options.Pause with a server that is paused at the target, reached by the socket in Result.Socket. Errors:
// [*StepError], which wraps [ErrExists], [ErrBusy], [ErrShort], [ErrBase], [ErrIncomplete], [*TargetError], [*SpaceError],
// those of open, of Options.Prove and of the system.
func ToDir(ctx context.Context, dir string, open Opener, o Options) (*Result, error) {
	abs, err := absolute(dir)
	if err != nil {
		return nil, err
	}
	b := newBuild(abs, &o)
	if b.result.Settled, err = vacate(abs); err != nil {
		return nil, b.failure(err)
	}
	if err := b.make(ctx, open, ""); err != nil {
		e := b.failure(err)
		if dropped := b.drop(); dropped != nil {
			e.Failed, e.Err = abs, errors.Join(e.Err, fmt.Errorf("what was restored can't be removed: %w", dropped))
		}
		return nil, e
	}
	return b.result, nil
}

func newBuild(dir string, o *Options) *build {
	return &build{dir: dir, options: o, at: StepPrepare, result: &Result{Path: dir}}
}

// failure is how a step ended everything.
func (b *build) failure(err error) *StepError {
	e := &StepError{Step: b.at, Path: b.result.Path, Err: err, Words: b.words}
	if b.feed != nil && b.src != nil && b.src.Log != nil && e.Step == StepRecover {
		e.Good = b.feed.goodUntil()
	}
	return e
}

// absolute resolves links on the way to a directory, which may be missing.
func absolute(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("restore to %s: %w", dir, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(real, filepath.Base(abs)), nil
	}
	return abs, nil
}

// Scratch builds a cluster in a directory of its own below dir, lets Options.Prove look at it, and removes it with its
// server. What earlier ones left that were killed is removed first. Errors: as ToDir.
func Scratch(ctx context.Context, dir string, open Opener, o Options) (*Result, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // the server goes through it, and lists nothing
		return nil, fmt.Errorf("restore to scratch: %w", err)
	}
	sweep(dir)
	at, lock, err := newScratch(dir)
	if err != nil {
		return nil, fmt.Errorf("restore to scratch: %w", err)
	}
	o.scratch, o.Pause, o.spacesBelow = true, false, filepath.Join(at, "tablespaces")
	b := newBuild(filepath.Join(at, "data"), &o)
	err = b.make(ctx, open, "")
	if err != nil {
		err = b.failure(err)
	}
	if dropped := b.drop(); dropped != nil && err == nil {
		err = fmt.Errorf("remove the scratch cluster: %w", dropped)
	}
	_ = errors.Join(os.RemoveAll(at), lock.Close()) // what stays is removed by the next one
	return b.result, err
}

const scratchPattern = "cluster-*"

// newScratch makes a directory and locks it, so that nobody takes it for one that was left. Others may go through it: the
// server runs as another user.
func newScratch(dir string) (string, *os.File, error) {
	for {
		at, err := os.MkdirTemp(dir, scratchPattern)
		if err != nil {
			return "", nil, err
		}
		lock, err := lockDirectory(at)
		if err == nil {
			return at, lock, os.Chmod(at, 0o711) //nolint:gosec // what is in it has its own mode
		}
		// Another one was sweeping just then.
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrBusy) {
			return "", nil, err
		}
	}
}

// sweep removes scratch directories whose process is gone.
func sweep(dir string) {
	left, err := filepath.Glob(filepath.Join(dir, scratchPattern))
	if err != nil {
		return
	}
	for _, at := range left {
		if lock, err := lockDirectory(at); err == nil {
			if discard(filepath.Join(at, "data"), nil, false) == nil {
				_ = os.RemoveAll(at) // what stays is for the next one
			}
			_ = lock.Close()
		}
	}
}

// lockDirectory opens and locks a directory. os.ErrNotExist: it is not the one under this name any more.
func lockDirectory(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err == nil {
		var held, named os.FileInfo
		if held, err = dir.Stat(); err == nil {
			if named, err = os.Lstat(path); err == nil && !os.SameFile(held, named) {
				err = os.ErrNotExist
			}
		}
	}
	if err != nil {
		_ = dir.Close() // only read
		return nil, err
	}
	return dir, nil
}

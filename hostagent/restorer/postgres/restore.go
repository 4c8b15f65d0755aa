package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/hostagent/scratch"
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
	return b.done(), nil
}

func newBuild(dir string, o *Options) *build {
	return &build{dir: dir, options: o, course: steps.Course{Began: o.Began, Fault: o.fault, At: steps.Prepare}, result: &Result{Path: dir}}
}

// failure is how a step ended everything.
func (b *build) failure(err error) *StepError {
	f := b.course.Failure(b.result.Path, err)
	b.tell(f)
	return f
}

// tell adds to a failure what the server said, and how far the log was good where that is what failed.
func (b *build) tell(f *StepError) {
	f.Words = b.words
	if b.feed != nil && b.src != nil && b.src.Log != nil && f.Step == StepRecover {
		f.Good = b.feed.goodUntil()
	}
}

// done is the result.
func (b *build) done() *Result {
	b.result.Steps = b.course.Done
	return b.result
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
	if err := pgserver.Way(dir, 0o711); err != nil {
		return nil, fmt.Errorf("restore to scratch: %w", err)
	}
	d, err := scratch.New(dir, scratchPattern, 0o711, func(path string) error { // the server goes through it, and lists nothing
		if err := discard(filepath.Join(path, "data"), nil, false); err != nil {
			return err
		}
		return os.RemoveAll(path)
	})
	if err != nil {
		return nil, fmt.Errorf("restore to scratch: %w", err)
	}
	o.scratch, o.Pause, o.spacesBelow = true, false, filepath.Join(d.Path, "tablespaces")
	b := newBuild(filepath.Join(d.Path, "data"), &o)
	err = b.make(ctx, open, "")
	if err != nil {
		err = b.failure(err)
	}
	if dropped := b.drop(); dropped != nil && err == nil {
		err = fmt.Errorf("remove the scratch cluster: %w", dropped)
	}
	_ = d.Remove() // what stays is removed by the next one
	return b.done(), err
}

const scratchPattern = "cluster-*"

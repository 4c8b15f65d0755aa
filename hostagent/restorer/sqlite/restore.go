package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/hostagent/scratch"
)

// Opener opens what a database is built from.
type Opener func(ctx context.Context) (*Source, error)

// ToFile restores to a file that is not there yet. Directories above it are made. Errors: [*StepError], which wraps
// [ErrExists], [ErrBusy], [ErrFull], [ErrLog], those of open, of Options.Prove and of the system.
func ToFile(ctx context.Context, path string, open Opener, o Options) (*Result, error) {
	r, err := begin(path, o)
	if err != nil {
		return nil, err
	}
	if err := r.toFile(ctx, open); err != nil {
		_ = r.work.Remove() // what stays is taken over by the next one
		return nil, r.failure(err)
	}
	return r.done(), nil
}

// leave removes the working directory at the end. What stays is taken over by the next restore to this place.
func (r *run) leave() {
	if err := r.work.Remove(); err != nil {
		r.result.Warnings = append(r.result.Warnings, fmt.Sprintf("%s can not be removed: %v", r.work.Path, err))
	}
}

// InPlace restores over the database at path, or to where one was. Errors: [*StepError], which wraps what ToFile's does,
// [ErrInUse], [ErrMoved] and those of the hooks.
func InPlace(ctx context.Context, path string, open Opener, o Options) (*Result, error) {
	r, err := begin(path, o)
	if err != nil {
		return nil, err
	}
	return r.inPlace(ctx, open)
}

// Recover settles what a restore in place at path left that died, without restoring anything, and says in words what that
// was; empty: nothing. Errors: [*StepError].
func Recover(path string, o Options) (string, error) {
	p, err := resolve(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // not even its directory is there, as on a new machine: the restore makes it
	}
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(inplace.WorkOf(p.path())); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	r, err := begin(path, o)
	if err != nil {
		return "", err
	}
	r.leave()
	return r.result.Settled, nil
}

// run is one restore on its way.
type run struct {
	options *Options
	place   place
	work    *workspace
	result  *Result
	course  steps.Course
	reached time.Time
	file    *os.File // the new one; nil: closed
}

// begin opens the working directory and settles what an earlier restore left in it.
func begin(path string, o Options) (*run, error) {
	r := &run{options: &o, result: &Result{Path: path}}
	r.course = steps.Course{Began: o.Began, Fault: o.fault, At: steps.Prepare}
	if err := makeAbove(path); err != nil {
		return nil, r.failure(err)
	}
	var err error
	if r.place, err = resolve(path); err != nil {
		return nil, r.failure(err)
	}
	r.result.Path = r.place.path()
	if r.work, err = openWorkspace(r.place); err != nil {
		return nil, r.failure(err)
	}
	if r.result.Settled, err = r.work.settle(r.options); err == nil {
		err = r.work.Clear()
	}
	if err != nil {
		r.work.Leave()
		return nil, r.failure(err)
	}
	return r, nil
}

func makeAbove(path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return os.MkdirAll(filepath.Dir(abs), 0o755) //nolint:gosec // like mkdir -p; the file has its own mode
}

// failure is how a step ended everything.
func (r *run) failure(err error) *StepError { return r.tell(r.course.Failure(r.result.Path, err)) }

// tell adds to a failure that there is no room, where that is its cause, and how far the log was good, where that is what failed.
func (r *run) tell(f *StepError) *StepError {
	if errors.Is(f.Err, unix.ENOSPC) && !errors.Is(f.Err, ErrFull) {
		f.Err = fmt.Errorf("%w: %w", ErrFull, f.Err)
	}
	var log *logError
	if errors.As(f.Err, &log) {
		f.Good = r.reached
	}
	return f
}

// done is the result, once all went well.
func (r *run) done() *Result {
	r.leave()
	r.result.Steps = r.course.Done
	return r.result
}

func (r *run) toFile(ctx context.Context, open Opener) error {
	if err := r.place.vacant(); err != nil {
		return err
	}
	if err := r.make(ctx, open, nil); err != nil {
		return err
	}
	if err := r.place.vacant(); err != nil {
		return err
	}
	if err := inplace.Move(r.work.fresh(), r.place.path()); err != nil {
		return err
	}
	return inplace.Sync(r.place.dir)
}

// make builds, proves and syncs the new file in the working directory. It gets the metadata of old, or where that is nil
// what the snapshot has.
func (r *run) make(ctx context.Context, open Opener, old *metadata) (err error) {
	r.course.At = steps.Prepare
	src, err := open(ctx)
	if err != nil {
		return err
	}
	if err := r.place.room(src.needs()); err != nil {
		return err
	}
	if r.file, err = r.work.create(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.file.Close()) }()
	if err := r.course.Do(StepBuild, func() error { return r.build(ctx, src) }); err != nil {
		return err
	}
	if r.options.Prove != nil {
		if err := r.course.Do(StepProve, func() error { return r.options.Prove(ctx, r.work.fresh()) }); err != nil {
			return err
		}
	}
	return r.course.Do(StepSync, func() error {
		if old == nil {
			old = metadataOf(src.Entry)
		}
		if r.result.Warnings, err = old.apply(r.file); err != nil {
			return err
		}
		return errors.Join(r.file.Sync(), inplace.Sync(r.work.Join(freshName)))
	})
}

func (r *run) build(ctx context.Context, src *Source) error {
	b := &builder{file: r.file, src: src, room: r.place.room, progress: r.options.progress()}
	b.progress.Total(1, src.Entry.Size)
	b.progress.Current(r.result.Path)
	err := b.build(ctx)
	r.reached = b.reached
	if err != nil {
		return err
	}
	r.result.Bytes, r.result.Written, r.result.Records, r.result.Reached = uint64(b.size), b.written, b.records, b.reached //nolint:gosec // a size
	return nil
}

// needs is how much room a database takes, as far as is known before it is built: of the base and of what the log adds.
func (s *Source) needs() uint64 {
	n := s.Entry.DataBytes()
	if s.Bytes > s.Entry.Size {
		n += s.Bytes - s.Entry.Size
	}
	return n
}

// Scratch builds a database in a directory of its own below dir, lets Options.Prove look at it, and removes it. What
// earlier ones left that were killed is removed first. Errors: as ToFile.
func Scratch(ctx context.Context, dir string, open Opener, o Options) (*Result, error) {
	d, err := scratch.New(dir, scratchPattern, 0o700, nil)
	if err != nil {
		return nil, fmt.Errorf("restore to scratch: %w", err)
	}
	defer func() { _ = d.Remove() }() // what stays is removed by the next one
	return ToFile(ctx, filepath.Join(d.Path, "database"), open, o)
}

const scratchPattern = "restore-*"

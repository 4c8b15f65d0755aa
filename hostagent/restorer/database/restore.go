package database

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
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
		err = r.failure(err)
		_ = r.work.remove() // what stays is taken over by the next one
		return nil, err
	}
	r.leave()
	return r.result, nil
}

// leave removes the working directory at the end. What stays is taken over by the next restore to this place.
func (r *run) leave() {
	if err := r.work.remove(); err != nil {
		r.result.Warnings = append(r.result.Warnings, fmt.Sprintf("%s can not be removed: %v", r.place.work(), err))
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
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(p.work()); errors.Is(err, os.ErrNotExist) {
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
	at      string // the step
	reached time.Time
	file    *os.File // the new one; nil: closed
}

// begin opens the working directory and settles what an earlier restore left in it.
func begin(path string, o Options) (*run, error) {
	r := &run{options: &o, at: StepPrepare, result: &Result{Path: path}}
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
		err = r.work.clear()
	}
	if err != nil {
		r.work.close()
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
func (r *run) failure(err error) error {
	if errors.Is(err, unix.ENOSPC) && !errors.Is(err, ErrFull) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	e := &StepError{Step: r.at, Path: r.result.Path, Err: err}
	var log *logError
	if errors.As(err, &log) {
		e.Reached = r.reached
	}
	return e
}

// step does one step and notes how long it took.
func (r *run) step(name string, do func() error) error {
	r.at = name
	if r.options.Began != nil {
		r.options.Began(name)
	}
	if err := r.options.faulty(name); err != nil {
		return err
	}
	began := time.Now()
	err := do()
	r.result.Steps = append(r.result.Steps, Step{name, time.Since(began)})
	return err
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
	if err := move(r.work.fresh(), r.place.path()); err != nil {
		return err
	}
	return syncDirectory(r.place.dir)
}

// make builds, proves and syncs the new file in the working directory. It gets the metadata of old, or where that is nil
// what the snapshot has.
func (r *run) make(ctx context.Context, open Opener, old *metadata) (err error) {
	r.at = StepPrepare
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
	if err := r.step(StepBuild, func() error { return r.build(ctx, src) }); err != nil {
		return err
	}
	if r.options.Prove != nil {
		if err := r.step(StepProve, func() error { return r.options.Prove(ctx, r.work.fresh()) }); err != nil {
			return err
		}
	}
	return r.step(StepSync, func() error {
		if old == nil {
			old = metadataOf(src.Entry)
		}
		if r.result.Warnings, err = old.apply(r.file); err != nil {
			return err
		}
		return errors.Join(r.file.Sync(), syncDirectory(r.work.path(freshName)))
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
	n := dataBytes(s.Entry)
	if s.Bytes > s.Entry.Size {
		n += s.Bytes - s.Entry.Size
	}
	return n
}

// dataBytes is at most how much data, without holes, a file has. A map without packs covers only holes.
func dataBytes(e *snapshot.Entry) uint64 {
	var n uint64
	for i := range e.Extents {
		if !e.Extents[i].Hole {
			n += e.Extents[i].Length
		}
	}
	for i := range e.Maps {
		if len(e.Maps[i].Packs) > 0 {
			n += e.Maps[i].Length
		}
	}
	return n
}

// Scratch builds a database in a directory of its own below dir, lets Options.Prove look at it, and removes it. What
// earlier ones left that were killed is removed first. Errors: as ToFile.
func Scratch(ctx context.Context, dir string, open Opener, o Options) (*Result, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("restore to scratch: %w", err)
	}
	sweep(dir)
	at, lock, err := newScratch(dir)
	if err != nil {
		return nil, fmt.Errorf("restore to scratch: %w", err)
	}
	defer func() { _ = errors.Join(os.RemoveAll(at), lock.Close()) }() // what stays is removed by the next one
	return ToFile(ctx, filepath.Join(at, "database"), open, o)
}

const scratchPattern = "restore-*"

// newScratch makes a directory and locks it, so that nobody takes it for one that was left.
func newScratch(dir string) (string, *os.File, error) {
	for {
		at, err := os.MkdirTemp(dir, scratchPattern)
		if err != nil {
			return "", nil, err
		}
		lock, err := lockDirectory(at)
		if err == nil {
			return at, lock, nil
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
			_ = errors.Join(os.RemoveAll(at), lock.Close())
		}
	}
}

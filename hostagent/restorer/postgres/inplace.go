package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
)

// exchange is one restore in place on its way. It is a [steps.Exchange]: until the swap all is as it was by itself.
type exchange struct {
	place   string // the data directory
	work    *inplace.Work
	build   *build
	options *Options
	marker  marker
	began   time.Time
}

// fresh is where the new one is made, under its own name.
func (x *exchange) fresh() string {
	return filepath.Join(inplace.WorkOf(x.place), filepath.Base(x.place))
}

// InPlace restores over the data directory at dir, or to where one was. Errors: [*StepError], which wraps what ToDir's does,
// [ErrInUse], [ErrMoved], [ErrPlace] and those of the hooks.
func InPlace(ctx context.Context, dir string, open Opener, o Options) (*Result, error) {
	o.Pause, o.inPlace = false, true
	x, settled, err := openExchange(dir, &o)
	if err != nil {
		return nil, err
	}
	x.build.result.Settled = settled
	return x.run(ctx, open)
}

// openExchange takes the working directory and settles what an earlier restore left in it.
func openExchange(dir string, o *Options) (*exchange, string, error) {
	place, err := absolute(dir)
	if err != nil {
		return nil, "", err
	}
	x := &exchange{place: place, options: o}
	x.build = newBuild(x.fresh(), o)
	x.build.result.Path = place
	fail := func(err error) (*exchange, string, error) {
		if x.work != nil {
			x.work.Leave()
		}
		return nil, "", x.build.failure(err)
	}
	if err := x.movable(); err != nil {
		return fail(err)
	}
	if err := pgserver.Way(filepath.Dir(place), 0o755); err != nil { // a disk may have been lost with all that was on it
		return fail(err)
	}
	if x.work, err = inplace.OpenWork(place, 0o711); err != nil { // the server goes through it
		return fail(err)
	}
	settled, err := x.settle()
	if err != nil {
		return fail(err)
	}
	return x, settled, nil
}

// movable refuses a place that can't be renamed.
func (x *exchange) movable() error {
	if st, err := os.Stat(x.place); err == nil && !st.IsDir() {
		return fmt.Errorf("%s: %w: it is no directory", x.place, ErrPlace)
	}
	own, err := inplace.Identify(x.place)
	if err != nil || own == (inplace.Identity{}) {
		return err
	}
	above, err := inplace.Identify(filepath.Dir(x.place))
	if err != nil {
		return err
	}
	if own.Device != above.Device {
		return fmt.Errorf("%s: %w: it is the root of a file system; a data directory in a directory below that can be", x.place, ErrPlace)
	}
	return nil
}

// run does the work of InPlace.
func (x *exchange) run(ctx context.Context, open Opener) (*Result, error) {
	b := x.build
	x.began = x.options.now().UTC()
	x.options.spacesBeside = "restored-" + x.began.Format("20060102T150405Z")
	if pid := pgserver.Postmaster(x.place); pid != 0 && x.options.Stop == nil { // it would be known only after hours
		b.course.At = StepInUse
		f := b.failure(fmt.Errorf("%s: %w (process %d), and no stop hook stops it", x.place, ErrInUse, pid))
		x.TakeBack(f)
		return nil, f
	}
	build := func(ctx context.Context) error { return b.make(ctx, open, x.place) }
	if f := b.course.InPlace(ctx, x.place, x.options.Application, build, x); f != nil {
		return nil, f
	}
	if x.marker.Old != (inplace.Identity{}) {
		b.result.Safety = x.marker.Safety
	}
	x.leave()
	return b.done(), nil
}

// Swap puts the new cluster in its place.
func (x *exchange) Swap(ctx context.Context) error {
	if err := x.build.course.Do(StepInUse, x.idle); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // the last moment at which it costs nothing
	}
	return x.build.course.Do(StepSwap, x.forward)
}

// idle makes sure that no server runs on the data directory.
func (x *exchange) idle() error {
	if err := x.waitIdle(); err != nil {
		return err
	}
	if target, err := os.Readlink(filepath.Join(x.place, "pg_wal")); err == nil {
		x.build.result.Warnings = append(x.build.result.Warnings, fmt.Sprintf("pg_wal was a link to %s: in the restored cluster it is a directory", target))
	}
	return nil
}

// TakeBack undoes a swap that did not come to its end, and removes what was made.
func (x *exchange) TakeBack(f *steps.Failure) {
	x.build.tell(f)
	now, err := inplace.Identify(x.place)
	if x.marker.Phase != "" && (err != nil || now != x.marker.Old) {
		if f.Back = x.back(); f.Back != nil {
			f.Safety = x.marker.Safety
			x.work.Leave() // the marker stays: the next restore goes on with this
			return
		}
		f.Failed = x.marker.Failed
	} else if err := x.build.drop(); err != nil {
		f.Err = errors.Join(f.Err, fmt.Errorf("what was restored can't be removed: %w", err))
		x.work.Leave() // the next restore removes it
		return
	}
	x.leave()
}

// PutBack puts the old cluster back because the application is not well with the new one.
func (x *exchange) PutBack(_ context.Context, f *steps.Failure, stop func() error) {
	// Whatever happens now, the next restore goes on with this.
	x.marker.Phase = phaseBack
	told := errors.Join(x.work.Mark(x.marker), stop())
	err := x.waitIdle()
	if err == nil {
		err = x.back()
	}
	if err != nil {
		f.Back, f.Safety = errors.Join(told, err), x.marker.Safety
		x.work.Leave() // the marker stays
		return
	}
	f.Failed = x.marker.Failed
	x.leave()
}

// waitIdle gives a server that was told to stop a moment.
func (x *exchange) waitIdle() error {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		pid := pgserver.Postmaster(x.place)
		if pid == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %w (process %d)", x.place, ErrInUse, pid)
		}
	}
}

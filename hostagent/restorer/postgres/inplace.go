package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
)

// exchange is one restore in place on its way.
type exchange struct {
	place   string // the data directory
	work    string // directory beside it
	lock    *os.File
	build   *build
	options *Options
	marker  marker
}

func workOf(place string) string {
	return filepath.Join(filepath.Dir(place), "."+filepath.Base(place)+".holdfast-restore")
}

func (x *exchange) fresh() string { return filepath.Join(x.work, filepath.Base(x.place)) }

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
	x := &exchange{place: place, work: workOf(place), options: o}
	x.build = newBuild(x.fresh(), o)
	x.build.result.Path = place
	fail := func(err error) (*exchange, string, error) {
		if x.lock != nil {
			_ = x.lock.Close() // only a lock
		}
		return nil, "", x.build.failure(err)
	}
	if err := x.movable(); err != nil {
		return fail(err)
	}
	if err := os.Mkdir(x.work, 0o711); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // the server goes through it
		return fail(err)
	}
	if x.lock, err = lockDirectory(x.work); err != nil {
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
	own, err := identify(x.place)
	if err != nil || own == (identity{}) {
		return err
	}
	above, err := identify(filepath.Dir(x.place))
	if err != nil {
		return err
	}
	if own.Device != above.Device {
		return fmt.Errorf("%s: %w: it is the root of a file system; a data directory in a directory below that can be", x.place, ErrPlace)
	}
	return nil
}

// run does the work of InPlace. Until the swap a failure leaves all as it was by itself; from then on it is put back.
func (x *exchange) run(ctx context.Context, open Opener) (*Result, error) {
	b, stopped := x.build, false
	stop := func() error {
		if stopped || x.options.Stop == nil {
			return nil
		}
		stopped = true // whatever it did: what it has stopped must be started again
		return b.step(StepStop, func() error { return x.options.Stop(ctx) })
	}
	err := x.swap(ctx, open, stop)
	if err != nil {
		e := b.failure(err)
		x.takeBack(e)
		if stopped {
			e.Start = x.start(ctx)
		}
		return nil, e
	}
	if err := x.alive(ctx); err != nil {
		return nil, x.revert(ctx, err)
	}
	b.result.Safety = x.marker.Safety
	if x.marker.Old == (identity{}) {
		b.result.Safety = ""
	}
	x.leave()
	return b.result, nil
}

// swap builds the new cluster and puts it in its place.
func (x *exchange) swap(ctx context.Context, open Opener, stop func() error) error {
	b := x.build
	stamp := x.options.now().UTC().Format("20060102T150405Z")
	x.options.spacesBeside = "restored-" + stamp
	b.at = StepInUse
	if pid := pgserver.Postmaster(x.place); pid != 0 && x.options.Stop == nil {
		return fmt.Errorf("%s: %w (process %d), and no stop hook stops it", x.place, ErrInUse, pid) // it would be known only after hours
	}
	if x.options.StopFirst {
		if err := stop(); err != nil {
			return err
		}
	}
	if err := b.make(ctx, open, x.place); err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	if err := b.step(StepInUse, x.idle); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // the last moment at which it costs nothing
	}
	return b.step(StepSwap, func() error { return x.forward(stamp) })
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

// start starts the application, whether the restore was interrupted or not.
func (x *exchange) start(ctx context.Context) error {
	if x.options.Start == nil {
		return nil
	}
	return x.options.Start(context.WithoutCancel(ctx))
}

// alive starts the application and waits until it is well.
func (x *exchange) alive(ctx context.Context) error {
	if x.options.Start != nil {
		if err := x.build.step(StepStart, func() error { return x.start(ctx) }); err != nil {
			return err
		}
	}
	if x.options.Healthy != nil {
		return x.build.step(StepHealth, func() error { return x.options.Healthy(ctx) })
	}
	return nil
}

// takeBack undoes a swap that did not come to its end, and removes what was made.
func (x *exchange) takeBack(e *StepError) {
	now, err := identify(x.place)
	if x.marker.Phase != "" && (err != nil || now != x.marker.Old) {
		if e.Back = x.back(); e.Back != nil {
			e.Safety = x.marker.Safety
			_ = x.lock.Close() // the marker stays: the next restore goes on with this
			return
		}
		e.Failed = x.marker.Failed
	} else if err := x.build.drop(); err != nil {
		e.Err = errors.Join(e.Err, fmt.Errorf("what was restored can't be removed: %w", err))
		_ = x.lock.Close() // the next restore removes it
		return
	}
	x.leave()
}

// revert puts the old cluster back because the application is not well with the new one.
func (x *exchange) revert(ctx context.Context, cause error) error {
	e := x.build.failure(cause)
	ctx = context.WithoutCancel(ctx)
	if x.options.Began != nil {
		x.options.Began(StepBack)
	}
	// Whatever happens now, the next restore goes on with this.
	x.marker.Phase = phaseBack
	hook := x.write()
	if x.options.Stop != nil {
		hook = errors.Join(hook, x.options.Stop(ctx))
	}
	err := x.waitIdle()
	if err == nil {
		err = x.back()
	}
	if err != nil {
		e.Back, e.Safety = errors.Join(hook, err), x.marker.Safety
		_ = x.lock.Close() // the marker stays
	} else {
		e.Failed = x.marker.Failed
		x.leave()
	}
	e.Start = x.start(ctx)
	return e
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

package database

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// inPlace does the work of [InPlace]. Until the swap a failure leaves all as it was by itself; from then on it is put back.
func (r *run) inPlace(ctx context.Context, open Opener) (*Result, error) {
	stopped := false
	stop := func() error {
		if stopped || r.options.Stop == nil {
			return nil
		}
		stopped = true // whatever it did: what it has stopped must be started again
		return r.step(StepStop, func() error { return r.options.Stop(ctx) })
	}
	s := &swap{work: r.work, options: r.options}
	err := r.exchange(ctx, open, s, stop)
	if err != nil {
		e := r.failure(err).(*StepError) //nolint:errorlint // failure makes nothing else
		r.takeBack(s, e)
		if stopped {
			e.Start = r.start(ctx)
		}
		return nil, e
	}
	if err := r.alive(ctx); err != nil {
		return nil, r.revert(ctx, s, err)
	}
	s.tidy()
	if s.marker.Safety != "" {
		r.result.Safety = filepath.Join(r.place.dir, s.marker.Safety)
	}
	r.leave()
	return r.result, nil
}

// exchange builds the new database and puts it in its place.
func (r *run) exchange(ctx context.Context, open Opener, s *swap, stop func() error) error {
	old, err := r.present()
	if err != nil {
		return err
	}
	if r.options.StopFirst {
		if err := stop(); err != nil {
			return err
		}
	}
	if err := r.make(ctx, open, old); err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	var held *guard
	err = r.step(StepInUse, func() (err error) {
		held, err = claim(r.place, r.options.wait())
		return r.allow(err)
	})
	defer func() { held.release() }()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // the last moment at which it costs nothing
	}
	return r.step(StepSwap, func() error {
		return s.forward(func() error {
			if s.marker.Old == (identity{}) {
				return nil
			}
			// Who opened it between the look and the barrier.
			if who := openers("/proc", s.marker.Old); len(who) > 0 {
				return r.allow(inUse(who))
			}
			return nil
		})
	})
}

// allow lets pass that somebody has the database open, where that was asked for.
func (r *run) allow(err error) error {
	if r.options.Force && errors.Is(err, ErrInUse) {
		r.result.Warnings = append(r.result.Warnings, err.Error())
		return nil
	}
	return err
}

// present is the metadata of what is in the place; nil: nothing is.
func (r *run) present() (*metadata, error) {
	f, err := os.OpenFile(r.place.path(), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &os.PathError{Op: "restore over", Path: r.place.path(), Err: errors.New("it is no file")}
	}
	return metadataAt(f)
}

// start starts the application, whether the restore was interrupted or not.
func (r *run) start(ctx context.Context) error {
	if r.options.Start == nil {
		return nil
	}
	return r.options.Start(context.WithoutCancel(ctx))
}

// alive starts the application and waits until it is well.
func (r *run) alive(ctx context.Context) error {
	if r.options.Start != nil {
		if err := r.step(StepStart, func() error { return r.start(ctx) }); err != nil {
			return err
		}
	}
	if r.options.Healthy != nil {
		return r.step(StepHealth, func() error { return r.options.Healthy(ctx) })
	}
	return nil
}

// takeBack undoes a swap that did not come to its end, and removes what it made.
func (r *run) takeBack(s *swap, e *StepError) {
	if s.marker.Phase != "" {
		if e.Back = s.back(); e.Back != nil {
			e.Safety = filepath.Join(r.place.dir, s.marker.Safety)
			r.work.close() // the marker stays: the next restore goes on with this
			return
		}
	}
	r.cleanUp(s, e)
}

func (r *run) cleanUp(s *swap, e *StepError) {
	s.tidy()
	if s.marker.Failed != "" {
		e.Failed = filepath.Join(r.place.dir, s.marker.Failed)
	}
	_ = r.work.remove() // what stays is taken over by the next one
}

// revert puts the old database back because the application is not well with the new one.
func (r *run) revert(ctx context.Context, s *swap, cause error) error {
	e := r.failure(cause).(*StepError) //nolint:errorlint // failure makes nothing else
	ctx = context.WithoutCancel(ctx)
	r.at = StepBack
	if r.options.Began != nil {
		r.options.Began(StepBack)
	}
	if r.options.Stop != nil {
		e.Back = r.options.Stop(ctx)
	}
	held, err := claim(r.place, r.options.wait())
	defer held.release()
	if err = r.allow(err); err == nil {
		e.Back = nil // whatever the hook said, nobody has it open
		s.marker.Phase = phaseBack
		if err = s.write(); err == nil {
			err = s.back()
		}
	}
	if err != nil {
		e.Back = errors.Join(e.Back, err)
		e.Safety = filepath.Join(r.place.dir, s.marker.Safety)
		r.work.close() // the marker stays
	} else {
		r.cleanUp(s, e)
	}
	held.release()
	e.Start = r.start(ctx)
	return e
}

package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
)

// inPlace does the work of [InPlace].
func (r *run) inPlace(ctx context.Context, open Opener) (*Result, error) {
	x := &exchange{run: r, swap: &swap{work: r.work, options: r.options}}
	old, err := r.present()
	if err != nil {
		f := r.failure(err)
		x.TakeBack(f)
		return nil, f
	}
	build := func(ctx context.Context) error { return r.make(ctx, open, old) }
	if f := r.course.InPlace(ctx, r.result.Path, r.options.Application, build, x); f != nil {
		return nil, r.tell(f)
	}
	x.swap.tidy()
	r.result.Safety = x.set(x.swap.marker.Safety)
	return r.done(), nil
}

// exchange lets the old database and the new one change places. It is a [steps.Exchange]: until the swap all is as it was by
// itself.
type exchange struct {
	*run
	swap *swap
}

// set is the path of a set of files that was set aside; empty: there is none.
func (x *exchange) set(name string) string {
	if name == "" {
		return ""
	}
	return filepath.Join(x.place.dir, name)
}

// Swap puts the new database in its place.
func (x *exchange) Swap(ctx context.Context) error {
	var held *guard
	err := x.course.Do(StepInUse, func() (err error) {
		held, err = claim(x.place, x.options.wait())
		return x.allow(err)
	})
	defer func() { held.release() }()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // the last moment at which it costs nothing
	}
	return x.course.Do(StepSwap, func() error {
		return x.swap.forward(func() error {
			if x.swap.marker.Old == (inplace.Identity{}) {
				return nil
			}
			// Who opened it between the look and the barrier.
			if who := openers("/proc", x.swap.marker.Old); len(who) > 0 {
				return x.allow(inUse(who))
			}
			return nil
		})
	})
}

// TakeBack undoes a swap that did not come to its end, and removes what was made.
func (x *exchange) TakeBack(f *steps.Failure) {
	if x.swap.marker.Phase != "" {
		if f.Back = x.swap.back(); f.Back != nil {
			x.stuck(f)
			return
		}
	}
	x.cleanUp(f)
}

// PutBack puts the old database back because the application is not well with the new one.
func (x *exchange) PutBack(_ context.Context, f *steps.Failure, stop func() error) {
	stopped := stop()
	held, err := claim(x.place, x.options.wait())
	defer held.release()
	if err = x.allow(err); err == nil {
		stopped = nil // whatever the hook said, nobody has it open
		x.swap.marker.Phase = phaseBack
		if err = x.swap.write(); err == nil {
			err = x.swap.back()
		}
	}
	if err != nil {
		f.Back = errors.Join(stopped, err)
		x.stuck(f)
		return
	}
	x.cleanUp(f)
}

// stuck says where the old database is that could not be put back. The marker stays: the next restore goes on with this.
func (x *exchange) stuck(f *steps.Failure) {
	f.Safety = x.set(x.swap.marker.Safety)
	x.work.Leave()
}

func (x *exchange) cleanUp(f *steps.Failure) {
	x.swap.tidy()
	f.Failed = x.set(x.swap.marker.Failed)
	_ = x.work.Remove() // what stays is taken over by the next one
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

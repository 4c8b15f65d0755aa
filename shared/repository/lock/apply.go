package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/parallel"
)

// workers is how many objects are locked at the same time: a request each, and nothing to carry.
const workers = 64

// batch is how many objects are locked between two looks at the clock.
const batch = 8 * workers

// Apply carries the plan out until stop says that the time is over (nil: never). An object that can't be locked keeps no
// other from it; it is in Done. One that is gone is no failure: prune was faster.
//
// Errors: objstore.ErrNoLocks, the context's; then Done is what had been done.
func (p *Plan) Apply(ctx context.Context, store objstore.Locker, stop func() bool) (Done, error) {
	d := Done{Failed: map[int]error{}}
	// Holds first: they are few, and somebody's order.
	for _, one := range []struct {
		objects []int
		on      bool
	}{{p.Hold, true}, {p.Release, false}} {
		err := p.each(ctx, &d, one.objects, func(ctx context.Context, key string) error { return store.HoldLock(ctx, key, one.on) })
		if err != nil {
			return d, err
		}
	}
	d.Holds = len(d.Failed) == 0
	for d.Extended < len(p.Extend) {
		if stop != nil && stop() {
			return d, nil
		}
		part := p.Extend[d.Extended:min(d.Extended+batch, len(p.Extend))]
		err := p.each(ctx, &d, part, func(ctx context.Context, key string) error {
			return store.ExtendLock(ctx, key, p.rules.Mode, p.Until)
		})
		if err != nil {
			return d, err // some of the part were locked: that is not known next time, and harms nothing
		}
		d.Extended += len(part)
	}
	return d, nil
}

func (p *Plan) each(ctx context.Context, d *Done, objects []int, fn func(context.Context, string) error) error {
	var mu sync.Mutex // guards d.Failed
	return parallel.Each(ctx, workers, objects, func(ctx context.Context, o int) error {
		err := fn(ctx, p.objects[o].Key)
		switch {
		case err == nil, errors.Is(err, objstore.ErrNotExist):
		case errors.Is(err, objstore.ErrNoLocks), ctx.Err() != nil:
			return err
		default:
			mu.Lock()
			defer mu.Unlock()
			d.Failed[o] = err
		}
		return nil
	})
}

// Err says how many objects could not be locked, and why the first of them could not; nil if all were.
func (d *Done) Err() error {
	if len(d.Failed) == 0 {
		return nil
	}
	return fmt.Errorf("%d objects can not be locked for longer; the first: %w", len(d.Failed), d.Failed[d.errs()[0]])
}

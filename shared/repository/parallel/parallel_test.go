package parallel_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/parallel"
)

func TestEach(t *testing.T) {
	items := make([]int, 100)
	for i := range items {
		items[i] = i
	}
	var at, most, sum atomic.Int64
	err := parallel.Each(t.Context(), 4, items, func(_ context.Context, i int) error {
		n := at.Add(1)
		defer at.Add(-1)
		for {
			old := most.Load()
			if n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		sum.Add(int64(i))
		return nil
	})
	if err != nil || sum.Load() != 99*100/2 || most.Load() > 4 {
		t.Errorf("%v, sum %d, %d at a time", err, sum.Load(), most.Load())
	}
}

// TestEachFails begins nothing after the first error, which is the one that is told.
func TestEachFails(t *testing.T) {
	bad := errors.New("bad")
	var calls atomic.Int64
	err := parallel.Each(t.Context(), 1, make([]int, 50), func(ctx context.Context, _ int) error {
		if calls.Add(1) == 3 {
			return bad
		}
		return ctx.Err()
	})
	if !errors.Is(err, bad) || calls.Load() > 4 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := parallel.Each(ended, 2, []int{1}, func(context.Context, int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

package workers_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/source/workers"
)

func TestRun(t *testing.T) {
	bad := errors.New("bad")
	for name, c := range map[string]struct {
		job, run error
		want     error
	}{
		"all well": {}, "a job fails": {job: bad, want: bad}, "run fails": {run: bad, want: bad},
	} {
		var done atomic.Int64
		jobs := make(chan func() error)
		err := workers.Run(t.Context(), jobs, func(ctx context.Context) error {
			for range 100 {
				select {
				case jobs <- func() error { done.Add(1); return c.job }:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return c.run
		})
		if !errors.Is(err, c.want) || c.want == nil && (err != nil || done.Load() != 100) {
			t.Errorf("%s: %v after %d jobs", name, err, done.Load())
		}
	}
}

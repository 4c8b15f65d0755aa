// Package workers does jobs of a capture on all processors.
package workers

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Run has run send jobs to a channel, which Run closes when run has returned, and as many workers as there are processors do
// them. The first error, of a job or of run, ends the context that run is given, and is returned when all have ended: run must
// not wait for a job to be taken once its context has ended.
func Run(ctx context.Context, jobs chan func() error, run func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			for job := range jobs {
				if err := job(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(jobs)
		return run(ctx)
	})
	return group.Wait()
}

// Package parallel does the same with many objects of a repository, several at a time.
package parallel

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Each calls fn for the items, at most limit at a time, each in a goroutine of its own. The first error ends the context that fn
// is given, and no other item is begun then. It returns that error, or that of ctx, once all have returned.
func Each[T any](ctx context.Context, limit int, items []T, fn func(context.Context, T) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for _, item := range items {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return fn(gctx, item) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

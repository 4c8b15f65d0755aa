package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// slowly is a repository that takes its time.
type slowly struct {
	*world
	takes time.Duration
}

func (s slowly) Newest(ctx context.Context, p *policy.Policy, src snapshot.Source) (control.Evidence, error) {
	select {
	case <-time.After(s.takes):
		return s.world.Newest(ctx, p, src)
	case <-ctx.Done():
		return control.Evidence{}, ctx.Err()
	}
}

// TestLooksTakeTooLong: looking at all hosts takes longer than an invocation may. What was looked at is done, and the
// next ticks do the rest: otherwise each would begin with the same looks, and nothing would ever be asked for.
func TestLooksTakeTooLong(t *testing.T) { synctest.Test(t, looksTakeTooLong) }

func looksTakeTooLong(t *testing.T) {
	w := calm(t, fleet(200, 1))
	w.fn.manifests = slowly{w, 40 * time.Millisecond} // 200 by 32 at once: a quarter of a second
	for n := 0; len(w.sent) < 200; n++ {
		if n == 12 {
			t.Fatalf("%d hosts got jobs in %d ticks", len(w.sent), n)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
		_, err := w.fn.tick(ctx, &events.Tick{Time: w.clock})
		cancel()
		if err != nil {
			t.Error(err)
		}
		w.clock = w.clock.Add(time.Minute)
	}
}

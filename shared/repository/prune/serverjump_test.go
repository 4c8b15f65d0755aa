package prune_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestServerClockJumps: the clock of a server jumps ahead by a month, the host's does not. Where it is known that it may,
// neither an announcement nor what a running backup has stored ages by that.
func TestServerClockJumps(t *testing.T) {
	for _, known := range []bool{false, true} {
		f := history(t)
		server := f.Now
		f.Store.SetClock(func() time.Time { return server })
		opts := prune.Options{Decisions: keep(5), HostClock: known}
		run(t, f, opts)
		f.Abandon(t, repotest.Tree{"/srv/x": repotest.Noise(99, 30_000)})
		f.Now, server = f.Now.Add(time.Minute), server.Add(31*day)
		rep := run(t, f, opts)
		if gone := len(rep.Removed) + rep.Packs; known && gone > 0 || !known && gone == 0 {
			t.Errorf("known %v: %+v", known, rep)
		}
	}
}

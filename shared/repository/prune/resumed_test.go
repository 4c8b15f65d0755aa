package prune_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestResumedWithAWrongClock: a run is cut off right before its manifest. The next one takes up all that it stored, down to the
// list, and has nothing of its own to store. By the host's clock, which was set back, minutes have passed; by the store's it is
// weeks, and prune is about to remove all of it.
func TestResumedWithAWrongClock(t *testing.T) {
	f := repotest.New(t)
	storeNow := f.Now
	f.Store.SetClock(func() time.Time { return storeNow })
	tree := repotest.Tree{"/srv/a": repotest.Noise(1, 30_000)}
	f.Backup(t, snapshot.Full, tree)
	tree = tree.With("/srv/a", repotest.Noise(2, 30_000))
	errCut := errors.New("cut")
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && strings.Contains(c.Key, "/snapshots/") {
			return mem.Fault{Err: errCut}
		}
		return mem.Fault{}
	})
	if _, err := f.TryBackup(t.Context(), snapshot.Incremental, tree); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	f.Now, storeNow = f.Now.Add(time.Minute), storeNow.Add(13*day)
	once := false
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op != mem.Put || !strings.Contains(c.Key, "/snapshots/") || once {
			return mem.Fault{}
		}
		once = true
		storeNow = storeNow.Add(2 * day)
		run(t, f, prune.Options{})
		return mem.Fault{}
	})
	_, err := f.TryBackup(t.Context(), snapshot.Incremental, tree)
	if err != nil && !errors.Is(err, repository.ErrTooOld) {
		t.Fatal(err)
	}
	f.Store.SetHook(nil)
	sound(t, f)
	// The next one stores it anew.
	f.Backup(t, snapshot.Incremental, tree)
	sound(t, f)
}

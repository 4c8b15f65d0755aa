package prune_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestMarkBesideTheRecord: who sets a mark and finds no record of a removal then keeps the snapshot, at whatever moment that
// is. The record goes again, and the next run says nothing else.
func TestMarkBesideTheRecord(t *testing.T) {
	f := history(t)
	run(t, f, prune.Options{Decisions: keep(5)})
	f.Now = f.Now.Add(8 * day)
	once := false
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && strings.HasSuffix(c.Key, "/expired/0000000002.json") && !once {
			once = true
			mark(t, f, 2, "a", record.Mark{Mark: record.Pin})
		}
		return mem.Fault{}
	})
	rep := run(t, f, prune.Options{Decisions: keep(5)})
	f.Store.SetHook(nil)
	if diff := cmp.Diff([]uint64{1, 3, 4}, sequences(rep.Removed)); diff != "" || !once {
		t.Error(diff)
	}
	for range 2 {
		wantThere(t, f, 2, 5)
		if left := repotest.Keys(f.Store, "/expired/0000000002.json"); len(left) > 0 {
			t.Errorf("%q", left)
		}
		f.Now = f.Now.Add(30 * day)
		run(t, f, prune.Options{Decisions: keep(5)})
	}
}

package repair_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestUndeleteLogs hides and overwrites all of a log: heads, pieces and segments. With a key and without one it is there again.
func TestUndeleteLogs(t *testing.T) {
	made := func(t *testing.T) (*repotest.Fixture, *mem.Store, log.Range) {
		f := history(t)
		w := f.OpenLog(t, "", 0, nil)
		start := log.Place{Stream: w.Stream()}
		end := f.WriteLog(t, w, 1, 20, time.Second)
		if n, err := w.Join(t.Context(), 0); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		end = f.WriteLog(t, f.OpenLog(t, w.Stream(), 1, &end), 21, 5, time.Second)
		f.Store.KeepVersions()
		plain := f.Store.Clone()
		f.Now = f.Now.Add(time.Hour)
		attack(t, f.Store, plain, f.Store.Overwrite)
		return f, plain, log.Range{From: start, Through: end}
	}
	t.Run("with a key", func(t *testing.T) {
		f, plain, rg := made(t)
		res, err := repair.Undelete(t.Context(), f.Store, f.Identity, repair.UndeleteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantHealed(t, res, plain.Keys())
		repotest.WantSame(t, f.Store, plain)
		if got, err := f.ReadLog(t, f.Store, rg); err != nil || len(got) != 25 {
			t.Errorf("%d records, %v", len(got), err)
		}
	})
	t.Run("without", func(t *testing.T) {
		f := history(t)
		blind := f.Grant(t, "*")
		w := f.OpenLog(t, "", 0, nil)
		f.WriteLog(t, w, 1, 5, time.Second)
		f.Store.KeepVersions()
		plain := f.Store.Clone()
		f.Now = f.Now.Add(time.Hour)
		for _, key := range repotest.Keys(f.Store, "/log/") {
			f.Store.Overwrite(key, []byte("garbage"))
			if err := f.Store.Hide(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		res, err := repair.Undelete(t.Context(), f.Store, blind, repair.UndeleteOptions{})
		if err != nil || len(res.Left) > 0 || len(res.Healed) != 1+5 {
			t.Errorf("%v, %+v", err, res)
		}
		repotest.WantSame(t, f.Store, plain)
	})
}

// TestUndeleteBesideArchived hides a pack of which the versions must be thawed before they can be read: it waits, and all others
// are healed.
func TestUndeleteBesideArchived(t *testing.T) {
	f, plain := versioned(t)
	keys := plain.Keys()
	for _, key := range keys {
		if err := f.Store.Hide(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	frozen := repotest.Keys(plain, "/packs/")[0]
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && c.Key == frozen {
			return mem.Fault{Err: objstore.ErrArchived}
		}
		return mem.Fault{}
	})
	res, err := repair.Undelete(t.Context(), f.Store, f.Identity, repair.UndeleteOptions{})
	if err != nil || len(res.Healed) != len(keys)-1 || len(res.Left) != 1 || res.Left[0].Key != frozen || res.Left[0].Reason == "" {
		t.Errorf("%v, %d healed of %d, left %+v", err, len(res.Healed), len(keys), res.Left)
	}
}

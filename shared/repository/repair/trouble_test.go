package repair_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestPassingTrouble changes nothing because a store does not answer.
func TestPassingTrouble(t *testing.T) {
	f := history(t)
	packs := repotest.Keys(f.Store, "/packs/")
	markDamaged(t, f, packs[0])
	before := f.Store.Clone()
	for _, fault := range []error{objstore.Transient(errors.New("cut")), objstore.ErrDenied} {
		f.Store.SetHook(func(c mem.Call) mem.Fault {
			if c.Op == mem.Get && c.Key == packs[0] {
				return mem.Fault{Err: fault}
			}
			return mem.Fault{}
		})
		if _, err := repair.Run(t.Context(), f.Store, f.Identity, repair.Options{From: before}); !errors.Is(err, fault) {
			t.Errorf("%v", err)
		}
		f.Store.SetHook(nil)
		repotest.WantSame(t, f.Store, before)
	}
	// A disk that can not read a sector any more is another thing.
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && c.Key == packs[0] {
			return mem.Fault{Err: errors.New("input/output error")}
		}
		return mem.Fault{}
	})
	if res := run(t, f, f.Store, repair.Options{From: before}); outcomes(res)[packs[0]] != repair.PutBack || f.Store.Count(mem.Delete) != 2 {
		t.Errorf("%+v", res)
	}
}

// TestLocked has a store that forbids to delete the damaged objects: one without versions, and one with.
func TestLocked(t *testing.T) {
	f := history(t)
	pack := repotest.Keys(f.Store, "/packs/")[0]
	mark := markDamaged(t, f, pack)
	good, _ := f.Store.Object(pack)
	store := f.Store.Clone()
	store.Tamper(pack, flip(good))
	store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Delete {
			return mem.Fault{Err: objstore.ErrLocked}
		}
		return mem.Fault{}
	})
	res := run(t, f, store, repair.Options{From: f.Store})
	if outcomes(res)[pack] != repair.Left || res.Items[0].Reason != "the store has locked it" {
		t.Errorf("%+v", res)
	}
	store = f.Store.Clone()
	store.KeepVersions()
	store.Tamper(pack, flip(good))
	store.Lock(pack)
	store.Lock(mark)
	if res := run(t, f, store, repair.Options{From: f.Store}); outcomes(res)[pack] != repair.PutBack || !res.OK() {
		t.Errorf("%+v", res)
	}
	f.Store.Tamper(mark, nil)
	repotest.WantSame(t, store, f.Store)
	wantVerified(t, f, store)
	// What repair has hidden stays so, and what it stored stays on top.
	undone, err := repair.Undelete(t.Context(), store, f.Identity, repair.UndeleteOptions{})
	if err != nil || len(undone.Healed)+len(undone.Left) > 0 {
		t.Errorf("%v, %+v", err, undone)
	}
	repotest.WantSame(t, store, f.Store)
}

// TestCrashAnywhere stops a repair at each call of the store, when it took effect. Nothing that was in order is
// lost, and the next run comes to the same end.
func TestCrashAnywhere(t *testing.T) {
	f := history(t)
	from := f.Store.Clone()
	damaged := f.Store.Clone()
	intact := map[string]bool{}
	for i, key := range damaged.Keys() {
		good, _ := damaged.Object(key)
		switch {
		case key == layout.AccessKey(1), i%3 == 0, strings.Contains(key, "/receipts/"):
			intact[key] = true
		case i%3 == 1:
			damaged.Tamper(key, nil)
		default:
			damaged.Tamper(key, flip(good))
		}
	}
	for _, key := range repotest.Keys(f.Store, "/packs/") {
		markDamaged(t, f, key)
	}
	for _, key := range repotest.Keys(f.Store, "/damaged/") {
		b, _ := f.Store.Object(key)
		damaged.Tamper(key, b)
	}
	crashAnywhere(t, f, damaged, from, intact)
}

// TestCrashAnywhereVersions is the same where objects are hidden in a store that keeps versions.
func TestCrashAnywhereVersions(t *testing.T) {
	f := history(t)
	from := f.Store.Clone()
	f.Store.KeepVersions()
	intact := map[string]bool{}
	for i, key := range f.Store.Keys() {
		switch {
		case key == layout.AccessKey(1), i%3 == 0, strings.Contains(key, "/receipts/"):
			intact[key] = true
			continue
		case i%3 == 1:
			good, _ := f.Store.Object(key)
			f.Store.Overwrite(key, flip(good))
			f.Store.Lock(key)
		}
		if err := f.Store.Hide(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	crashAnywhere(t, f, f.Store, from, intact)
}

func crashAnywhere(t *testing.T, f *repotest.Fixture, damaged, from *mem.Store, intact map[string]bool) {
	errCrash := objstore.Transient(errors.New("crash"))
	// One before a call leaves what one after the call before it leaves: calls come one after the other.
	crashes := 0
	for n := 1; ; n++ {
		store := damaged.Clone()
		store.SetHook(func(c mem.Call) mem.Fault {
			switch {
			case c.Number < n:
				return mem.Fault{}
			case c.Number == n:
				return mem.Fault{Err: errCrash, Persisted: true}
			}
			return mem.Fault{Err: errCrash}
		})
		_, err := repair.Run(t.Context(), store, f.Identity, repair.Options{From: from, Workers: 1})
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("call %d: %v", n, err)
		}
		crashes++
		store = store.Clone()
		what := fmt.Sprintf("call %d", n)
		for key := range intact {
			got, _ := store.Object(key)
			if want, _ := from.Object(key); string(got) != string(want) {
				t.Fatalf("%s: %s was lost", what, key)
			}
		}
		if res := run(t, f, store, repair.Options{From: from}); !res.OK() {
			t.Fatalf("%s: %+v", what, res)
		}
		repotest.WantSame(t, store, from)
		if t.Failed() {
			t.Fatal(what)
		}
	}
	if crashes < 40 {
		t.Errorf("only %d crashes", crashes)
	}
}

package prune_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

func mark(t *testing.T, f *repotest.Fixture, n uint64, id string, m record.Mark) {
	t.Helper()
	stored, err := f.Repo.Manifest(t.Context(), f.ID(n))
	if err != nil {
		t.Fatal(err)
	}
	m.Sequence, m.Manifest, m.Time = n, stored.Hash.String(), f.Now
	if err := f.Repo.PutDocument(t.Context(), layout.MarkKey(f.ID(n), strings.Repeat(id, 32)), m); err != nil {
		t.Fatal(err)
	}
}

func TestMarksProtect(t *testing.T) {
	f := history(t)
	mark(t, f, 1, "a", record.Mark{Mark: record.Hold})
	rep := run(t, f, prune.Options{Decisions: keep(5)})
	if diff := cmp.Diff([]uint64{2, 3, 4}, sequences(rep.Condemned)); diff != "" {
		t.Error(diff)
	}
	mark(t, f, 3, "b", record.Mark{Mark: record.Pin})
	f.Now = f.Now.Add(8 * day)
	rep = run(t, f, prune.Options{Decisions: keep(5)})
	if diff := cmp.Diff([]uint64{2, 4}, sequences(rep.Removed)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]uint64{3}, sequences(rep.Withdrawn)); diff != "" {
		t.Error(diff)
	}
	wantThere(t, f, 1, 3, 5)
	// When the pin ends the waiting begins anew.
	f.Now = f.Now.Add(8 * day)
	mark(t, f, 3, "c", record.Mark{Mark: record.Pin, Ends: strings.Repeat("b", 32)})
	rep = run(t, f, prune.Options{Decisions: keep(5)})
	if diff := cmp.Diff([]uint64{3}, sequences(rep.Condemned)); diff != "" || len(rep.Removed) != 0 {
		t.Error(diff)
	}
	// A mark that nobody can read protects.
	key := layout.MarkKey(f.ID(1), strings.Repeat("a", 32))
	b, _ := f.Store.Object(key)
	f.Store.Tamper(key, b[1:])
	rep = run(t, f, prune.Options{Decisions: keep(5)})
	if len(rep.Condemned) != 0 {
		t.Errorf("%+v", rep)
	}
}

// TestMarkAtTheLastMoment: a mark that arrives while prune is at work is honoured.
func TestMarkAtTheLastMoment(t *testing.T) {
	f := history(t)
	run(t, f, prune.Options{Decisions: keep(5)})
	f.Now = f.Now.Add(8 * day)
	once := false
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && strings.Contains(c.Key, "/receipts/") && !once {
			once = true
			mark(t, f, 2, "a", record.Mark{Mark: record.Hold})
			if err := prune.Uncondemn(t.Context(), f.Repo, f.ID(3)); err != nil {
				t.Error(err)
			}
		}
		return mem.Fault{}
	})
	rep := run(t, f, prune.Options{Decisions: keep(5)})
	f.Store.SetHook(nil)
	if diff := cmp.Diff([]uint64{1, 4}, sequences(rep.Removed)); diff != "" {
		t.Error(diff)
	}
	wantThere(t, f, 2, 3, 5)
}

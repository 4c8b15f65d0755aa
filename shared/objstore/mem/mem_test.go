package mem_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) objstore.Store { return mem.New() })
}

func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	ctx := t.Context()
	for _, persisted := range []bool{false, true} {
		s := mem.New()
		if err := s.Put(ctx, "old", objstore.Bytes([]byte("old"))); err != nil {
			t.Fatal(err)
		}
		var seen []mem.Call
		s.SetHook(func(c mem.Call) mem.Fault {
			seen = append(seen, c)
			return mem.Fault{Err: broken, Persisted: persisted}
		})
		listed := 0
		for op, err := range map[string]error{
			"put":    s.Put(ctx, "new", objstore.Bytes([]byte("new"))),
			"delete": s.Delete(ctx, "old"),
			"list":   s.List(ctx, "", func(objstore.Info) error { listed++; return nil }),
		} {
			if !errors.Is(err, broken) {
				t.Errorf("%s: %v", op, err)
			}
		}
		if _, err := s.Get(ctx, "old", 0, -1); err == nil {
			t.Error("get passed")
		}
		if _, err := s.Stat(ctx, "old"); err == nil {
			t.Error("stat passed")
		}
		want := []mem.Call{{2, mem.Put, "new"}, {3, mem.Delete, "old"}, {4, mem.List, ""}, {5, mem.Get, "old"}, {6, mem.Stat, "old"}}
		if d := cmp.Diff(want, seen); d != "" {
			t.Error(d)
		}
		wantKeys, wantListed := []string{"old"}, 0
		if persisted {
			wantKeys, wantListed = []string{"new"}, 1
		}
		if d := cmp.Diff(wantKeys, s.Clone().Keys()); d != "" {
			t.Errorf("persisted %v: %s", persisted, d)
		}
		if listed != wantListed {
			t.Errorf("persisted %v: listed %d", persisted, listed)
		}
		if s.Calls() != 6 || s.Count(mem.Put) != 2 || s.Count(mem.Delete) != 1 {
			t.Errorf("calls: %d, %d put", s.Calls(), s.Count(mem.Put))
		}
	}
}

func TestCloneAndClock(t *testing.T) {
	ctx, at := t.Context(), time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	s := mem.New()
	s.SetClock(func() time.Time { return at })
	if err := s.Put(ctx, "a", objstore.Bytes([]byte("a"))); err != nil {
		t.Fatal(err)
	}
	c := s.Clone()
	if err := c.Put(ctx, "b", objstore.Bytes(nil)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a", "b"}, c.Keys()); d != "" {
		t.Error(d)
	}
	if i, err := c.Stat(ctx, "b"); err != nil || !i.Modified.Equal(at) {
		t.Error(i, err)
	}
	c.SetModified("b", at.Add(time.Hour))
	if i, err := c.Stat(ctx, "b"); err != nil || !i.Modified.Equal(at.Add(time.Hour)) {
		t.Error(i, err)
	}
}

func TestTamper(t *testing.T) {
	ctx, s := t.Context(), mem.New()
	if err := s.Put(ctx, "a", objstore.Bytes([]byte("good"))); err != nil {
		t.Fatal(err)
	}
	before, err := s.Stat(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	s.Tamper("a", []byte("evil"))
	after, err := s.Stat(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Error(d)
	}
	if b, ok := s.Object("a"); !ok || string(b) != "evil" {
		t.Errorf("%q", b)
	}
	s.Tamper("a", nil)
	s.Tamper("b", []byte{})
	if d := cmp.Diff([]string{"b"}, s.Keys()); d != "" {
		t.Error(d)
	}
}

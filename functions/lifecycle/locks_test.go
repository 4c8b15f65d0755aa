package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestFreeze has a restore that runs while removals are due.
func TestFreeze(t *testing.T) {
	s := newStage(t, "{keep_last: 2}")
	s.Store.KeepLocks(0)
	s.f.rules.Mode = ""
	for range 3 {
		s.backup(snapshot.Full)
	}
	s.call(tick)
	s.Now = s.Now.Add(8 * day)
	freeze := func(until time.Duration) {
		t.Helper()
		if err := control.FreezeSource(t.Context(), s.state, s.Source, s.Now, s.Now.Add(until), "restore 1"); err != nil {
			t.Fatal(err)
		}
	}
	freeze(2 * day)
	s.call(tick)
	if s.doc().Frozen == "" || len(s.CheckAll(t, s.Store)) != 3 {
		t.Errorf("%+v", s.doc())
	}
	// A freeze that comes in the midst of a pass stops it at the next deletion.
	s.Now = s.Now.Add(3 * day)
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && strings.Contains(c.Key, "/expired/") {
			freeze(day)
		}
		return mem.Fault{}
	})
	s.call(tick)
	s.Store.SetHook(nil)
	if len(s.CheckAll(t, s.Store)) != 3 || s.doc().Frozen == "" {
		t.Errorf("%+v", s.doc())
	}
	s.Now = s.Now.Add(2 * day)
	s.call(tick)
	if len(s.CheckAll(t, s.Store)) != 2 || s.doc().Frozen != "" {
		t.Errorf("%+v", s.doc())
	}
}

// TestHolds has a legal hold come and go.
func TestHolds(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	m, err := s.Repo.Manifest(t.Context(), s.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	mark := func(id string, k record.Mark) {
		t.Helper()
		k.Sequence, k.Manifest, k.Time = 1, m.Hash.String(), s.Now
		if err := s.Repo.PutDocument(t.Context(), layout.MarkKey(s.ID(1), id), k); err != nil {
			t.Fatal(err)
		}
	}
	a, b := strings.Repeat("a", 32), strings.Repeat("b", 32)
	mark(a, record.Mark{Mark: record.Hold, Value: "case 7"})
	s.call(tick)
	held := func() int {
		n := 0
		for _, key := range s.Store.Keys() {
			if l, err := s.Store.LockOf(t.Context(), key); err != nil {
				t.Fatal(err)
			} else if l.Hold {
				n++
			}
		}
		return n
	}
	if held() < 4 {
		t.Errorf("%d objects on hold", held())
	}
	for range 5 {
		s.Now = s.Now.Add(40 * day)
		s.call(tick)
	}
	if got := s.CheckAll(t, s.Store); !slices.Contains(got, 1) {
		t.Errorf("what is held is gone: %v", got)
	}
	mark(b, record.Mark{Mark: record.Hold, Ends: a})
	s.Now = s.Now.Add(day)
	s.call(tick)
	if held() != 0 {
		t.Errorf("%d objects still on hold", held())
	}
	for range 5 {
		s.Now = s.Now.Add(40 * day)
		s.call(tick)
	}
	if diff := cmp.Diff([]uint64{3}, s.CheckAll(t, s.Store)); diff != "" {
		t.Error(diff)
	}
}

// TestLocksInTrouble say so, and nothing is believed.
func TestLocksInTrouble(t *testing.T) {
	s := newStage(t, "{daily: 30}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Lock && strings.Contains(c.Key, "/packs/") {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	if out := s.call(tick); out.Failed != 1 || !slices.Contains(s.findings(), "lock: locked for less time than it is kept") {
		t.Errorf("%+v, %v", out, s.findings())
	}
	if d := s.doc(); d.Protected == nil || !d.Protected.Until.Before(d.Protected.Wanted) || d.Error == "" {
		t.Errorf("%+v", d)
	}
	s.Store.SetHook(nil)
	if out := s.call(tick); out.Done != 1 || len(s.findings()) > 0 || s.doc().Error != "" {
		t.Errorf("%+v, %v", out, s.findings())
	}
}

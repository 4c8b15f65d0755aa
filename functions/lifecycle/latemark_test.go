package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestPinAtTheLastMoment sets a pin while the record of a removal is put: the snapshot stays, and the pass is a whole one with
// the rights that the function has.
func TestPinAtTheLastMoment(t *testing.T) {
	s := newStage(t, "{daily: 3}")
	s.f.rules.Mode = "" // a lock would keep the snapshot anyhow
	pinned := ""
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && strings.Contains(c.Key, "/expired/") && pinned == "" {
			pinned = c.Key
			n, err := layout.ParseNumbered(layout.ExpiredPrefix(s.Source), c.Key)
			if err != nil {
				t.Error(err)
			}
			m, err := s.Repo.Manifest(t.Context(), s.ID(n))
			if err != nil {
				t.Error(err)
			}
			err = s.Repo.PutDocument(t.Context(), layout.MarkKey(s.ID(n), strings.Repeat("a", 32)), record.Mark{
				Sequence: n, Manifest: m.Hash.String(), Mark: record.Pin, Time: s.Now,
			})
			if err != nil {
				t.Error(err)
			}
		}
		return mem.Fault{}
	})
	for range 30 {
		s.backup(snapshot.Full)
		if out := s.call(tick); out.Failed > 0 {
			t.Fatal(s.doc().Error)
		}
	}
	s.Store.SetHook(nil)
	for range 4 { // until the lock of the record ends
		s.Now = s.Now.Add(10 * day)
		s.call(tick)
	}
	n, err := layout.ParseNumbered(layout.ExpiredPrefix(s.Source), pinned)
	if err != nil {
		t.Fatal(err)
	}
	if left := s.CheckAll(t, s.Store); !slices.Contains(left, n) {
		t.Errorf("snapshot %d is gone: %v are there", n, left)
	}
	if slices.Contains(repotest.Keys(s.Store, "/expired/"), pinned) {
		t.Error("its removal is on record")
	}
}

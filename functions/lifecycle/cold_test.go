package main

import (
	"slices"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestCold tags the packs of a chain that is closed, old and proven, and of no other.
func TestCold(t *testing.T) {
	s := newStage(t, "{daily: 300}")
	s.f.env.Cold = 40 * day
	for n := range 4 {
		kind := snapshot.Incremental
		if n%2 == 0 {
			kind = snapshot.Full
		}
		s.backup(kind)
	}
	tagged := func() int {
		n := 0
		for _, key := range repotest.Keys(s.Store, "/packs/") {
			if s.Store.TagOf(key) == "holdfast-class=cold" {
				n++
			}
		}
		return n
	}
	s.call(tick)
	if tagged() != 0 {
		t.Error("too soon")
	}
	s.Now = s.Now.Add(50 * day)
	if out := s.call(`{"dry_run":true,"sources":["governance-1/app"]}`); out.Reports[0].Cold == nil || out.Reports[0].Cold.Packs == 0 || tagged() != 0 {
		t.Errorf("%+v", out.Reports[0].Cold)
	}
	s.call(tick)
	m, err := s.Repo.Manifest(t.Context(), s.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	packs := len(repotest.Keys(s.Store, "/packs/"+m.Chain+"/"))
	if tagged() != packs || !slices.Contains(s.doc().Cold, m.Chain) || len(s.doc().Cold) != 1 {
		t.Errorf("%d of %d packs tagged, %v", tagged(), packs, s.doc().Cold)
	}
	calls := s.Store.Count(mem.Tag)
	s.Now = s.Now.Add(day)
	if s.call(tick); s.Store.Count(mem.Tag) != calls {
		t.Error("tagged once more")
	}
}

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestForeignVersions has somebody hide and overwrite objects.
func TestForeignVersions(t *testing.T) {
	s := newStage(t, "{daily: 30}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	if s.call(tick); len(s.findings()) > 0 {
		t.Errorf("%v", s.findings())
	}
	packs := repotest.Keys(s.Store, "/packs/")
	s.Store.Overwrite(packs[0], []byte("garbage"))
	if err := s.Store.Hide(t.Context(), packs[1]); err != nil {
		t.Fatal(err)
	}
	s.Now = s.Now.Add(day)
	s.call(tick)
	if diff := cmp.Diff([]string{"versions: hidden by a delete marker", "versions: more than one version"}, slices.Sorted(slices.Values(s.findings()))); diff != "" {
		t.Error(diff)
	}
}

// TestReplica lags, differs and is pruned by what stands in itself.
func TestReplica(t *testing.T) {
	s := newStage(t, "{keep_last: 3}")
	for range 4 {
		s.backup(snapshot.Full)
	}
	s.replica = s.Store.Clone()
	manifest := layout.ManifestKey(s.ID(4))
	s.replica.Tamper(manifest, nil)
	s.Now = s.Now.Add(2 * day)
	out := s.call(`{"sources":["governance-1/app"]}`)
	r := out.Reports[0].Replica
	if out.Failed > 0 || r == nil || r.Missing != 1 || !strings.Contains(r.First, manifest) || !slices.Contains(s.findings(), "replica: the replica is not like the primary") {
		t.Errorf("%+v, %v", out.Reports[0], s.findings())
	}
	if l, err := s.replica.LockOf(t.Context(), layout.ManifestKey(s.ID(3))); err != nil || l.Until.Before(s.Now.Add(lock.Slack)) {
		t.Errorf("%+v, %v", l, err)
	}
	doc, _ := s.Store.Object(manifest)
	s.replica.Tamper(manifest, doc)
	for range 6 {
		s.Now = s.Now.Add(20 * day)
		s.replicate()
		if out := s.call(tick); out.Failed > 0 {
			t.Fatalf("%+v", s.doc())
		}
	}
	for name, store := range map[string]*mem.Store{"primary": s.Store, "replica": s.replica} {
		if diff := cmp.Diff([]uint64{2, 3, 4}, s.CheckAll(t, store)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if len(s.findings()) > 0 {
		t.Errorf("%v", s.findings())
	}
}

// replicate does what replication of the bucket does.
func (s *stage) replicate() {
	for _, key := range s.Store.Keys() {
		data, _ := s.Store.Object(key)
		if _, there := s.replica.Object(key); !there {
			_ = s.replica.Put(s.t.Context(), key, objstore.Bytes(data))
		}
	}
}

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

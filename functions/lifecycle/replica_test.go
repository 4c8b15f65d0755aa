package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// TestReplica lags, differs and is pruned by what stands in itself.
func TestReplica(t *testing.T) {
	s := newStage(t, "{keep_last: 3}")
	for range 4 {
		s.backup(snapshot.Full)
	}
	s.copied()
	manifest := layout.ManifestKey(s.ID(4))
	s.replica.Tamper(manifest, nil)
	s.Now = s.Now.Add(2 * day)
	out := s.callSecond(`{"sources":["governance-1/app"]}`)
	r := out.Reports[0].Replica
	if out.Failed > 0 || r == nil || r.Missing != 1 || !strings.Contains(r.First, manifest) || !slices.Contains(s.findingsIn(s.there), "replica: the replica is not like the primary") {
		t.Errorf("%+v, %v", out.Reports[0], s.findingsIn(s.there))
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
		if out := s.callSecond(tick); out.Failed > 0 {
			t.Fatalf("%+v", s.docIn(s.there))
		}
	}
	for name, store := range map[string]*mem.Store{"primary": s.Store, "replica": s.replica} {
		if diff := cmp.Diff([]uint64{2, 3, 4}, s.CheckAll(t, store)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if len(s.findings()) > 0 || len(s.findingsIn(s.there)) > 0 {
		t.Errorf("%v, %v", s.findings(), s.findingsIn(s.there))
	}
}

// TestReplicaTouchesOnlyItself: neither function writes what is the other's.
func TestReplicaTouchesOnlyItself(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	s.copied()
	primary, writes, locks := s.Store.Keys(), s.state.Count(memstate.Put), s.Store.Count(mem.Lock)
	for range 3 {
		s.Now = s.Now.Add(60 * day)
		// More than a fifth goes at once: a person agrees.
		out := s.callSecond(`{"sources":["governance-1/app"]}`)
		if w := out.Reports[0].Waiting; w != nil {
			out = s.callSecond(fmt.Sprintf(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":%q}}`, w.Plan))
		}
		if out.Failed > 0 || out.Done != 1 {
			t.Fatalf("%+v", out.Reports[0])
		}
	}
	if diff := cmp.Diff(primary, s.Store.Keys()); diff != "" || s.state.Count(memstate.Put) != writes || s.Store.Count(mem.Lock) != locks {
		t.Errorf("the first region was changed: %s", diff)
	}
	if len(s.CheckAll(t, s.replica)) != 1 {
		t.Errorf("%v", s.CheckAll(t, s.replica))
	}
	replica, writes := s.replica.Keys(), s.there.Count(memstate.Put)
	s.call(tick)
	if diff := cmp.Diff(replica, s.replica.Keys()); diff != "" || s.there.Count(memstate.Put) != writes {
		t.Errorf("the second region was changed: %s", diff)
	}
}

// TestFirstRegionIsGone: locks of the replica go on, and nothing of it is removed.
func TestFirstRegionIsGone(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	s.copied()
	s.callSecond(tick)
	gone := errors.New("region is down")
	s.state.Before = func(memstate.Op, string) error { return gone }
	s.Store.SetHook(func(mem.Call) mem.Fault { return mem.Fault{Err: gone} })
	for range 4 {
		s.Now = s.Now.Add(20 * day)
		s.callSecond(tick)
		if l, err := s.replica.LockOf(t.Context(), layout.ManifestKey(s.ID(3))); err != nil || l.Until.Before(s.Now.Add(lock.Slack)) {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if n := s.CheckAll(t, s.replica); len(n) != 3 || s.docIn(s.there).Frozen == "" {
		t.Errorf("%v are left, %+v", n, s.docIn(s.there))
	}
	// It is said that the source had no whole pass for days: nobody compared.
	if f := s.findingsIn(s.there); !slices.Contains(f, "pass: the source had no whole pass for days") {
		t.Errorf("%v", f)
	}
	s.state.Before = nil
	s.Store.SetHook(nil)
	s.Now = s.Now.Add(day)
	if s.callSecond(tick); s.docIn(s.there).Frozen != "" {
		t.Errorf("%+v", s.docIn(s.there))
	}
	// The first region answers, and its policy can't be read: a copy says what stays.
	s.stale = "a copy of the policy"
	if s.callSecond(`{"sources":["governance-1/app"]}`); s.docIn(s.there).Frozen != s.stale {
		t.Errorf("%+v", s.docIn(s.there))
	}
}

// TestReplicaObeysTheFreeze of the first region.
func TestReplicaObeysTheFreeze(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	s.copied()
	for range 4 {
		s.Now = s.Now.Add(20 * day)
		if err := control.FreezeSource(t.Context(), s.state, s.Source, s.Now, s.Now.Add(25*day), "restore 1"); err != nil {
			t.Fatal(err)
		}
		s.callSecond(tick)
	}
	if n := s.CheckAll(t, s.replica); len(n) != 3 || !strings.Contains(s.docIn(s.there).Frozen, "restore 1") {
		t.Errorf("%v are left, %+v", n, s.docIn(s.there))
	}
}

// TestReplicaAsks for itself before much of it goes.
func TestReplicaAsks(t *testing.T) {
	s := newStage(t, "{keep_last: 20}")
	for range 10 {
		s.backup(snapshot.Full)
	}
	s.copied()
	s.call(tick)
	s.callSecond(tick)
	s.rules("{keep_last: 2}")
	s.Now = s.Now.Add(day)
	s.call(tick)
	s.callSecond(tick)
	s.Now = s.Now.Add(9 * day)
	const asks = "retention: too many snapshots of the replica would go"
	w := s.call(`{"sources":["governance-1/app"]}`).Reports[0].Waiting
	there := s.callSecond(`{"sources":["governance-1/app"]}`).Reports[0].Waiting
	if w == nil || there == nil || !slices.Contains(s.findingsIn(s.there), asks) || slices.Contains(s.findings(), asks) {
		t.Fatalf("%+v, %+v, %v, %v", w, there, s.findings(), s.findingsIn(s.there))
	}
	s.call(fmt.Sprintf(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":%q}}`, w.Plan))
	if n := len(repotest.Keys(s.replica, "/condemned/")); n > 0 {
		t.Errorf("%d announced in the replica by an answer to the primary", n)
	}
	r := s.callSecond(fmt.Sprintf(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":%q}}`, there.Plan)).Reports[0]
	if r.Waiting != nil || slices.Contains(s.findingsIn(s.there), asks) || len(repotest.Keys(s.replica, "/condemned/")) != 8 {
		t.Errorf("%+v, %v", r.Prune, s.findingsIn(s.there))
	}
}

package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestMonths backs up every other day with a full a fortnight, keeps seven, and has a pass after each.
func TestMonths(t *testing.T) {
	s := newStage(t, "{daily: 7}")
	ever := map[string]bool{}
	for n := range 26 {
		kind := snapshot.Incremental
		if n%7 == 0 {
			kind = snapshot.Full
		}
		s.backup(kind)
		s.Now = s.Now.Add(day)
		for _, key := range s.Store.Keys() {
			ever[key] = true
		}
		if out := s.call(tick); out.Failed > 0 || out.Done != 1 {
			t.Fatalf("snapshot %d: %+v", n, out)
		}
		d := s.doc()
		if d.Protected == nil || d.Protected.Until.Before(d.Protected.Wanted) || len(s.findings()) > 0 {
			t.Fatalf("snapshot %d: %+v, %v", n, d.Protected, s.findings())
		}
	}
	numbers := s.CheckAll(t, s.Store)
	// Seven are kept, seven wait, and the locks of others last for a step more.
	if len(numbers) < 10 || len(numbers) > 25 {
		t.Errorf("%d snapshots are left: %v", len(numbers), numbers)
	}
	journal := s.journaled()
	for _, key := range s.Store.Keys() {
		delete(ever, key)
	}
	for key := range ever {
		if !journal[key] {
			t.Errorf("%s was deleted and is not in the journal", key)
		}
	}
	if len(ever) == 0 || s.doc().Last == nil {
		t.Error("nothing ever went")
	}
	res, err := verify.Run(t.Context(), s.Open(t, s.Store), verify.Options{Level: verify.Content})
	if err != nil || !res.OK() {
		t.Errorf("%v, %+v", err, res)
	}
	// Of what is kept nothing can be deleted; whoever has all rights gets no further.
	for _, key := range append(repotest.Keys(s.Store, "/snapshots/"), layout.RepositoryKey, layout.AccessKey(1)) {
		if err := s.Store.Delete(t.Context(), key); !errors.Is(err, objstore.ErrLocked) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestStopsAndAsks has a policy that drops half of the snapshots.
func TestStopsAndAsks(t *testing.T) {
	s := newStage(t, "{daily: 30}")
	for range 10 {
		s.backup(snapshot.Full)
	}
	s.call(tick)
	s.rules("{daily: 3}")
	s.Now = s.Now.Add(day)
	if out := s.call(tick); out.Done != 1 || s.doc().Shortened == nil || !slices.Contains(s.findings(), "retention: retention was shortened") {
		t.Errorf("%+v, %v", out, s.findings())
	}
	s.Now = s.Now.Add(8 * day)
	before := s.Store.Keys()
	s.call(tick)
	w := s.doc().Waiting
	if w == nil || w.Drop != 7 || w.Total != 10 || len(w.Snapshots) != 7 || len(repotest.Keys(s.Store, "/condemned/")) > 0 {
		t.Fatalf("%+v", w)
	}
	if diff := cmp.Diff(before, s.Store.Keys()); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(s.findings(), "retention: too many snapshots would go") {
		t.Errorf("%v", s.findings())
	}
	// A dry run shows it, a wrong plan is none, the right one goes on.
	out := s.call(`{"dry_run":true,"sources":["governance-1/app"]}`)
	if len(out.Reports) != 1 || out.Reports[0].Waiting == nil || out.Reports[0].Waiting.Plan != w.Plan || len(out.Reports[0].Decisions) != 10 {
		t.Errorf("%+v", out)
	}
	s.call(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":"0123"}}`)
	if len(repotest.Keys(s.Store, "/condemned/")) > 0 {
		t.Error("a wrong plan was agreed to")
	}
	if _, err := s.f.handle(t.Context(), []byte(`{"confirm":{"governance-1/app":"`+w.Plan+`"}}`)); err == nil {
		t.Error("a plan of a source that is not named")
	}
	s.call(fmt.Sprintf(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":%q}}`, w.Plan))
	if n := len(repotest.Keys(s.Store, "/condemned/")); n != 7 || s.doc().Waiting != nil {
		t.Errorf("%d announced, %+v", n, s.doc().Waiting)
	}
}

// TestUnknownSource is in no policy: it loses nothing, and is protected.
func TestUnknownSource(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	s.Source.Name = "orphan"
	for range 5 {
		s.backup(snapshot.Full)
		s.Now = s.Now.Add(30 * day)
		s.call(tick)
	}
	if n := len(s.CheckAll(t, s.Store)); n != 5 || s.doc().Protected.Until.Before(s.Now) {
		t.Errorf("%d", n)
	}
}

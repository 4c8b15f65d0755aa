package main

import (
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestHiddenNewest has somebody put delete markers over the newest snapshot of a source and all that tells of it: when the
// markers are found, also after all locks have ended, what it needs is there.
func TestHiddenNewest(t *testing.T) {
	s := newStage(t, "{daily: 30}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	s.call(tick)
	for _, key := range append(repotest.Keys(s.Store, "0000000003.json"), repotest.Keys(s.Store, "/receipts/")...) {
		if err := s.Store.Hide(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if _, there := s.Store.Object(layout.ManifestKey(s.ID(3))); there {
		t.Fatal("the manifest is not hidden")
	}
	for range 20 {
		s.Now = s.Now.Add(10 * day)
		s.call(tick)
	}
	if !strings.Contains(strings.Join(s.findings(), "\n"), "hidden by a delete marker") {
		t.Errorf("%v", s.findings())
	}
	if _, err := repair.Undelete(t.Context(), s.Store, s.Repo.Identity(), repair.UndeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := s.CheckAll(t, s.Store); len(got) != 3 {
		t.Errorf("%v", got)
	}
	res, err := verify.Run(t.Context(), s.Open(t, s.Store), verify.Options{Level: verify.Content})
	if err != nil || !res.OK() {
		t.Errorf("%v, %+v", err, res)
	}
}

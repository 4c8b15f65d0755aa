package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

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

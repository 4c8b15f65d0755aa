package repository_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// A tree so large that only to look at it takes longer than a run may be old, and in which nothing changed, comes to its
// end too: also a run that stores nothing must see in time whether its parent is to stay.
func TestCheckpointWithoutNewContent(t *testing.T) {
	h := newSlowHost(t, 0)
	unfinished := 0
	for run, wait := range []time.Duration{0, 25 * time.Hour} {
		s, err := h.begin(t.Context(), "", func(*repository.Stored) { unfinished++ })
		if err != nil {
			t.Fatal(err)
		}
		for i := range 12 {
			h.wait(wait)
			e := &snapshot.Entry{Path: fmt.Sprintf("/etc/%02d", i), Type: snapshot.Symlink, Target: "x", MTime: mtime(nil)}
			if err := s.Emit(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: h.time(), Counts: snapshot.Counts{Others: 12}}); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
	}
	if unfinished == 0 || unfinished > 12 {
		t.Errorf("%d unfinished snapshots", unfinished)
	}
	wantVerified(t, h.repo)
}

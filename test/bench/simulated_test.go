package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/shared/policy"
)

// Days pass, and what retention does not keep goes when it has waited.
func TestSimulatedDays(t *testing.T) {
	p := place{home: filepath.Join(t.TempDir(), "home"), tree: t.TempDir()}
	start := simulatedStart()
	s, err := newSimulated(t.Context(), p, start)
	if err != nil {
		t.Fatal(err)
	}
	const days = 25
	for day := range days {
		if err := os.WriteFile(filepath.Join(p.tree, "f"), fmt.Appendf(nil, "day %d", day), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.day(t.Context(), start.AddDate(0, 0, day), policy.Retention{Daily: 2}); err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
	}
	manifests, err := s.repo.Manifests(t.Context(), s.src)
	if err != nil {
		t.Fatal(err)
	}
	// Two are kept and about seven wait.
	if n := len(manifests); n < 2 || n > 12 {
		t.Errorf("%d snapshots after %d days", n, days)
	}
	last := manifests[len(manifests)-1]
	if last.Sequence != days || !last.Arrived.Equal(start.AddDate(0, 0, days-1)) {
		t.Errorf("snapshot %d arrived at %v", last.Sequence, last.Arrived)
	}
}

package postgres_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

// TestAncestor wants that the history of a timeline tells those of the timelines that it came from.
func TestAncestor(t *testing.T) {
	h, err := postgres.ParseHistory(5, []byte("1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-11-20 12:00:00+00\n4\t1/5000000\t\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &postgres.TimelineHistory{Timeline: 4, Entries: h.Entries[:2]}
	if got, err := postgres.ParseHistory(4, h.Ancestor(4)); err != nil || !cmp.Equal(got, want) {
		t.Error(err, cmp.Diff(got, want))
	}
	for _, none := range []uint32{1, 3, 5, 6} {
		if got := h.Ancestor(none); got != nil {
			t.Errorf("timeline %d, which has no history or is no ancestor: %q", none, got)
		}
	}
}

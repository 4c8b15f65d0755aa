package replicate

import (
	"testing"
	"time"
)

// TestMakeups: some gaps are made up for at once; where they go on for ever, once a minute; and after a quiet time at once again.
func TestMakeups(t *testing.T) {
	var m Makeups
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now, n := begin, 0
	for now.Before(begin.Add(time.Hour)) {
		next := m.Next(now, 100*time.Millisecond)
		if least := now.Add(Rest(100 * time.Millisecond)); next.Before(least) {
			t.Fatalf("snapshot %d after %s", n, next.Sub(now))
		}
		if n++; n < makeupBurst && next.Sub(now) > time.Second {
			t.Errorf("snapshot %d waits for %s", n, next.Sub(now))
		}
		now = next
	}
	if most := makeupBurst + 60; n > most || n < most-2 {
		t.Errorf("%d in an hour, want about %d", n, most)
	}
	now = now.Add(time.Hour)
	if next := m.Next(now, time.Second); next.Sub(now) != Rest(time.Second) {
		t.Errorf("after an hour without: waits for %s", next.Sub(now))
	}
}

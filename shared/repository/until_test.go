package repository_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// TestUntil wants that a snapshot does not count as finished before the time that its source's own clock says, unless that clock
// is far off: then it would count as one of a host whose clock is wrong.
func TestUntil(t *testing.T) {
	m, state, now := mem.New(), t.TempDir(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	m.SetClock(clock)
	r, _ := initialise(t, m)
	for off, counts := range map[time.Duration]bool{
		-time.Minute: false, time.Minute: true, repository.ClockTolerance/2 - time.Second: true, repository.ClockTolerance: false,
	} {
		now = now.Add(time.Hour)
		s, err := r.Begin(t.Context(), repository.BeginOptions{Source: src, Kind: "files", State: state, Tool: "test", Now: clock})
		if err != nil {
			t.Fatal(err)
		}
		if err := store(t.Context(), s, randomFiles(1, 3, 1000)); err != nil {
			t.Fatal(err)
		}
		until := now.Add(off)
		m, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: now, Until: until})
		if err != nil {
			t.Fatal(err)
		}
		if m.Finished.Equal(until) != counts || m.Finished.Before(now) {
			t.Errorf("%s ahead: finished %s at %s", off, m.Finished, now)
		}
	}
}

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
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	for off, counts := range map[time.Duration]bool{
		-time.Minute: false, time.Minute: true, repository.ClockTolerance/2 - time.Second: true, repository.ClockTolerance: false,
	} {
		s, err := begin(t.Context(), r, state, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := store(t.Context(), s, randomFiles(1, 3, 1000)); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		until := before.Add(off).UTC()
		m, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: before, Until: until})
		if err != nil {
			t.Fatal(err)
		}
		if m.Finished.Equal(until) != counts || m.Finished.Before(before) {
			t.Errorf("%s ahead: finished %s after %s", off, m.Finished, before)
		}
	}
}

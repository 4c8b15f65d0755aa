package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// TestGap ends what is followed twice, by other databases in its place: each time the follower goes on by itself, with a
// snapshot and records after it, and its status tells of the gap.
func TestGap(t *testing.T) {
	w := newWorld(t)
	w.app(20)
	r := w.follow(nil)
	r.await("the first snapshot", following)
	w.app(5, "-rate", "200")
	r.caughtUp()
	for gaps := 1; gaps <= 2; gaps++ {
		other := *w
		other.path, other.notes = filepath.Join(w.dir, "other.db"), filepath.Join(w.dir, "other notes")
		if err := os.RemoveAll(other.notes); err != nil {
			t.Fatal(err)
		}
		other.app(30*gaps, "-checkpoint", "truncate", "-every", "30") // all is in the file
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(other.path + suffix)
			_ = os.Remove(w.path + suffix) // there may be none
		}
		if err := os.Rename(other.path, w.path); err != nil {
			t.Fatal(err)
		}
		// The second snapshot waits: what makes up for gaps takes a tenth of the time at most.
		s := r.await("a new stream", func(s replicate.Status) bool {
			return len(s.Gaps) >= gaps && following(s) && s.Base > uint64(gaps) && !s.Gaps[len(s.Gaps)-1].To.IsZero()
		})
		last := s.Gaps[len(s.Gaps)-1]
		if last.Why == "" || last.From.IsZero() || last.To.Before(last.From) || s.Place.Sequence != 0 {
			t.Errorf("after the gap: %+v", s)
		}
		records := s.Records
		w.app(10, "-rate", "200")
		if s = r.caughtUp(); s.Records <= records || s.Place.Sequence == 0 {
			t.Errorf("no records after the gap: %+v", s)
		}
	}
	r.stop()
	if n := r.count(replicate.Missed); n < 2 {
		t.Errorf("%d gaps were told of", n)
	}
	if most := w.restoreAll(1); most != 70 {
		t.Errorf("restored %d transactions of 70", most)
	}
	streams, err := log.Streams(t.Context(), w.repo, w.src)
	if err != nil || len(streams) < 3 {
		t.Errorf("%d streams, %v", len(streams), err)
	}
}

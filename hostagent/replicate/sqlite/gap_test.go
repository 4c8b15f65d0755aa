package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/sqlite"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// TestGap ends what is followed twice, by other databases in its place: each time the follower goes on by itself, with a
// snapshot and records after it, and its status tells of the gap.
func TestGap(t *testing.T) {
	w := newWorld(t)
	w.app(20)
	r := w.follow(nil)
	r.Await("the first snapshot", replicatetest.Following)
	w.app(5, "-rate", "200")
	r.CaughtUp()
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
		s := r.Await("a new stream", func(s replicate.Status) bool {
			return len(s.Gaps) >= gaps && replicatetest.Following(s) && s.Base > uint64(gaps) && !s.Gaps[len(s.Gaps)-1].To.IsZero()
		})
		last := s.Gaps[len(s.Gaps)-1]
		if last.Why == "" || last.From.IsZero() || last.To.Before(last.From) || s.Place.Sequence != 0 {
			t.Errorf("after the gap: %+v", s)
		}
		records := s.Records
		w.hold() // one more: what is opened, written and closed between two looks of a busy machine would be another gap
		w.app(9, "-rate", "200", "-checkpoint", "none")
		if s = r.CaughtUp(); s.Records <= records || s.Place.Sequence == 0 {
			t.Errorf("no records after the gap: %+v", s)
		}
	}
	r.Stop()
	if n := r.Count(replicate.Missed); n < 2 {
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

// TestGapIsRemembered ends a follower amid a gap, before there was a snapshot that makes up for it. The database is as it was
// by the time that another one begins: that must not go on as if nothing had been.
func TestGapIsRemembered(t *testing.T) {
	w := newWorld(t)
	w.app(19)
	w.hold()
	r := w.follow(nil)
	r.Await("the first snapshot", replicatetest.Following)
	w.app(5)
	r.CaughtUp()
	r.Stop()
	r = w.follow(func(o *follower.Options) {
		o.Base = func(context.Context, *follower.Capture) (uint64, error) { return 0, errors.New("not now") }
	})
	r.CaughtUp()
	aside := w.path + ".aside"
	if err := errors.Join(os.Rename(w.path, aside), os.WriteFile(w.path, []byte("no database"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r.Await("the gap", func(s replicate.Status) bool { return len(s.Gaps) > 0 })
	r.Stop()
	if err := os.Rename(aside, w.path); err != nil {
		t.Fatal(err)
	}
	r = w.follow(nil)
	if s := r.Await("a new stream", replicatetest.Following); s.Base != 2 {
		t.Errorf("%+v", s)
	}
	r.Stop()
}

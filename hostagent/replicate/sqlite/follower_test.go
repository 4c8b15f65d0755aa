package sqlite_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/sqlite"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/test/writer"
)

func TestFollow(t *testing.T) {
	w := newWorld(t)
	w.app(20)
	r := w.follow(nil)
	r.Await("the first snapshot", replicatetest.Following)
	began := time.Now()
	looks := watch(r.Follower)
	const times = 3
	for range times {
		w.app(100, "-rate", "300")
		r.CaughtUp()
	}
	s := r.CaughtUp()
	// There is half an interval at least between two records, but for the first.
	atMost := 2 + uint64(2*time.Since(began)/s.Interval)
	seen := looks()
	if len(s.Gaps) > 0 {
		t.Logf("the machine is so busy that commits were missed: %+v", s.Gaps)
	} else {
		if s.Commits != 300 || s.Records < times || s.Records > atMost || s.Lag.Commits != 300 || s.Lag.P50 <= 0 || s.Lag.Max < s.Lag.P99 {
			t.Errorf("status %+v", s)
		}
		w.wantDurable(seen, 20)
	}
	if most := w.restoreAll(5); most != 320 {
		t.Errorf("restored %d transactions of 320", most)
	}
	r.Stop()
	if got, alive, err := replicate.Read(w.options(nil).Dir); err != nil || alive || got.State != replicate.Stopped || got.Commits != s.Commits {
		t.Errorf("status after the end: %+v, %v, %v", got, alive, err)
	}
}

// watch takes down again and again what a status says, until it is told to stop.
func watch(f *follower.Follower) (stop func() []replicate.Status) {
	end, out := make(chan struct{}), make(chan []replicate.Status)
	go func() {
		var all []replicate.Status
		for {
			select {
			case <-end:
				out <- all
				return
			case <-time.After(3 * time.Millisecond):
				all = append(all, f.Status())
			}
		}
	}()
	return func() []replicate.Status {
		close(end)
		return <-out
	}
}

// wantDurable wants that the status never said of a commit that it is durable when it was not. So many were in the snapshot.
func (w *world) wantDurable(seen []replicate.Status, before int64) {
	w.t.Helper()
	notes, err := writer.Notes(w.notes)
	if err != nil || len(seen) == 0 {
		w.t.Fatal(err, len(seen))
	}
	for _, s := range seen {
		if n, durable := writer.Acknowledged(notes, s.Until()), before+int64(s.Commits); n > durable { //nolint:gosec // some hundred
			w.t.Errorf("all is durable until %s as the status says: then it was transaction %d, and %d were durable", s.Until(), n, durable)
			return
		}
	}
}

// TestRestart wants that who starts again goes on: without a snapshot, and without a request as long as nothing happens.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.app(19)
	w.hold()
	r := w.follow(nil)
	r.Await("the first snapshot", replicatetest.Following)
	w.app(50, "-checkpoint", "none")
	r.CaughtUp()
	r.Stop()
	w.app(30, "-checkpoint", "none")
	requests := 0
	var mu sync.Mutex
	w.fix.Store.SetHook(func(mem.Call) mem.Fault {
		mu.Lock()
		defer mu.Unlock()
		requests++
		return mem.Fault{}
	})
	r = w.follow(nil)
	r.CaughtUp()
	if n := r.Count(replicate.Based); n != 0 {
		t.Errorf("%d snapshots after the restart", n)
	}
	before := len(repotest.Keys(w.fix.Store, "/log/"))
	r.Stop()
	mu.Lock()
	requests = 0
	mu.Unlock()
	r = w.follow(nil)
	r.CaughtUp()
	time.Sleep(50 * time.Millisecond) // for what must not happen
	r.Stop()
	if after := len(repotest.Keys(w.fix.Store, "/log/")); after != before {
		t.Errorf("an idle database made %d objects", after-before)
	}
	mu.Lock()
	if requests > 0 {
		t.Errorf("an idle database cost %d requests", requests)
	}
	mu.Unlock()
	if most := w.restoreAll(1); most != 100 {
		t.Errorf("restored %d transactions of 100", most)
	}
}

// TestSnapshotBeside makes snapshots of a database that is followed and written to: each stands in the log.
func TestSnapshotBeside(t *testing.T) {
	w := newWorld(t)
	w.app(20)
	r := w.follow(nil)
	r.Await("the first snapshot", replicatetest.Following)
	var app sync.WaitGroup
	app.Go(func() { w.app(600, "-rate", "400", "-checkpoint", "truncate", "-every", "37") })
	for made := 0; made < 5; {
		c, err := r.Capture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.snapshot(t.Context(), c)
		c.Close()
		// A machine that is busy enough misses commits: who makes the snapshot is told, and tries again.
		if gap := (*tail.GapError)(nil); err != nil && !errors.As(err, &gap) {
			t.Fatal(err)
		}
		if err == nil {
			made++
		}
	}
	app.Wait()
	r.CaughtUp()
	r.Stop()
	manifests, err := w.repo.Manifests(t.Context(), w.src)
	if err != nil {
		t.Fatal(err)
	}
	in := 0
	for _, m := range manifests {
		if m.Log != nil {
			in++
		}
	}
	if gaps := r.Count(replicate.Missed); len(manifests) < 6 || gaps == 0 && in < len(manifests)-1 {
		t.Errorf("%d snapshots, %d of them in the log", len(manifests), in)
	}
	if most := w.restoreAll(7); most != 620 {
		t.Errorf("restored %d transactions of 620", most)
	}
}

// TestAway wants that records become fewer while the store takes none, and that nothing is lost.
func TestAway(t *testing.T) {
	w := newWorld(t)
	w.app(19)
	w.hold()
	r := w.follow(func(o *follower.Options) { o.Memory = 64 << 10 })
	r.Await("the first snapshot", replicatetest.Following)
	w.app(20)
	r.CaughtUp()
	records := r.Status().Records
	var mu sync.Mutex
	away := true
	w.fix.Store.SetHook(func(mem.Call) mem.Fault {
		mu.Lock()
		defer mu.Unlock()
		if away {
			return mem.Fault{Err: objstore.Transient(errors.New("away"))}
		}
		return mem.Fault{}
	})
	w.app(400, "-rate", "800", "-checkpoint", "none") // a log that is reset while nobody looks would be a gap
	r.Await("something waits while the store is away", func(s replicate.Status) bool {
		return !s.Oldest.IsZero() && s.Pending.Commits > 0 && s.Pending.Pages > 0
	})
	mu.Lock()
	away = false
	mu.Unlock()
	s := r.CaughtUp()
	if s.Commits != 420 || s.Records > records+4 {
		t.Errorf("%d records for what waited: %+v", s.Records-records, s)
	}
	r.Stop()
	if most := w.restoreAll(1); most != 440 {
		t.Errorf("restored %d transactions of 440", most)
	}
}

// TestClone lets two hosts write the same stream: one of them stops, and what each had made durable can be restored.
func TestClone(t *testing.T) {
	w := newWorld(t)
	w.app(19)
	w.hold()
	r := w.follow(nil)
	r.Await("the first snapshot", replicatetest.Following)
	w.app(20)
	r.CaughtUp()
	r.Stop()
	clone := *w
	clone.dir = t.TempDir()
	clone.path = w.path // the same database: the clones differ in what they know
	if err := os.CopyFS(clone.dir, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	first := w.follow(nil)
	first.Await("the first", replicatetest.Following)
	second := clone.follow(nil)
	second.Await("the clone", replicatetest.Following)
	first.Await("who sees the other stops", func(replicate.Status) bool {
		w.app(1, "-checkpoint", "none") // as long as something is committed: who has nothing to put sees nobody
		return first.Status().State == replicate.Superseded || second.Status().State == replicate.Superseded
	})
	loser, winner := first, second
	if second.Status().State == replicate.Superseded {
		loser, winner = second, first
	}
	if err := <-loser.Ended; !errors.Is(err, replicate.ErrSuperseded) {
		t.Errorf("the one that stops says %v", err)
	}
	w.app(20)
	winner.CaughtUp()
	winner.Stop()
	if most, want := w.restoreAll(1), w.last(); most != want {
		t.Errorf("restored %d transactions of %d", most, want)
	}
	// A person decides that the other is to go on: in a stream of its own.
	again := w.follow(func(o *follower.Options) { o.Renew = true })
	again.Await("a new stream", replicatetest.Following)
	w.app(10)
	again.CaughtUp()
	again.Stop()
	if most, want := w.restoreAll(1), w.last(); most != want {
		t.Errorf("restored %d transactions of %d", most, want)
	}
	streams, err := log.Streams(t.Context(), w.repo, w.src)
	if err != nil || len(streams) != 2 {
		t.Errorf("%d streams, %v", len(streams), err)
	}
}

// TestRivals lets two hosts that know nothing of each other follow the same source: each begins a log of its own, and a
// restore goes by the newest. One of them stops.
func TestRivals(t *testing.T) {
	for _, when := range []string{"before it ships", "while it ships"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.app(19)
			w.hold()
			first := w.follow(func(o *follower.Options) { o.Look = 10 * time.Millisecond })
			first.Await("the first", replicatetest.Following)
			if when == "while it ships" {
				w.app(5)
				first.CaughtUp()
			}
			clone := *w
			clone.dir = t.TempDir()
			second := clone.follow(nil)
			second.Await("the second", replicatetest.Following)
			w.app(20)
			first.Await("who sees the other stops", func(s replicate.Status) bool {
				return s.State == replicate.Superseded
			})
			if err := <-first.Ended; !errors.Is(err, replicate.ErrSuperseded) {
				t.Errorf("it says %v", err)
			}
			second.CaughtUp()
			second.Stop()
			if got, want := w.restoreAll(1), w.last(); got != want {
				t.Errorf("restored %d transactions of %d", got, want)
			}
		})
	}
}

// TestOneFollower wants that one process follows a source.
func TestOneFollower(t *testing.T) {
	w := newWorld(t)
	w.app(1)
	r := w.follow(nil)
	r.Await("the first snapshot", replicatetest.Following)
	err := follower.New(w.options(nil)).Run(context.Background())
	if !errors.Is(err, replicate.ErrFollowed) {
		t.Errorf("the second: %v", err)
	}
	if !replicate.Followed(w.options(nil).Dir) {
		t.Error("nobody follows")
	}
	r.Stop()
	if replicate.Followed(w.options(nil).Dir) {
		t.Error("somebody follows after the end")
	}
}

// TestAsk wants that what would wait for an hour is shipped when somebody asks, and that who can't be asked is known.
func TestAsk(t *testing.T) {
	w := newWorld(t)
	w.app(19)
	w.hold()
	dir := w.options(nil).Dir
	if s, done, err := replicate.Ask(t.Context(), dir); s != nil || done || err != nil {
		t.Errorf("before anybody followed: %+v, %v, %v", s, done, err)
	}
	r := w.follow(func(o *follower.Options) { o.Interval = time.Hour })
	r.Await("the first snapshot", replicatetest.Following)
	w.app(1)
	r.CaughtUp() // the first record is not due after an interval
	w.app(20)
	if s, done, err := replicate.Ask(t.Context(), dir); !done || err != nil || s.Pending.Commits != 0 {
		t.Errorf("%+v, %v, %v", s, done, err)
	}
	if most := w.restoreAll(1); most != 41 {
		t.Errorf("restored %d transactions of 41", most)
	}
	// What can't be looked at is told at once.
	aside := w.path + ".aside"
	if err := os.Rename(w.path, aside); err != nil {
		t.Fatal(err)
	}
	r.Await("the database is gone", func(s replicate.Status) bool { return s.State == replicate.State(tail.Missing) })
	if s, done, err := replicate.Ask(t.Context(), dir); done || err != nil || s.State != replicate.State(tail.Missing) {
		t.Errorf("%+v, %v, %v", s, done, err)
	}
	if err := os.Rename(aside, w.path); err != nil {
		t.Fatal(err)
	}
	r.Stop()
	if s, done, err := replicate.Ask(t.Context(), dir); done || err != nil || s.State != replicate.Stopped {
		t.Errorf("after the end: %+v, %v, %v", s, done, err)
	}
}

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/test/cluster"
)

const anyLSN = postgres.LSN(1<<63 - 1)

// TestFollow follows a server under load, and restores all that was acknowledged, on each version.
func TestFollow(t *testing.T) {
	for _, version := range cluster.Versions(t) {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, cluster.Options{Version: version, SegmentSize: 1, Checksums: true})
			r := w.follow(nil)
			r.Await("the slot was looked at", func(s replicate.Status) bool {
				return replicatetest.Following(s) && s.Cluster.Slot != nil && s.Cluster.Slot.Active && len(s.Cluster.Notes) > 0
			})
			looks := watch(r.Follower)
			const times, rows = 3, 100
			for range times {
				stops := []func() int{w.write("a", rows), w.write("b", rows)}
				for _, stop := range stops {
					stop()
				}
				r.CaughtUp()
			}
			wantDurable(t, looks(), w.rowsOf("a", times*rows))
			s := r.CaughtUp()
			switch {
			case len(s.Gaps) > 0 || r.Count(replicate.Missed) > 0:
				t.Errorf("gaps: %+v", s.Gaps)
			case s.Records < times || s.Lag.Commits == 0 || s.Lag.P50 <= 0 || s.Base != 1:
				t.Errorf("status %+v", s)
			case s.Cluster == nil || s.Cluster.Timeline != 1 || s.Cluster.Durable == "" || s.Cluster.Slot == nil || !s.Cluster.Slot.Active:
				t.Errorf("status of the cluster %+v", s.Cluster)
			case len(s.Cluster.Notes) == 0 || r.Count(replicate.Warned) != 1:
				t.Errorf("nobody is told that max_slot_wal_keep_size is not set: %+v, %d", s.Cluster, r.Count(replicate.Warned))
			}
			// A server writes a little by itself now and then: another record may come meanwhile.
			r.Await("the newest record is told of", func(s replicate.Status) bool {
				events := r.Events()
				i := len(events) - 1
				for i > 0 && events[i].Kind != replicate.Shipped {
					i--
				}
				return events[i].LSN == s.Cluster.Durable && events[i].Bytes > 0
			})
			restored := w.restore(time.Time{})
			if restored.Version == cluster.System(t) { // which has amcheck
				wantSound(restored)
			}
			w.wantRows(restored, w.acknowledged(anyLSN))
			r.Stop()
			if got, alive, err := replicate.Read(w.options(nil).Dir); err != nil || alive || got.State != replicate.Stopped || got.Records < s.Records {
				t.Errorf("status after the end: %+v, %v, %v", got, alive, err)
			}
		})
	}
}

// requests counts what the store is asked.
func (w *world) requests() (count func() int) {
	n := 0
	var mu sync.Mutex
	w.fix.Store.SetHook(func(mem.Call) mem.Fault {
		mu.Lock()
		defer mu.Unlock()
		n++
		return mem.Fault{}
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// TestRestart wants that who starts again goes on: without a base backup, and without a request as long as nothing happens,
// which is no stall.
func TestRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 50)()
	r.CaughtUp()
	r.Stop()
	w.write("b", 50)()
	r = w.follow(nil)
	r.CaughtUp()
	// Servers write a little by themselves now and then: a checkpoint now leaves nothing for later.
	w.server.Psql("CHECKPOINT")
	r.CaughtUp()
	if n := r.Count(replicate.Based); n != 0 {
		t.Errorf("%d base backups after the restart", n)
	}
	r.Stop()
	count := w.requests()
	const silence = time.Second
	r = w.follow(func(o *follower.Options) { o.Silence = silence })
	r.CaughtUp()
	// A machine that is busy enough may be silent for so long, once.
	r.Await("an idle server is heard all the time", func(s replicate.Status) bool {
		return s.State == replicate.Following && s.Looked.Sub(s.Since) > 2*silence
	})
	if n := count(); n > 0 && r.Count(replicate.Shipped) == 0 {
		t.Errorf("an idle server cost %d requests", n)
	}
	r.Stop()
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestAway wants that memory is bounded while the store takes nothing, that nothing is acknowledged then, and that all goes
// on by itself.
func TestAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	const memory = 256 << 10
	r := w.follow(func(o *follower.Options) { o.Memory, o.Silence = memory, 5*time.Second })
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 20)()
	r.CaughtUp()
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
	before := r.Status().Cluster.Durable
	// What the server was told last; while nobody is connected, because a busy machine was silent, it knows nothing.
	acked := func() (what string) {
		for end := time.Now().Add(limit); what == "" && time.Now().Before(end); {
			what = w.server.Psql("SELECT flush_lsn || '|' || s.restart_lsn FROM pg_stat_replication, pg_replication_slots s")
		}
		return what
	}
	for end := time.Now().Add(limit); acked() != before+"|"+before; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("acknowledged up to %s, durable up to %s", acked(), before)
		}
	}
	w.server.Psql("CREATE TABLE much AS SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 8000) i")
	w.write("b", 20)()
	s := r.Await("memory is full", func(s replicate.Status) bool { return s.Pending.Bytes >= memory })
	if most := int64(memory + 256<<10); s.Pending.Bytes > most || s.Oldest.IsZero() || s.Cluster.Durable != before {
		t.Errorf("while the store is away: %+v %+v", s, s.Cluster)
	}
	if flushed := acked(); flushed != before+"|"+before {
		t.Errorf("acknowledged up to %s, durable up to %s", flushed, before)
	}
	r.Await("the slot keeps what is not durable", func(s replicate.Status) bool { return s.Cluster.Slot.Retained > 7<<20 })
	// Nobody has to wait for us who stops the server.
	w.server.Stop("fast")
	w.server.Restart()
	mu.Lock()
	away = false
	mu.Unlock()
	r.CaughtUp()
	r.Await("the server knows", func(s replicate.Status) bool { return s.Cluster.Slot.Retained < 1<<20 })
	r.Stop()
	restored := w.restore(time.Time{})
	if n := restored.Psql("SELECT count(*) FROM much"); n != "8000" {
		t.Errorf("%s rows", n)
	}
	w.wantRows(restored, w.acknowledged(anyLSN))
	if n := r.Count(replicate.Based); n != 1 {
		t.Errorf("%d base backups", n)
	}
}

// TestCrash takes followers up from what was on the disk at any moment: a put that had failed, or had not, nobody knows.
func TestCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	hasty := func(o *follower.Options) { o.Grace = time.Millisecond }
	r := w.follow(hasty)
	r.Await("the base backup", replicatetest.Following)
	stop := w.write("a", 0)
	var seen []claim
	for i := range 4 {
		looks := watch(r.Follower)
		r.Await("some records", func(s replicate.Status) bool { return s.Records > 2 })
		// The store loses its voice in the midst of a put, and the process has no time to wait for it.
		var mu sync.Mutex
		silent := false
		w.fix.Store.SetHook(func(c mem.Call) mem.Fault {
			mu.Lock()
			defer mu.Unlock()
			first := !silent
			silent = true
			return mem.Fault{Err: objstore.Transient(errors.New("silent")), Persisted: first && i%2 == 0}
		})
		r.Await("it notices", func(replicate.Status) bool { return r.Count(replicate.Trouble) > 0 })
		r.Cancel()
		if err := <-r.Ended; err != nil {
			t.Fatal(err)
		}
		seen = append(seen, looks()...)
		w.fix.Store.SetHook(nil)
		r = w.follow(hasty)
		looks = watch(r.Follower)
		r.Await("it goes on", replicatetest.Following)
		seen = append(seen, looks()...)
	}
	rows := stop()
	r.CaughtUp()
	r.Stop()
	wantDurable(t, seen, w.rowsOf("a", 2*rows))
	if n := r.Count(replicate.Based); n != 0 {
		t.Errorf("%d base backups", n)
	}
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestServerKilled kills the server again and again under load.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	stop := w.write("a", 0)
	looks := watch(r.Follower)
	for range 4 {
		records := r.Status().Records
		r.Await("some records", func(s replicate.Status) bool { return s.Records > records+2 })
		w.server.Kill9()
		r.Await("it is told", func(s replicate.Status) bool { return s.State == replicate.Unreached && s.Hint != "" })
		w.server.Restart()
		r.Await("it goes on", replicatetest.Following)
	}
	rows := stop()
	r.CaughtUp()
	wantDurable(t, looks(), w.rowsOf("a", 2*rows))
	records := r.Status().Records
	stop = w.write("b", 0)
	r.Await("some records", func(s replicate.Status) bool { return s.Records > records+5 })
	// Now the machine is gone for good: what is durable is there, up to the newest of its transactions.
	w.server.Kill9()
	stop()
	r.Await("all that came is durable", func(s replicate.Status) bool { return s.Pending.Bytes == 0 })
	durable, err := postgres.ParseLSN(r.Status().Cluster.Durable)
	if err != nil {
		t.Fatal(err)
	}
	r.Stop()
	if n := r.Count(replicate.Based); n != 1 {
		t.Errorf("%d base backups", n)
	}
	want := w.acknowledged(durable)
	all := len(w.acknowledged(anyLSN))
	t.Logf("%d of %d acknowledged rows were durable when the machine was lost", len(want), all)
	w.wantRows(w.restore(time.Time{}), want)
}

// TestSlotLost has the server give up the slot while nobody follows: that is told, and a base backup makes up for it.
func TestSlotLost(t *testing.T) {
	t.Parallel()
	for _, version := range cluster.Versions(t) {
		w := newWorld(t, cluster.Options{Version: version, SegmentSize: 1, Config: map[string]string{"max_slot_wal_keep_size": "2MB", "min_wal_size": "2MB", "max_wal_size": "4MB", "wal_keep_size": "0"}})
		r := w.follow(nil)
		r.Await("the base backup", replicatetest.Following)
		w.write("a", 20)()
		if s := r.CaughtUp(); len(s.Cluster.Notes) > 0 {
			t.Errorf("with a limit: %v", s.Cluster.Notes)
		}
		r.Stop()
		for range 8 {
			w.server.Psql("CREATE TABLE IF NOT EXISTS much (t text)")
			w.server.Psql("INSERT INTO much SELECT repeat(md5(i::text), 30) FROM generate_series(1, 2000) i")
			w.server.Psql("CHECKPOINT")
		}
		if state := w.server.Psql("SELECT wal_status FROM pg_replication_slots"); state != "lost" {
			t.Fatalf("the slot is %s", state)
		}
		r = w.follow(nil)
		s := r.Await("a new base backup", func(s replicate.Status) bool { return replicatetest.Following(s) && s.Base == 2 })
		if r.Count(replicate.Missed) != 1 || r.Count(replicate.Based) != 1 || len(s.Gaps) != 1 || s.Gaps[0].To.IsZero() || !strings.Contains(s.Gaps[0].Why, "removed") {
			t.Errorf("gaps %+v", s.Gaps)
		}
		w.write("b", 20)()
		r.CaughtUp()
		if state := w.server.Psql("SELECT wal_status FROM pg_replication_slots"); state != "reserved" {
			t.Errorf("the slot is %s", state)
		}
		r.Stop()
		w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
	}
}

// TestSlotDropped has somebody drop the slot: as long as the WAL is there, nothing is missing.
func TestSlotDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_keep_size": "64MB"}})
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 20)()
	r.CaughtUp()
	r.Stop()
	config, err := w.options(nil).Config()
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := follower.DropSlot(t.Context(), config, w.options(nil).Dir, "holdfast_db"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := follower.DropSlot(t.Context(), config, w.options(nil).Dir, "holdfast_db"); ok || err != nil {
		t.Fatal(ok, err)
	}
	w.server.Psql("SELECT pg_create_physical_replication_slot('standby1')")
	if _, err := follower.DropSlot(t.Context(), config, w.options(nil).Dir, "standby1"); !errors.Is(err, follower.ErrNotOurs) {
		t.Errorf("somebody else's slot: %v", err)
	}
	w.write("b", 20)()
	r = w.follow(nil)
	r.Await("it goes on", replicatetest.Following)
	if _, err := follower.DropSlot(t.Context(), config, w.options(nil).Dir, "holdfast_db"); !errors.Is(err, replicate.ErrFollowed) {
		t.Errorf("while it is followed: %v", err)
	}
	r.CaughtUp()
	r.Stop()
	if n := r.Count(replicate.Based); n != 0 {
		t.Errorf("%d base backups", n)
	}
	if names := w.server.Psql("SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots"); names != "holdfast_db standby1" {
		t.Errorf("slots: %s", names)
	}
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestOneFollower wants that one process follows a source.
func TestOneFollower(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	if err := follower.New(w.options(nil)).Run(context.Background()); !errors.Is(err, replicate.ErrFollowed) {
		t.Errorf("the second: %v", err)
	}
	r.Stop()
	if before := len(repotest.Keys(w.fix.Store, "/log/")); before == 0 {
		t.Error("there is no log")
	}
}

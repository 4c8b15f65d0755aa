package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// away lets the store take nothing until it is called with false.
func (w *world) away() (set func(bool)) {
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
	return func(now bool) {
		mu.Lock()
		defer mu.Unlock()
		away = now
	}
}

// TestForkIsNotAcknowledged promotes a standby that lacks what is stored, while the store is away: how far the log came on the
// old branch is not told to the new primary, which would forget WAL that nobody else has.
func TestForkIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_keep_size": "0", "max_wal_size": "4MB", "min_wal_size": "2MB"}})
	first := w.server
	second := first.Standby(t)
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 30)()
	r.CaughtUp()
	first.Psql("SELECT pg_switch_wal()") // the first segment of a lineage is none from which another branch goes on
	w.write("a2", 10)()
	second.Follow(first)
	second.Stop("fast")
	w.mu.Lock()
	kept := len(w.acked)
	w.mu.Unlock()
	first.Psql("CREATE TABLE lost AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 6000) i") // some segments
	r.CaughtUp()
	durable := r.Status().Cluster.Durable
	first.Kill9()
	set := w.away()
	second.Restart()
	second.Promote()
	w.leads(second, 0)
	second.Psql("CREATE TABLE b (i int)")
	parts := second.Psql("SELECT pg_current_wal_lsn()")
	r.Await("the new primary is received", func(s replicate.Status) bool {
		return s.Cluster.Slot != nil && s.Cluster.Slot.Active && r.Count(replicate.Trouble) > 0
	})
	// Marks are acknowledged once a second.
	for begun := time.Now(); time.Since(begun) < 2500*time.Millisecond; time.Sleep(100 * time.Millisecond) {
		if ahead := second.Psql(fmt.Sprintf("SELECT count(*) FROM pg_replication_slots WHERE restart_lsn > '%s'", parts)); ahead != "0" {
			t.Fatalf("the new primary forgets WAL up to %s, where only the old one has been: %s", durable, second.Psql("SELECT restart_lsn FROM pg_replication_slots"))
		}
	}
	set(false)
	w.write("b", 20)()
	if s := r.CaughtUp(); s.Cluster.Timeline != 2 || r.Count(replicate.Missed) != 0 || r.Count(replicate.Based) != 1 {
		t.Errorf("after the failover: %+v, %d gaps", s.Cluster, r.Count(replicate.Missed))
	}
	r.Stop()
	want := w.acknowledged(anyLSN)
	if len(want) != kept+20 {
		t.Fatalf("%d rows", len(want))
	}
	w.wantRows(w.restoreFrom(1, time.Time{}), want)
}

// TestPartedInRecord kills a primary in the midst of a record, of which its standby has passed on the beginning: that standby
// is promoted from before the record, and the log goes on from there without a gap.
func TestPartedInRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	first := w.server
	second := first.Standby(t)
	w.leads(second, 0)
	r := w.follow(nil)
	r.Await("the base backup of a standby", replicatetest.Following)
	w.leads(first, 0)
	w.write("a", 20)()
	first.Psql("SELECT pg_switch_wal()")
	w.write("b", 20)()
	second.Follow(first)
	w.leads(second, 0)
	r.CaughtUp()
	// The record is larger than the buffers, so that its beginning is written out; its end would be by the walwriter.
	var writer int
	if _, err := fmt.Sscan(first.Psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"), &writer); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(writer, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	before := second.Psql("SELECT pg_last_wal_replay_lsn()")
	first.Psql("SELECT pg_logical_emit_message(false, 'x', repeat('y', 12 << 20))")
	r.Await("the beginning of the record is stored", func(s replicate.Status) bool {
		return second.Psql(fmt.Sprintf("SELECT '%s'::pg_lsn - '%s'::pg_lsn > 1 << 20", s.Cluster.Durable, before)) == "t"
	})
	first.Kill9()
	second.Promote()
	w.write("c", 20)()
	if s := r.CaughtUp(); s.Cluster.Timeline != 2 || r.Count(replicate.Missed) != 0 || r.Count(replicate.Based) != 1 {
		t.Errorf("after the promotion: %+v, %d gaps, %d base backups", s.Cluster, r.Count(replicate.Missed), r.Count(replicate.Based))
	}
	r.Stop()
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// toSwitch has a follower come to a switch of segments, and ends it there: at the end of a segment.
func (w *world) toSwitch(r *running) (end string) {
	w.t.Helper()
	for {
		w.write("b", 5)()
		w.server.Psql("SELECT pg_switch_wal()")
		end = w.server.Psql("SELECT pg_current_wal_lsn()")
		durable := r.CaughtUp().Cluster.Durable
		r.Await("the server knows", func(s replicate.Status) bool { return s.Cluster.Slot.Restart >= durable })
		r.Stop()
		if durable == end {
			return end
		}
		r = w.follow(nil) // the server had something to write by itself
	}
}

// TestSegmentBeforeIsGone goes on at the beginning of a segment where the server has removed the one before, which nobody needs.
func TestSegmentBeforeIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_keep_size": "0", "min_wal_size": "2MB", "max_wal_size": "4MB", "wal_recycle": "off"}})
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	end, err := postgres.ParseLSN(w.toSwitch(r))
	if err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(w.server.Dir, "pg_wal", postgres.SegmentName(1, end-1, 1<<20))
	for limit := time.Now().Add(limit); ; {
		if _, err := os.Stat(before); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the server keeps %s", before)
		}
		w.write("c", 5)()
		w.server.Psql("SELECT pg_switch_wal()")
		w.server.Psql("CHECKPOINT")
	}
	r = w.follow(nil)
	r.CaughtUp()
	if n := r.Count(replicate.Missed) + r.Count(replicate.Based); n != 0 {
		t.Errorf("%d gaps and base backups", n)
	}
	r.Stop()
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestPutBackAtSwitch puts a server back which then comes to the same end of a segment in another way: behind a switch of
// segments there are only zeros, which are the same on all servers.
func TestPutBackAtSwitch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_keep_size": "64MB"}})
	own := w.server
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 20)()
	r.CaughtUp()
	own.Stop("fast")
	dir := filepath.Join(own.Owner.Dir(t), "data")
	own.CopyTo(t, dir)
	own.Restart()
	end := w.toSwitch(r)
	own.Stop("fast")
	old := cluster.Open(t, dir, cluster.Options{Config: map[string]string{"wal_keep_size": "64MB"}})
	w.leads(old, 0)
	w.mu.Lock()
	clear(w.acked)
	w.mu.Unlock()
	// A server may write a little by itself: it comes by that end of a segment, with a switch, and may be behind it.
	for past := ""; past != "t"; past = old.Psql("SELECT pg_current_wal_lsn() >= '" + end + "'") {
		w.write("c", 3)()
		old.Psql("SELECT pg_switch_wal()")
	}
	w.write("d", 20)()
	// Nobody has noticed yet: a backup that is made now does.
	if b, err := w.base(t.Context()); b.Place != nil || err != nil {
		t.Fatal(b, err)
	}
	r = w.follow(nil)
	s := r.Await("a new base backup", func(s replicate.Status) bool { return replicatetest.Following(s) && s.Base == 3 })
	if len(s.Gaps) != 1 || !strings.Contains(s.Gaps[0].Why, "other WAL") {
		t.Errorf("gaps %+v", s.Gaps)
	}
	w.write("e", 20)()
	r.CaughtUp()
	r.Stop()
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestHeld exchanges a server for one that was promoted, and puts it back, as a restore in place does where the new one is not
// well: meanwhile nobody turns to the other timeline, and then all goes on as if nothing had been.
func TestHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	first := w.server
	second := first.Standby(t)
	if held, err := replicate.Hold(w.options(nil).Dir); held != nil || err != nil {
		t.Fatal("nobody has followed it yet", held, err)
	}
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 30)()
	second.Follow(first)
	r.CaughtUp()
	held, err := replicate.Hold(w.options(nil).Dir)
	if err != nil {
		t.Fatal(err)
	}
	first.Stop("fast")
	second.Promote()
	w.leads(second, 0)
	r.Await("it waits", func(s replicate.Status) bool {
		return s.State == replicate.Waiting && strings.Contains(s.Why, "restore")
	})
	if slots := second.Psql("SELECT count(*) FROM pg_replication_slots"); slots != "0" {
		t.Errorf("%s slots on what may be taken back", slots)
	}
	second.Stop("fast")
	w.leads(first, 0)
	first.Restart()
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	w.write("b", 30)()
	if s := r.CaughtUp(); s.Cluster.Timeline != 1 || r.Count(replicate.Promoted)+r.Count(replicate.Missed) != 0 || r.Count(replicate.Based) != 1 {
		t.Errorf("after it was put back: %+v", s.Cluster)
	}
	r.Stop()
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestTwoPromotions goes on with a server that is two timelines ahead, and has the history of its own only.
func TestTwoPromotions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_keep_size": "64MB"}})
	first := w.server
	second := first.Standby(t)
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 20)()
	r.CaughtUp()
	r.Stop()
	w.write("b", 20)()
	second.Follow(first)
	first.Kill9()
	second.Promote()
	w.leads(second, 0)
	w.write("c", 20)()
	wrote := append(w.rowsOf("b", 20), w.rowsOf("c", 20)...)
	third := second.Standby(t)
	third.Follow(second)
	second.Kill9()
	third.Promote()
	w.leads(third, 0)
	w.write("d", 20)()
	if err := os.Remove(filepath.Join(third.Dir, "pg_wal", "00000002.history")); err != nil {
		t.Fatal(err)
	}
	r = w.follow(nil)
	looks := watch(r.Follower)
	if s := r.CaughtUp(); s.Cluster.Timeline != 3 || r.Count(replicate.Promoted) != 2 || r.Count(replicate.Missed)+r.Count(replicate.Based) != 0 {
		t.Errorf("after two promotions: %+v", s.Cluster)
	}
	told := slices.ContainsFunc(r.Events(), func(e replicate.Event) bool {
		return e.Kind == replicate.Warned && strings.Contains(e.Why, "made anew") && strings.Contains(e.Hint, "pg_drop_replication_slot")
	})
	if !told {
		t.Error("nobody is told of the slot on the server of before")
	}
	// The end of a timeline is not all that the server had: what came next is on another.
	wantDurable(t, looks(), wrote)
	r.Stop()
	wantTrue(t, "a record", claims(t, r.Events()), wrote)
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestLateStandby follows a standby that has not replayed what it has received: a base backup that ends before the log begins
// is none with which it could begin.
func TestLateStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_keep_size": "64MB"}})
	first := w.server
	second := first.Standby(t)
	second.Follow(first)
	second.Psql("SELECT pg_wal_replay_pause()")
	for range 3 {
		w.write("a", 5)()
		first.Psql("SELECT pg_switch_wal()")
	}
	w.write("b", 5)()
	at := first.Psql("SELECT pg_current_wal_lsn()")
	for end := time.Now().Add(limit); second.Psql("SELECT pg_last_wal_receive_lsn() >= '"+at+"'") != "t"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the standby receives nothing")
		}
	}
	w.leads(second, 0)
	r := w.follow(nil)
	r.Await("its base backup is told to be none", func(s replicate.Status) bool {
		return s.State == replicate.Failing && strings.Contains(s.Why, "does not stand in the log")
	})
	second.Psql("SELECT pg_wal_replay_resume()")
	r.Await("another one", func(s replicate.Status) bool { return replicatetest.Following(s) && s.Base > 1 })
	w.leads(first, 0)
	w.write("c", 20)()
	second.Follow(first)
	w.leads(second, 0)
	number := r.CaughtUp().Base
	r.Stop()
	w.wantRows(w.restoreFrom(number, time.Time{}), w.acknowledged(anyLSN))
}

// TestWrongSlot wants that a slot that can't be used is told, and ends no log.
func TestWrongSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_level": "logical"}})
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	// Commits of the server wait for a follower that is named so.
	w.server.Psql("ALTER SYSTEM SET synchronous_standby_names = '*'")
	w.server.Reload()
	r.Await("it is told that commits wait", func(s replicate.Status) bool {
		return s.Cluster != nil && slices.ContainsFunc(s.Cluster.Notes, func(note string) bool { return strings.Contains(note, "synchronous_standby_names") })
	})
	w.server.Psql("ALTER SYSTEM RESET synchronous_standby_names")
	w.server.Reload()
	w.write("a", 10)()
	r.CaughtUp()
	r.Stop()
	w.server.Psql("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')")
	r = w.follow(func(o *follower.Options) { o.Slot = "theirs" })
	s := r.Await("the slot is told to be wrong", func(s replicate.Status) bool { return s.State == replicate.Unreached })
	if !strings.Contains(s.Why, "is logical") || s.Hint == "" || r.Count(replicate.Missed)+r.Count(replicate.Based) != 0 {
		t.Errorf("status %+v", s)
	}
	r.Stop()
	r = w.follow(nil)
	w.write("b", 10)()
	r.CaughtUp()
	if r.Count(replicate.Missed)+r.Count(replicate.Based) != 0 {
		t.Error("the log did not go on")
	}
	r.Stop()
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestDamageIsAnswered wants one base backup after something of the log was found to be damaged.
func TestDamageIsAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	r := w.follow(func(o *follower.Options) { o.Look = 100 * time.Millisecond })
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 10)()
	place := r.CaughtUp().Place
	for _, o := range []layout.LogObject{
		{Stream: place.Stream, Epoch: place.Epoch, First: 1, Last: 1}, {Stream: strings.Repeat("0", 32), Epoch: 1, First: 1, Last: 1},
	} {
		doc := record.LogDamaged{Stream: o.Stream, Epoch: o.Epoch, First: o.First, Last: o.Last, Time: time.Now().UTC(), Problem: "test"}
		if err := w.repo.PutDocument(t.Context(), layout.DamagedLogKey(w.src, o), doc); err != nil {
			t.Fatal(err)
		}
	}
	looks := func() {
		stop := w.write("b", 0)
		defer stop()
		records := r.Status().Records
		r.Await("records", func(s replicate.Status) bool { return s.Records > records+20 }) // an interval between two
	}
	looks()
	r.Await("a base backup", func(s replicate.Status) bool { return replicatetest.Following(s) && s.Base == 2 })
	looks()
	r.Stop()
	looked := w.follow(func(o *follower.Options) { o.Look = 100 * time.Millisecond })
	looked.Await("it goes on", replicatetest.Following)
	r = looked
	looks()
	if n := r.Count(replicate.Based); n != 0 || r.Status().Base != 2 {
		t.Errorf("%d more base backups, number %d", n, r.Status().Base)
	}
	r.Stop()
}

package postgres_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// claim is what is said of WAL: no commit before the LSN is later than the time, and all until then are before the LSN.
type claim struct {
	lsn  postgres.LSN
	time time.Time
}

// claims are those of records.
func claims(t *testing.T, events []replicate.Event) (out []claim) {
	t.Helper()
	for _, e := range events {
		if e.Kind == replicate.Shipped {
			lsn, err := postgres.ParseLSN(e.LSN)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, claim{lsn, e.Point})
		}
	}
	return out
}

// rowsOf are the rows that a client wrote, one after the other, as far as it knows where their commits are.
func (w *world) rowsOf(client string, most int) (out []ack) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range most {
		if a, ok := w.acked[fmt.Sprintf("%s|%d", client, n+1)]; ok && a.lsn < anyLSN {
			out = append(out, a)
		}
	}
	return out
}

// watch takes down again and again how far all is durable by the status, until it is told to stop.
func watch(f *follower.Follower) (stop func() []claim) {
	end, out := make(chan struct{}), make(chan []claim)
	go func() {
		var all []claim
		for {
			select {
			case <-end:
				out <- all
				return
			case <-time.After(3 * time.Millisecond):
			}
			s := f.Status()
			if s.Cluster == nil || s.Until().IsZero() {
				continue
			}
			if lsn, err := postgres.ParseLSN(s.Cluster.Durable); err == nil {
				all = append(all, claim{lsn, s.Until()})
			}
		}
	}()
	return func() []claim {
		close(end)
		return <-out
	}
}

// wantDurable wants that the status never said that something is durable that was not.
func wantDurable(t *testing.T, seen []claim, rows []ack) {
	t.Helper()
	if len(seen) == 0 || len(rows) == 0 {
		t.Errorf("%d looks at the status, %d rows", len(seen), len(rows))
	}
	for _, c := range seen {
		if late, _ := c.wrong(rows); late > 0 {
			t.Errorf("the status: up to %s all is durable until %s as it says: that is %s more", c.lsn, c.time, late)
			return // as may be many more
		}
	}
}

// wrong is how much later a claim reaches than what is there, and how much earlier than a commit that is there.
func (c claim) wrong(rows []ack) (late, early time.Duration) {
	for i := 1; i < len(rows); i++ {
		before, row := rows[i-1], rows[i]
		// The commit of a row lies between the LSN and the time after the row before it, and those after it.
		if before.lsn >= c.lsn {
			late = max(late, c.time.Sub(row.at))
		}
		if row.lsn <= c.lsn {
			early = max(early, before.at.Sub(c.time))
		}
	}
	return late, early
}

func wantTrue(t *testing.T, what string, all []claim, rows []ack) {
	t.Helper()
	for _, c := range all {
		if late, early := c.wrong(rows); late > 0 || early > 0 {
			t.Errorf("%s: up to %s it reaches %s as it says: that is %s more than is there, or %s less", what, c.lsn, c.time, late, early)
		}
	}
}

// TestBacklog has a follower catch up, and may be killed after any record: none says that the log reaches later than it does,
// nor does the status meanwhile, nor WAL that archive_command gives late.
func TestBacklog(t *testing.T) {
	t.Parallel()
	kept, settings := kept(t)
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: settings})
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 20)()
	r.CaughtUp()
	r.Stop()
	const rows = 600
	if n := w.write("b", rows)(); n != rows {
		t.Fatalf("%d rows", n)
	}
	wrote := w.rowsOf("b", rows)

	var mu sync.Mutex
	var seen []claim
	begun := make(chan struct{})
	w.fix.Store.SetHook(func(mem.Call) mem.Fault {
		<-begun
		s := r.Status()
		if lsn, err := postgres.ParseLSN(s.Cluster.Durable); err == nil {
			mu.Lock()
			seen = append(seen, claim{lsn, s.Until()})
			mu.Unlock()
		}
		return mem.Fault{}
	})
	r = w.follow(func(o *follower.Options) { o.Memory = 64 << 10 })
	close(begun)
	r.CaughtUp()
	w.fix.Store.SetHook(nil)
	r.Stop()
	all := claims(t, r.Events())
	last := wrote[len(wrote)-1]
	if len(all) < 3 || all[0].lsn >= wrote[len(wrote)/2].lsn || !all[len(all)-1].time.After(last.at) {
		t.Fatalf("it did not catch up in steps: %+v", all)
	}
	wantTrue(t, "a record", all, wrote)
	wantDurable(t, seen, wrote)

	w.server.Psql("SELECT pg_switch_wal()")
	settled(t, w.server)
	push := replicatetest.New(t)
	o := w.options(func(o *follower.Options) { o.Renew, o.Tell = true, push.Tell })
	for _, path := range glob(t, kept, "0*") {
		if _, err := follower.Push(t.Context(), o, path); err != nil {
			t.Fatal(err)
		}
		o.Renew = false
	}
	pushed := claims(t, push.Events())
	if len(pushed) < 2 {
		t.Fatalf("%+v", pushed)
	}
	wantTrue(t, "a record of wal-push", pushed, wrote)
}

// TestBacklogOfStandby has a standby that has lost its primary pass on what it has: nothing says that it is all that the
// primary had committed by then.
func TestBacklogOfStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	first := w.server
	second := first.Standby(t)
	w.leads(second, 0)
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	r.Stop()
	w.leads(first, 0)
	const rows = 40
	w.write("b", rows/2)()
	second.Follow(first)
	second.Psql("ALTER SYSTEM SET primary_conninfo = ''")
	second.Reload()
	for end := time.Now().Add(limit); second.Psql("SELECT count(*) FROM pg_stat_wal_receiver") != "0"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the standby still receives")
		}
	}
	w.write("c", rows/2)()
	w.leads(second, 0)
	r = w.follow(nil)
	r.Await("all that it has is there", func(s replicate.Status) bool {
		return replicatetest.Following(s) && s.Cluster.Durable == s.Cluster.End && s.Records > 0
	})
	r.Stop()
	all := claims(t, r.Events())
	wrote := append(w.rowsOf("b", rows/2), w.rowsOf("c", rows/2)...)
	if n := len(all); n == 0 || all[n-1].lsn < wrote[rows/2-1].lsn || all[n-1].lsn >= wrote[rows-2].lsn {
		t.Fatalf("%+v", all)
	}
	wantTrue(t, "a record", all, wrote)
}

package postgres_test

import (
	"cmp"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestPromotion follows a standby that is promoted twice while it is followed, and goes along without a base backup.
func TestPromotion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	first := w.server
	second := first.Standby(t)
	w.write("a", 30)()
	w.leads(second, 0)
	r := w.follow(nil)
	r.Await("the base backup of a standby", replicatetest.Following)
	w.leads(first, 0)
	w.write("b", 30)()
	second.Follow(first)
	first.Kill9()
	w.leads(second, 0)
	second.Promote()
	w.write("c", 30)()
	s := r.CaughtUp()
	if s.Cluster.Timeline != 2 || r.Count(replicate.Promoted) != 1 || r.Count(replicate.Based) != 1 || r.Count(replicate.Missed) != 0 {
		t.Errorf("after the promotion: %+v", s.Cluster)
	}
	// The next one happens while nobody looks, and a base backup of the new timeline stands in the log.
	if b, err := w.base(t.Context()); b.Number != 2 || err != nil {
		t.Fatal(b, err)
	}
	third := second.Standby(t)
	w.write("d", 30)()
	r.CaughtUp()
	r.Stop()
	w.write("e", 30)()
	third.Follow(second)
	second.Kill9()
	third.Promote()
	w.leads(third, 0)
	w.write("f", 30)()
	r = w.follow(nil)
	s = r.CaughtUp()
	if s.Cluster.Timeline != 3 || r.Count(replicate.Promoted) != 1 || r.Count(replicate.Based) != 0 {
		t.Errorf("after the second promotion: %+v", s.Cluster)
	}
	r.Stop()
	// From the first base backup on the way leads over all timelines.
	w.wantRows(w.restoreFrom(1, time.Time{}), w.acknowledged(anyLSN))
}

// TestFailover promotes a standby that had not received what is stored already: the log goes on from where the histories
// part, and what the old primary alone had stays on its own branch.
func TestFailover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	first := w.server
	second := first.Standby(t)
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 100)()
	second.Follow(first)
	second.Stop("fast")
	w.write("lost", 30)()
	r.CaughtUp()
	before := time.Now()
	if b, err := w.base(t.Context()); b.Number != 2 || err != nil { // on the branch that will be given up
		t.Fatal(b, err)
	}
	first.Kill9()
	second.Restart()
	second.Promote()
	w.leads(second, 0)
	w.write("b", 100)()
	s := r.CaughtUp()
	if s.Cluster.Timeline != 2 || r.Count(replicate.Based) != 1 || r.Count(replicate.Missed) != 0 || r.Count(replicate.Promoted) != 1 {
		t.Errorf("after the failover: %+v", s.Cluster)
	}
	// The old primary comes back by itself: it is not followed.
	first.Restart()
	w.leads(first, 0)
	w.cut(second)
	r.Await("the old primary is known as such", func(s replicate.Status) bool { return s.State == replicate.Behind && s.Hint != "" })
	w.leads(second, 0)
	w.write("c", 10)()
	r.CaughtUp()
	r.Stop()
	want := w.acknowledged(anyLSN)
	lost := map[string]bool{}
	for row := range want {
		if strings.HasPrefix(row, "lost") {
			lost[row] = true
			delete(want, row)
		}
	}
	restored := w.restoreFrom(1, time.Time{})
	got := w.rows(restored)
	for row := range lost {
		if got[row] {
			t.Errorf("row %s is of the other branch", row)
		}
	}
	w.wantRows(restored, want)
	// What was stored before the failover can be restored as it was then.
	w.wantRows(w.restoreFrom(1, before), lost)
}

// cut ends the connections to a server.
func (w *world) cut(s *cluster.Server) {
	s.Psql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
}

// TestForeign leads the service to another cluster, and back.
func TestForeign(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	own := w.server
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 20)()
	durable := r.CaughtUp().Cluster.Durable
	other := cluster.Start(t, cluster.Options{})
	w.leads(other, 0)
	w.cut(own)
	s := r.Await("another cluster is refused", func(s replicate.Status) bool { return s.State == replicate.Foreign })
	// The own server may have written a little by itself.
	own.Psql("SELECT 1 / (pg_current_wal_lsn() >= '" + cmp.Or(s.Cluster.Durable, durable) + "')::int")
	if s.Hint == "" || r.Count(replicate.Based) != 1 {
		t.Errorf("%+v %+v", s, s.Cluster)
	}
	if slots := other.Psql("SELECT count(*) FROM pg_replication_slots"); slots != "0" {
		t.Errorf("%s slots were made on the other cluster", slots)
	}
	w.leads(own, 0)
	w.write("b", 20)()
	r.CaughtUp()
	r.Stop()
	// A person says that the other one takes its place.
	w.leads(other, 0)
	other.Psql("CREATE TABLE acked (client text, n int, filler text)")
	w.mu.Lock()
	clear(w.acked)
	w.mu.Unlock()
	r = w.follow(func(o *follower.Options) { o.Renew = true })
	r.Await("a base backup of the other", func(s replicate.Status) bool { return replicatetest.Following(s) && s.Base == 2 })
	w.write("c", 20)()
	r.CaughtUp()
	r.Stop()
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestPutBack puts a server back to an older state, from where it goes on in another way: nothing of that is appended to what
// is stored.
func TestPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	own := w.server
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 20)()
	r.CaughtUp()
	own.Stop("fast")
	dir := filepath.Join(own.Owner.Dir(t), "data")
	own.CopyTo(t, dir)
	own.Restart()
	w.write("b", 20)()
	durable := r.CaughtUp().Cluster.Durable
	own.Stop("fast")
	old := cluster.Open(t, dir, cluster.Options{})
	w.leads(old, 0)
	r.Await("it has less than what is stored", func(s replicate.Status) bool { return s.State == replicate.Behind })
	// Somebody makes a backup meanwhile: it has no place in the log of another history.
	if b, err := w.base(t.Context()); b.Place != nil || err != nil {
		t.Fatal(b, err)
	}
	w.mu.Lock()
	clear(w.acked)
	w.mu.Unlock()
	w.write("c", 60)()
	if ahead := old.Psql("SELECT pg_current_wal_lsn() > '" + durable + "'"); ahead != "t" {
		t.Fatal("the other history is shorter")
	}
	s := r.Await("a new base backup", func(s replicate.Status) bool { return replicatetest.Following(s) && s.Base == 3 })
	if len(s.Gaps) != 1 || !strings.Contains(s.Gaps[0].Why, "other WAL") {
		t.Errorf("gaps %+v", s.Gaps)
	}
	w.write("d", 20)()
	r.CaughtUp()
	r.Stop()
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// TestClone lets two machines that were one go on: each has its server, and one of their followers stops.
func TestClone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1})
	r := w.follow(nil)
	r.Await("the base backup", replicatetest.Following)
	w.write("a", 20)()
	r.CaughtUp()
	r.Stop()
	dir := filepath.Join(w.server.Owner.Dir(t), "data")
	w.server.Stop("fast")
	w.server.CopyTo(t, dir)
	w.server.Restart()
	clone := &world{t: t, fix: w.fix, repo: w.repo, src: w.src, dir: t.TempDir(), acked: map[string]ack{}}
	if err := os.CopyFS(clone.dir, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	clone.server = cluster.Open(t, dir, cluster.Options{})
	looking := func(o *follower.Options) { o.Look = 100 * time.Millisecond }
	first, second := w.follow(looking), clone.follow(looking)
	stops := []func() int{w.write("b", 0), clone.write("c", 0)}
	first.Await("who sees the other stops", func(replicate.Status) bool {
		return first.Status().State == replicate.Superseded || second.Status().State == replicate.Superseded
	})
	loser, winner, survivor := first, second, clone
	if second.Status().State == replicate.Superseded {
		loser, winner, survivor = second, first, w
	}
	if err := <-loser.Ended; !errors.Is(err, replicate.ErrSuperseded) {
		t.Errorf("the one that stops says %v", err)
	}
	loser.Ended <- nil
	for _, stop := range stops {
		stop()
	}
	winner.CaughtUp()
	winner.Stop()
	w.wantRows(w.restore(time.Time{}), survivor.acknowledged(anyLSN))
}

// way is a way to a server that can be blocked.
type way struct {
	port int

	mu      sync.Mutex
	blocked bool // guarded by mu
	free    *sync.Cond
}

// block keeps all that is on its way from arriving, or lets it go on.
func (y *way) block(blocked bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.blocked = blocked
	y.free.Broadcast()
}

// newWay leads to a server.
func newWay(t *testing.T, s *cluster.Server) *way {
	t.Helper()
	y := &way{}
	y.free = sync.NewCond(&y.mu)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.Close()
		y.block(false)
	})
	y.port = l.Addr().(*net.TCPAddr).Port
	pass := func(to, from net.Conn) {
		defer func() { _, _ = to.Close(), from.Close() }()
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			y.mu.Lock()
			for y.blocked {
				y.free.Wait()
			}
			y.mu.Unlock()
			if _, werr := to.Write(b[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
			if err != nil {
				_ = in.Close()
				continue
			}
			go pass(in, out)
			go pass(out, in)
		}
	}()
	return y
}

// TestCut blocks the network in the midst: that is noticed, and told, and all goes on.
func TestCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_sender_timeout": "2s"}})
	y := newWay(t, w.server)
	config := w.server
	r := w.follow(func(o *follower.Options) { o.Silence = time.Second })
	r.Await("the base backup", replicatetest.Following)
	w.leads(config, y.port)
	w.cut(w.server)
	r.CaughtUp()
	w.leads(config, 0) // the application has another way
	stop := w.write("a", 0)
	w.leads(config, y.port)
	r.Await("some records", func(s replicate.Status) bool { return s.Records > 3 })
	y.block(true)
	r.Await("the cut is told", func(s replicate.Status) bool { return s.State == replicate.Unreached })
	y.block(false)
	r.Await("it goes on", replicatetest.Following)
	stop()
	r.CaughtUp()
	r.Stop()
	if n := r.Count(replicate.Based); n != 1 {
		t.Errorf("%d base backups", n)
	}
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

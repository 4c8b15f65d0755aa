package soak

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// followed is a PostgreSQL server on a host, an application that writes to it, and who follows it.
type followed struct {
	*database // the host, its processes and how they are awaited; no database of SQLite
	server    *cluster.Server
	writer    *cluster.Writer
	restores  int

	mu      sync.Mutex
	lsn     postgres.LSN // all WAL before it is durable; guarded by mu
	records int          // guarded by mu
	strange []string     // events that say that something was missed; guarded by mu
}

// event takes an event of the follower.
func (f *followed) event(line []byte, following *atomic.Bool) {
	f.heard(line, following)
	var e replicate.Event
	if json.Unmarshal(line, &e) != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e.Kind {
	case replicate.Shipped:
		if lsn, err := postgres.ParseLSN(e.LSN); err == nil {
			f.lsn = max(f.lsn, lsn)
			f.records++
		}
	case replicate.Missed:
		f.strange = append(f.strange, string(line))
	}
}

func (f *followed) durable() (lsn postgres.LSN, records int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lsn, f.records
}

// start starts the follower and waits until something more is durable.
func (f *followed) start() {
	f.t.Helper()
	following := new(atomic.Bool)
	args := []string{"replicate", "--postgres", f.server.DSN("postgres"), "--name", "db", "--interval", "50ms", "--json"}
	f.follower = f.process(func(line []byte) { f.event(line, following) }, f.program, args...)
	f.follower.following = following
}

func (f *followed) awaitMore() {
	f.t.Helper()
	_, before := f.durable()
	f.await("followed", func() bool {
		_, now := f.durable()
		return f.follower.following.Load() && now > before+2
	})
}

// check restores the newest state by the command, and wants what was acknowledged and durable by now.
func (f *followed) check() {
	f.t.Helper()
	lsn, _ := f.durable()
	var want []cluster.Row
	for _, row := range f.writer.Acknowledged() {
		upto, err := postgres.ParseLSN(row.Upto)
		must(f.t, err)
		if upto <= lsn {
			want = append(want, row)
		}
	}
	f.restores++
	to := filepath.Join(f.server.Owner.Dir(f.t), fmt.Sprintf("restored-%d", f.restores))
	f.run("restore", "db", "--to", to)
	restored := cluster.Open(f.t, to, cluster.Options{})
	if lost := cluster.Missing(f.t, restored, "postgres", want); len(lost) > 0 {
		f.t.Fatalf("%d of %d transactions that were acknowledged, and durable up to %s, are not there; the first is %+v", len(lost), len(want), lsn, lost[0])
	}
	f.t.Logf("restored %d transactions that were acknowledged and durable", len(want))
	restored.Stop("immediate")
	must(f.t, os.RemoveAll(to))
}

// TestClusterKills kills the follower, the server or both, again and again.
func TestClusterKills(t *testing.T) {
	random := dice(t)
	h := newHost(t, "")
	d := &database{host: h, random: random, states: map[replicate.State]bool{}}
	d.run("init")
	f := &followed{database: d, server: cluster.Start(t, cluster.Options{SegmentSize: 1 << random.IntN(3), Checksums: true, Config: map[string]string{"max_slot_wal_keep_size": "1GB"}})}
	f.writer = cluster.StartWriter(t, f.server, cluster.WriterOptions{Connections: 3, Payload: 500, Pause: time.Millisecond})
	f.start()
	f.awaitMore()
	killed := map[string]int{}
	for round := range 3 * test.follows {
		time.Sleep(time.Duration(50+random.IntN(500)) * time.Millisecond)
		what := []string{"follower", "server", "both"}[round%3]
		killed[what]++
		if what != "server" {
			f.follower.kill()
		}
		if what != "follower" {
			f.server.Kill9()
			f.server.Restart()
		}
		if what != "server" {
			f.start()
		}
		f.awaitMore()
		if round%10 == 9 {
			f.check()
		}
	}
	// In the end the machine is lost, while all is at work.
	f.server.Kill9()
	rows := f.writer.Stop()
	time.Sleep(time.Second) // what had come may become durable
	f.follower.end()
	f.check()
	h.run("verify", "--level", "content")
	_, records := f.durable()
	t.Logf("killed %v; %d transactions were acknowledged, %d records", killed, len(rows), records)
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.snapshots != 1 || len(f.strange) > 0 {
		t.Errorf("%d base backups; %v", d.snapshots, f.strange)
	}
}

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// world is a host with a server, an application and a repository.
type world struct {
	t    *testing.T
	fix  *repotest.Fixture
	repo *repository.Repository
	src  snapshot.Source
	dir  string

	mu     sync.Mutex
	server *cluster.Server // that is followed; guarded by mu
	port   int             // of a way to the server; 0: its own; guarded by mu
	acked  map[string]ack  // rows that were acknowledged; guarded by mu
}

// ack is when a row was acknowledged, and an LSN that is not before its commit.
type ack struct {
	at  time.Time
	lsn postgres.LSN
}

func newWorld(t *testing.T, o cluster.Options) *world {
	t.Helper()
	w := &world{t: t, fix: repotest.New(t), dir: t.TempDir(), acked: map[string]ack{}}
	w.fix.Store.SetClock(time.Now)
	w.repo, w.src = w.fix.Repo, snapshot.Source{Host: "test", Name: "db"}
	w.server = cluster.Start(t, o)
	w.server.Psql("CREATE TABLE acked (client text, n int, filler text)")
	return w
}

// leads has the service lead to a server, over a port if that is not 0.
func (w *world) leads(s *cluster.Server, port int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server, w.port = s, port
}

func (w *world) dsn() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	dsn := w.server.DSN("postgres")
	if w.port != 0 {
		dsn = strings.Replace(dsn, "port="+strconv.Itoa(w.server.Port), "port="+strconv.Itoa(w.port), 1)
	}
	return dsn
}

// base makes a base backup as the command line does.
func (w *world) base(ctx context.Context) (made follower.Base, err error) {
	session, err := w.repo.Begin(ctx, repository.BeginOptions{
		Source: w.src, Kind: policy.KindPostgres, State: filepath.Join(w.dir, "packs"), Tool: "test", Now: time.Now,
	})
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	began := time.Now()
	tail, err := follower.ReadTail(w.options(nil).Dir)
	if err != nil {
		return made, err
	}
	got, err := pgsource.Capture(ctx, pgsource.Options{Connection: w.dsn(), Temp: w.dir, Log: tail.Proof()}, session, nil)
	if err != nil {
		return made, err
	}
	result := repository.Result{Roots: got.Roots, Counts: got.Counts, Started: began, Until: got.Until}
	if !got.Apart {
		result.Log = tail.Place(got.System, got.Timeline, got.Start, got.WALEnd)
	}
	m, err := session.Commit(ctx, result)
	if err != nil {
		return made, err
	}
	return follower.Base{Number: m.Sequence, Place: m.Log, Stop: got.Stop}, nil
}

func (w *world) options(change func(*follower.Options)) follower.Options {
	o := follower.Options{
		Repository: w.repo, Source: w.src, Service: "test", Interval: 50 * time.Millisecond, Dir: filepath.Join(w.dir, "state"), Tool: "test",
		Slot: "holdfast_db", Config: func() (*pgconn.Config, error) { return pgsource.Config(w.dsn()) }, Base: w.base,
		Watch: 100 * time.Millisecond, Ping: 50 * time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	return o
}

// running is a follower at work.
type running struct {
	*follower.Follower
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	events []replicate.Event // guarded by mu
}

func (w *world) follow(change func(*follower.Options)) *running {
	w.t.Helper()
	r := &running{t: w.t, ended: make(chan error, 1)}
	o := w.options(change)
	o.Tell = func(e replicate.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}
	r.Follower = follower.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- r.Run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-done
		if w.t.Failed() {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range r.events {
				if e.Kind != replicate.Shipped {
					w.t.Logf("%s %s %s %s %s", e.Time.Format(time.TimeOnly), e.Kind, e.State, e.LSN, e.Why)
				}
			}
		}
	})
	return r
}

// stop ends the follower in an orderly way.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Fatal(err)
	}
}

// limit is how long anything may take.
const limit = time.Minute

// await waits until the status is as wanted.
func (r *running) await(what string, ok func(replicate.Status) bool) replicate.Status {
	r.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		s := r.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: not within %s: %+v %+v", what, limit, s, s.Cluster)
		}
	}
}

func following(s replicate.Status) bool { return s.State == replicate.Following && !s.Looked.IsZero() }

// caughtUp waits until all that was committed by now is durable.
func (r *running) caughtUp() replicate.Status {
	r.t.Helper()
	now := time.Now()
	return r.await("all is durable", func(s replicate.Status) bool {
		return following(s) && s.Oldest.IsZero() && s.Looked.After(now)
	})
}

func (r *running) count(kind string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// write has a client insert rows, one transaction each, until stop is called: so many at most if most is not 0. What fails,
// because the server is down, is tried again with the next row.
func (w *world) write(client string, most int) (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	go func() {
		n, good := 0, 0
		for ctx.Err() == nil && (most == 0 || good < most) {
			conn, err := pgconn.Connect(ctx, w.dsn())
			for err == nil && ctx.Err() == nil && (most == 0 || good < most) {
				n++
				insert := fmt.Sprintf("INSERT INTO acked VALUES ('%s', %d, repeat(md5('%d'), 20))", client, n, n)
				if _, err = conn.Exec(context.Background(), insert).ReadAll(); err != nil {
					break
				}
				at := time.Now()
				var rows []*pgconn.Result
				rows, err = conn.Exec(context.Background(), "SELECT pg_current_wal_insert_lsn()").ReadAll()
				lsn := postgres.LSN(1<<63 - 1)
				if err == nil {
					lsn, err = postgres.ParseLSN(string(rows[0].Rows[0][0]))
				}
				w.mu.Lock()
				w.acked[fmt.Sprintf("%s|%d", client, n)] = ack{at, lsn}
				w.mu.Unlock()
				good++
			}
			if conn != nil {
				_ = conn.Close(context.Background())
			}
			time.Sleep(10 * time.Millisecond)
		}
		done <- good
	}()
	return func() int {
		if most == 0 {
			cancel()
		}
		defer cancel()
		return <-done
	}
}

// acknowledged returns the rows that must be there: with commits before an LSN.
func (w *world) acknowledged(before postgres.LSN) map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]bool{}
	for row, a := range w.acked {
		if a.lsn <= before {
			out[row] = true
		}
	}
	return out
}

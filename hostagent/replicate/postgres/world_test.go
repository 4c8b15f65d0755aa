package postgres_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestMain lets more tests run beside each other than there are processors: most of the time they wait for servers.
func TestMain(m *testing.M) {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		_ = flag.Set("test.parallel", "4")
	}
	os.Exit(m.Run())
}

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
		Options: replicate.Options{Repository: w.repo, Source: w.src, Interval: 50 * time.Millisecond, Dir: filepath.Join(w.dir, "state"), Tool: "test"},
		Service: "test", Slot: "holdfast_db", Config: func() (*pgconn.Config, error) { return pgsource.Config(w.dsn()) }, Base: w.base,
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
	*replicatetest.Running
}

func (w *world) follow(change func(*follower.Options)) *running {
	w.t.Helper()
	r := &running{Running: replicatetest.New(w.t)}
	o := w.options(change)
	o.Tell = r.Tell
	r.Follower = follower.New(o)
	r.Start(r.Follower)
	return r
}

// limit is how long anything may take.
const limit = time.Minute

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

package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/sqlite"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/program"
	"github.com/btcdecoded/holdfast/test/writer"
)

// world is a host with an application, its database and a repository.
type world struct {
	t     *testing.T
	fix   *repotest.Fixture
	repo  *repository.Repository
	src   snapshot.Source
	dir   string
	path  string // of the database
	notes string
	n     int // of copies
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, fix: repotest.New(t), dir: t.TempDir()}
	w.fix.Store.SetClock(time.Now)
	w.repo, w.src = w.fix.Repo, snapshot.Source{Host: "test", Name: "app"}
	w.path, w.notes = filepath.Join(w.dir, "app.db"), filepath.Join(w.dir, "notes")
	return w
}

// application is the binary. It is a process of its own: a process that closes a file loses its locks on it, and the
// follower closes files.
var application string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "holdfast-replicate-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if application, err = program.Application(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// command is the application with a database like that of the world, not started.
func (w *world) command(more ...string) *exec.Cmd {
	args := append([]string{"-db", w.path, "-notes", w.notes, "-payload", "100", "-cells", "300", "-bulk", "50", "-width", "200"}, more...)
	return exec.Command(application, args...)
}

// app runs the application until it has committed so many transactions and has closed the database.
func (w *world) app(commits int, more ...string) {
	w.t.Helper()
	if out, err := w.command(append([]string{"-commits", fmt.Sprint(commits)}, more...)...).CombinedOutput(); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
}

// hold commits a transaction and keeps the database open until the test ends, so that its log stays.
func (w *world) hold() {
	w.t.Helper()
	cmd := w.command("-commits", "1", "-hold", "-checkpoint", "none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	before := w.last()
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for limit := time.Now().Add(30 * time.Second); w.last() == before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			w.t.Fatal("the application commits nothing")
		}
	}
}

// last is the newest transaction that was acknowledged.
func (w *world) last() int64 {
	w.t.Helper()
	notes, err := writer.Notes(w.notes)
	if err != nil {
		w.t.Fatal(err)
	}
	return writer.Acknowledged(notes, time.Now())
}

// running is a follower at work.
type running struct {
	*follower.Follower
	*replicatetest.Running
}

func (w *world) options(change func(*follower.Options)) follower.Options {
	o := follower.Options{
		Options: replicate.Options{Repository: w.repo, Source: w.src, Interval: 50 * time.Millisecond, Dir: filepath.Join(w.dir, "state"), Tool: "test"},
		Path:    w.path, Base: w.snapshot,
	}
	if change != nil {
		change(&o)
	}
	return o
}

// snapshot makes a snapshot, of a follower or without.
func (w *world) snapshot(ctx context.Context, c *follower.Capture) (n uint64, err error) {
	session, err := w.repo.Begin(ctx, repository.BeginOptions{
		Source: w.src, Kind: policy.KindSQLite, State: filepath.Join(w.dir, "packs"), Tool: "test", Now: time.Now,
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	var follow sqlite.Tail
	if c.Tail() {
		follow = c
	}
	began := time.Now()
	got, err := sqlite.Capture(ctx, sqlite.Options{Path: w.path, Temp: w.dir}, session, follow, nil)
	if err != nil {
		return 0, err
	}
	place, err := c.Place(ctx)
	if err != nil {
		return 0, err
	}
	m, err := session.Commit(ctx, repository.Result{Roots: got.Roots, Counts: got.Counts, Started: began, Log: place})
	if err != nil {
		return 0, err
	}
	return m.Sequence, nil
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

// restoreAll restores from each snapshot, and from each the records that follow it on each branch, and checks every
// so-manieth state. It returns the largest number of transactions that was seen.
func (w *world) restoreAll(every int) (most int64) {
	w.t.Helper()
	ctx := context.Background()
	repo := w.fix.Open(w.t, w.fix.Store)
	manifests, err := repo.Manifests(ctx, w.src)
	if err != nil {
		w.t.Fatal(err)
	}
	streams, err := log.Streams(ctx, repo, w.src)
	if err != nil {
		w.t.Fatal(err)
	}
	reader := log.NewReader(repo, w.src, streams)
	for _, m := range manifests {
		tree, err := repotest.Restore(ctx, repo, m)
		if err != nil {
			w.t.Fatal(err)
		}
		base := tree[w.path]
		got := w.check(fmt.Sprintf("snapshot %d", m.Sequence), base)
		most = max(most, got)
		if m.Log == nil {
			continue
		}
		for _, s := range streams {
			for _, e := range s.Epochs {
				runs := e.Runs()
				if s.ID != m.Log.Stream || len(runs) == 0 {
					continue
				}
				through := log.Place{Stream: s.ID, Epoch: e.Epoch, Sequence: runs[len(runs)-1].Last}
				most = max(most, w.replay(reader, base, got, log.Range{From: *m.Log, Through: through}, every))
			}
		}
	}
	return most
}

// replay applies records to a base.
func (w *world) replay(reader *log.Reader, base []byte, before int64, rg log.Range, every int) int64 {
	w.t.Helper()
	db := append([]byte(nil), base...)
	last, n := before, 0
	var at time.Time
	apply := func() {
		got := w.check(fmt.Sprintf("after record %d of epoch %d", n, rg.Through.Epoch), db)
		if got < last {
			w.t.Fatalf("record %d goes back from transaction %d to %d", n, last, got)
		}
		last = got
	}
	for rec, err := range reader.Records(context.Background(), rg) {
		if err != nil {
			if n == 0 {
				return before // a branch that leaves before the snapshot
			}
			w.t.Fatalf("record after %d: %v", n, err)
		}
		if rec.Time.Before(at) {
			w.t.Fatalf("record %d of %s is older than the one before it, of %s", rec.Sequence, rec.Time, at)
		}
		at = rec.Time
		size := int(rec.PageSize)
		if need := int(rec.Pages) * size; need > len(db) {
			db = append(db, make([]byte, need-len(db))...)
		}
		err := rec.Each(func(number uint32, page []byte) error {
			copy(db[int(number-1)*size:], page)
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if rec.More {
			continue
		}
		db = db[:int(rec.Pages)*size]
		if n++; n%every == 0 {
			apply()
		}
	}
	apply()
	return last
}

// check writes a database down and returns its transactions.
func (w *world) check(what string, db []byte) int64 {
	w.t.Helper()
	w.n++
	path := filepath.Join(w.t.TempDir(), fmt.Sprintf("copy-%d.db", w.n))
	if err := os.WriteFile(path, db, 0o600); err != nil {
		w.t.Fatal(err)
	}
	n, err := writer.Check(context.Background(), path)
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	return n
}

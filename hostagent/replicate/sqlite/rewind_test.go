package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/sqlite"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// shell is an application that does what it is told, and keeps the database open.
type shell struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
}

func (w *world) shell() *shell {
	w.t.Helper()
	cmd := exec.Command("sqlite3", "-bail", "-batch", w.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	s := &shell{t: w.t, cmd: cmd, in: in}
	cmd.Stderr = w.t.Output()
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.kill)
	s.run("PRAGMA wal_autocheckpoint = 0")
	return s
}

// run runs a statement, and returns when it is done.
func (s *shell) run(text string) {
	s.t.Helper()
	done := filepath.Join(s.t.TempDir(), "done")
	if _, err := fmt.Fprintf(s.in, "%s;\n.output %s\nSELECT 'done';\n.output stdout\n", text, done); err != nil {
		s.t.Fatal(err)
	}
	for limit := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if b, err := os.ReadFile(done); err == nil && strings.HasPrefix(string(b), "done") {
			return
		}
		if time.Now().After(limit) {
			s.t.Fatalf("%s: no answer", text)
		}
	}
}

func (s *shell) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// ask opens a database, and returns what a query answers.
func ask(t *testing.T, path, query string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", "-bail", path, query).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", query, err, out)
	}
	return strings.TrimSpace(string(out))
}

const rowsOfEach = "SELECT group_concat(v || ' ' || n, ', ') FROM (SELECT v, count(*) n FROM t GROUP BY v ORDER BY v)"

// lose puts back the log as it was, as a power failure does that takes what was not synced.
func (w *world) lose(s *shell, wal []byte) *shell {
	w.t.Helper()
	s.kill()
	if err := errors.Join(os.WriteFile(w.path+"-wal", wal, 0o600), os.Remove(w.path+"-shm")); err != nil {
		w.t.Fatal(err)
	}
	return w.shell()
}

// newest restores the newest state, as it is chosen among all that there is.
func (w *world) newest() string {
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
	var points []recovery.Point
	for _, m := range manifests {
		points = append(points, recovery.FromManifest(m.Manifest, time.Time{}))
	}
	reader := log.NewReader(repo, w.src, streams)
	chosen, err := reader.Select(ctx, points, log.Epochs(streams), recovery.Selector{})
	if err != nil {
		w.t.Fatal(err)
	}
	i := slices.IndexFunc(manifests, func(m *repository.Stored) bool { return m.Sequence == chosen.Point.Sequence })
	tree, err := repotest.Restore(ctx, repo, manifests[i])
	if err != nil {
		w.t.Fatal(err)
	}
	db := tree[w.path]
	if chosen.Log != nil {
		for rec, err := range reader.Records(ctx, log.RangeOf(*chosen.Log)) {
			if err != nil {
				w.t.Fatal(err)
			}
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
		}
	}
	path := filepath.Join(w.t.TempDir(), "copy.db")
	if err := os.WriteFile(path, db, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return ask(w.t, path, rowsOfEach)
}

// keep copies what the host knows of its log and its snapshots; restore puts it back.
func (w *world) keep() (restore func()) {
	w.t.Helper()
	aside := w.t.TempDir()
	dirs := []string{"state", "packs"}
	for _, d := range dirs {
		if err := os.CopyFS(filepath.Join(aside, d), os.DirFS(filepath.Join(w.dir, d))); err != nil {
			w.t.Fatal(err)
		}
	}
	return func() {
		w.t.Helper()
		for _, d := range dirs {
			to := filepath.Join(w.dir, d)
			if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(filepath.Join(aside, d)))); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// beside makes a snapshot of a database that is followed.
func (w *world) beside(r *running) {
	w.t.Helper()
	c, err := r.Capture(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if _, err := w.snapshot(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
}

// TestPowerFailure takes commits from the database that are in the repository: in a record of which the follower does not
// know that it is durable, or in a snapshot; by a power failure, or with all that the host knows, as where a virtual machine
// is put back to an earlier state. What is committed then is not mixed with them.
func TestPowerFailure(t *testing.T) {
	const record, snapshot, machine, stream = "a record", "a snapshot", "a snapshot that the machine has forgotten", "a log that the machine has forgotten"
	for _, in := range []string{record, snapshot, machine, stream} {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.shell()
			s.run("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, data BLOB)")
			s.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 50) INSERT INTO t SELECT i, 'old', randomblob(3000) FROM n")
			// Of a snapshot nothing would be in a record: the second one is due long after the first.
			interval := time.Hour
			if in == record {
				interval = 50 * time.Millisecond
			}
			r := w.follow(func(o *follower.Options) { o.Grace, o.Interval = time.Millisecond, interval })
			r.Await("the first snapshot", replicatetest.Following)
			s.run("UPDATE t SET v = 'kept' WHERE id = 1")
			r.CaughtUp()
			wal, err := os.ReadFile(w.path + "-wal")
			if err != nil {
				t.Fatal(err)
			}
			restore := func() {}
			if in == machine || in == stream {
				restore = w.keep()
			}
			var pieces atomic.Int64
			if in == record { // from now on the follower hears of no piece of the log that it is durable
				w.fix.Store.SetHook(func(c mem.Call) mem.Fault {
					if c.Op != mem.Put || !strings.Contains(c.Key, "/log/") {
						return mem.Fault{}
					}
					pieces.Add(1)
					return mem.Fault{Err: objstore.Transient(errors.New("no answer")), Persisted: true}
				})
			}
			s.run("UPDATE t SET v = 'lost'")
			if in == stream {
				r.Stop()
				r = w.follow(func(o *follower.Options) { o.Renew = true })
				r.Await("another log", replicatetest.Following)
			}
			if in == record {
				for limit := time.Now().Add(time.Minute); pieces.Load() == 0 && time.Now().Before(limit); {
					time.Sleep(time.Millisecond)
				}
			} else {
				w.beside(r)
				if got := w.newest(); got != "lost 50" {
					t.Errorf("the newest state that can be restored is %q", got)
				}
			}
			r.Stop()
			w.fix.Store.SetHook(nil)
			s = w.lose(s, wal)
			restore()
			s.run("UPDATE t SET v = 'new' WHERE id = 2")
			r = w.follow(func(o *follower.Options) { o.Interval = interval })
			r.Await("the follower", replicatetest.Following)
			r.CaughtUp()
			const want = "kept 1, new 1, old 48"
			if got := w.newest(); got != want {
				t.Errorf("the newest state that can be restored is %q, want %q", got, want)
			}
			w.beside(r)
			r.Stop()
			if got := w.newest(); got != want {
				t.Errorf("by a snapshot, the newest state that can be restored is %q, want %q", got, want)
			}
			if got := ask(t, w.path, rowsOfEach); got != want {
				t.Errorf("the database has %q", got)
			}
		})
	}
}

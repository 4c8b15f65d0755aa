package tail

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestStates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a := startApp(t, own, filepath.Join(dir, "rollback"))
	a.run("CREATE TABLE t(a)")
	good, err := os.ReadFile(a.path)
	if err != nil {
		t.Fatal(err)
	}
	good[17] = 3
	noise := make([]byte, 8192)
	for i, x := 0, uint64(1); i < len(noise); i++ {
		x = x*6364136223846793005 + 1442695040888963407
		noise[i] = byte(x >> 33)
	}
	for path, want := range map[string]State{
		filepath.Join(dir, "nothing"):       Missing,
		filepath.Join(dir, "rollback", "x"): Missing,
		dir:                                 NotDatabase,
		write("empty", nil):                 Empty,
		write("text", []byte("hello")):      NotDatabase,
		write("noise", noise):               Encrypted,
		write("broken", good):               Corrupt,
		a.path:                              RollbackMode,
	} {
		_, err := Open(path)
		var state *StateError
		if !errors.As(err, &state) || state.State != want || state.Path != path {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if h, err := Header(a.path); err != nil || h.WAL() || h.PageSize != 4096 {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestAnotherFile puts another database in the place of one that is in use; what the old log holds is delivered first.
func TestAnotherFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		do    func(t *testing.T, a *app, other string)
		cause Cause
	}{
		{"mv", func(t *testing.T, a *app, other string) { must(t, os.Rename(other, a.path)) }, Replaced},
		{"removed", func(t *testing.T, a *app, _ string) {
			must(t, os.Remove(a.path))
			must(t, os.Remove(a.path+"-wal"))
			must(t, os.Remove(a.path+"-shm"))
		}, Deleted},
		{"recreated", func(t *testing.T, a *app, _ string) {
			for _, s := range []string{"", "-wal", "-shm"} {
				must(t, os.Remove(a.path+s))
			}
			b := database2(t, a.path)
			b.add(3)
		}, Replaced},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := database(t, own)
			a.add(3)
			other := startApp(t, own, a.path+".other")
			other.run("PRAGMA journal_mode=WAL", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
			other.add(7)
			other.close(0)
			r := follow(t, a.path)
			a.add(2)
			c.do(t, a, other.path)
			if b, err := r.poll(); err != nil || b.Commits != 2 {
				t.Fatalf("what was there before: %+v, %v", b, err)
			}
			r.gap(c.cause, 0)
			if c.cause == Deleted {
				var state *StateError
				if err := r.tail.Start(); !errors.As(err, &state) || state.State != Missing {
					t.Fatal(err)
				}
				return
			}
			a.kill()
			if c.name == "mv" { // or SQLite itself would take the log for the new database's
				must(t, os.Remove(a.path+"-wal"))
				must(t, os.Remove(a.path+"-shm"))
			}
			r.rebase()
			b := startApp(t, own, a.path)
			r.same(b)
			b.add(2)
			r.want(2)
			r.same(b)
		})
	}
}

// database2 makes a database at a path.
func database2(t *testing.T, path string) *app {
	t.Helper()
	a := startApp(t, python, path)
	a.run("PRAGMA journal_mode=WAL", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinkIsSwitched(t *testing.T) {
	t.Parallel()
	a, b := database(t, own), database(t, own)
	link := filepath.Join(t.TempDir(), "current")
	must(t, os.Symlink(a.path, link))
	r := follow(t, link)
	a.add(2)
	r.want(2)
	must(t, os.Remove(link))
	must(t, os.Symlink(b.path, link))
	r.gap(Replaced, 0)
	r.rebase()
	b.add(1)
	r.want(1)
	r.same(b)
}

// TestWrittenInPlace has another database copied into the file, with and without the application being connected.
func TestWrittenInPlace(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{true, false} {
		t.Run(fmt.Sprint("live ", live), func(t *testing.T) {
			t.Parallel()
			a := database(t, own)
			a.add(3)
			a.run("PRAGMA wal_checkpoint(TRUNCATE)")
			r := follow(t, a.path)
			if !live {
				a.close(0)
			}
			waitFor(t, func() bool { r.want(0); return r.tail.Position().File != (Stamp{}) })
			b, err := os.ReadFile(a.path)
			must(t, err)
			must(t, os.WriteFile(a.path, b, 0o600))
			r.gap(Unproven, 0)
		})
	}
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
	}
}

func TestAnotherJournalMode(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		a := database(t, library)
		r := follow(t, a.path)
		a.add(2)
		a.run("PRAGMA journal_mode=DELETE", "INSERT INTO t VALUES (99, 'F')")
		r.want(2)
		r.gap(JournalMode, 0)
		var state *StateError
		if err := r.tail.Start(); !errors.As(err, &state) || state.State != RollbackMode {
			t.Fatal(err)
		}
		a.run("PRAGMA page_size=1024", "VACUUM", "PRAGMA journal_mode=WAL")
		a.add(1)
		r.rebase()
		if r.tail.PageSize() != 1024 {
			t.Error(r.tail.PageSize())
		}
		r.same(a)
		// And back, between two polls.
		a.run("PRAGMA journal_mode=DELETE", "PRAGMA page_size=2048", "VACUUM", "PRAGMA journal_mode=WAL")
		r.gap(PageSize, 0)
		r.rebase()
		a.add(1)
		r.want(1)
		r.same(a)
		a.run("PRAGMA journal_mode=DELETE", "PRAGMA journal_mode=WAL")
		r.gap(Unproven, 0)
	})
}

func TestExclusiveLockingMode(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		a := startApp(t, library, filepath.Join(t.TempDir(), "db"))
		a.run("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
		a.add(5)
		if _, err := look(a.path + "-shm"); !errors.Is(err, os.ErrNotExist) {
			t.Fatal("it has an index")
		}
		r := follow(t, a.path)
		r.same(a)
		a.add(2)
		r.want(2)
		r.want(0)
		a.run("PRAGMA wal_checkpoint(PASSIVE)")
		a.add(1) // a reset; what was read last is still in its place
		r.want(1)
		a.add(2)
		r.want(2)
		a.run("PRAGMA cache_size=5", "BEGIN", "UPDATE t SET b = hex(randomblob(250))", "COMMIT")
		r.want(1)
		r.same(a)
		a.close(0)
		r.want(0)
		r.want(0)
		r.identical()
		a.run("PRAGMA locking_mode=EXCLUSIVE", "SELECT count(*) FROM t")
		a.add(2)
		r.want(2)
		a.run("PRAGMA wal_checkpoint(TRUNCATE)")
		a.add(1)
		r.gap(Unproven, 0)
		r.rebase()
		r.same(a)
		a.kill()
		b := startApp(t, library, a.path)
		b.run("SELECT count(*) FROM t") // with an index again
		b.add(2)
		r.want(2)
		r.same(b)
	})
}

// TestFailedCommitIsReplaced has a transaction without an index take the place of one that looked like a commit.
func TestFailedCommitIsReplaced(t *testing.T) {
	t.Parallel()
	a := startApp(t, python, filepath.Join(t.TempDir(), "db"))
	a.run("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	a.add(5)
	r := follow(t, a.path)
	a.add(1)
	r.want(1)
	forge(t, r)
	r.want(1)
	a.add(1) // overwrites the forged frame
	r.gap(Rewound, 0)
	r.rebase()
	r.same(a)
}

// TestOtherByteOrder follows a log whose checksums another kind of processor began.
func TestOtherByteOrder(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	a.add(4)
	a.kill()
	log, err := os.ReadFile(a.path + "-wal")
	must(t, err)
	h, err := sqlite.ParseWALHeader(log)
	must(t, err)
	h.BigEndian = !h.BigEndian
	out := h.Append(nil)
	h, err = sqlite.ParseWALHeader(out)
	must(t, err)
	chain := h.Chain()
	for b := log[sqlite.WALHeaderSize:]; len(b) >= 4120; b = b[4120:] {
		f := sqlite.ParseFrame(b)
		out = chain.Append(out, f.Page, f.Commit, b[24:4120])
	}
	must(t, os.WriteFile(a.path+"-wal", out, 0o600))
	r := follow(t, a.path)
	a = startApp(t, python, a.path)
	r.same(a)
	a.add(3)
	r.want(3)
	a.add(1)
	a.run("PRAGMA wal_checkpoint(RESTART)")
	r.want(1)
	a.add(2)
	r.want(2)
	r.same(a)
}

// TestPageFails expects that a poll that failed is made again as a whole.
func TestPageFails(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	r := follow(t, a.path)
	a.add(3)
	full := errors.New("full")
	calls := 0
	_, err := r.tail.Poll(t.Context(), func(uint32, []byte) error {
		if calls++; calls == 3 {
			return full
		}
		return nil
	})
	if !errors.Is(err, full) {
		t.Fatal(err)
	}
	r.want(3)
	r.same(a)
	var unplaced Tail
	if _, err := unplaced.Poll(t.Context(), nil); err == nil {
		t.Error("polled without a place")
	}
}

func TestDamagedLog(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	a.add(3)
	r := follow(t, a.path)
	a.add(2)
	log, err := os.OpenFile(a.path+"-wal", os.O_RDWR, 0)
	must(t, err)
	defer log.Close()
	at := sqlite.FrameOffset(r.tail.Position().Frames+1, 4096) + 2000
	good := make([]byte, 1)
	_, err = log.ReadAt(good, at)
	must(t, err)
	_, err = log.WriteAt([]byte{good[0] + 1}, at)
	must(t, err)
	var state *StateError
	if _, err := r.poll(); !errors.As(err, &state) || state.State != Corrupt {
		t.Fatal(err)
	}
	_, err = log.WriteAt(good, at)
	must(t, err)
	r.want(2)
	r.same(a)
	if bytes.Equal(r.base, nil) {
		t.Error("no base")
	}
}

package tail

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// TestClosedAndOpened has the last connection closed, which removes the log, and the database opened again.
func TestClosedAndOpened(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		a := database(t, library)
		a.add(2)
		r := follow(t, a.path)
		for range 3 {
			a.add(2)
			a.close(0) // what was not read stays readable in the removed log
			r.want(2)
			r.want(0)
			if r.tail.files != nil {
				t.Fatalf("%+v: not closed", r.tail.Position())
			}
			r.identical()
			a.run("SELECT count(*) FROM t")
			r.want(0)
			a.add(1)
			r.want(1)
			a.run("PRAGMA wal_checkpoint(TRUNCATE)")
			a.add(1)
			r.want(1)
			r.same(a)
		}
		// Read only: a log comes and goes, the file stays.
		a.close(0)
		r.want(0)
		for range 3 {
			a.run("SELECT count(*) FROM t")
			a.close(0)
		}
		r.want(0)
		// A whole life that we did not see.
		a.add(1)
		a.close(0)
		r.gap(Unproven, 0)
		r.rebase()
		r.same(a)
	})
}

// TestStartedWithoutALog starts while nobody has the database open, just after somebody had.
func TestStartedWithoutALog(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	a.add(3)
	a.close(0)
	r := follow(t, a.path)
	r.identical()
	a.add(2)
	r.want(2)
	r.same(a)
}

// TestOpenedAndCheckpointedUnseen has a new life whose first checkpoint comes before the first look.
func TestOpenedAndCheckpointedUnseen(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	a.close(0)
	r := follow(t, a.path)
	a.add(2)
	a.run("PRAGMA wal_checkpoint(PASSIVE)")
	r.gap(Unproven, 0)
	r.rebase()
	r.same(a)
}

// TestKilled kills the application, between commits, with frames of an open transaction in the log, and after a reset.
func TestKilled(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		a := database(t, library)
		a.fill(50)
		r := follow(t, a.path)
		restart := func(statements ...string) {
			t.Helper()
			a.kill()
			r.want(0)
			if !r.tail.dead {
				t.Fatal("not seen to be dead")
			}
			a = startApp(t, library, a.path)
			a.run("PRAGMA wal_autocheckpoint=0")
			if len(statements) > 0 {
				a.run(statements...)
			}
		}
		a.add(2)
		r.want(2)
		restart("SELECT count(*) FROM t")
		a.add(1)
		r.want(1)
		r.same(a)

		a.run("PRAGMA cache_size=5", "BEGIN", "UPDATE t SET b = hex(randomblob(280))")
		restart()
		a.add(1)
		r.want(1)
		r.same(a)

		restart("PRAGMA wal_checkpoint(TRUNCATE)")
		r.want(0)
		a.add(3)
		r.want(3)
		a.run("PRAGMA wal_checkpoint(RESTART)")
		r.want(0)
		restart("SELECT count(*) FROM t") // recovery returns to the generation before
		r.want(0)
		a.add(2)
		r.want(2)
		r.same(a)

		restart("PRAGMA wal_checkpoint(RESTART)", "INSERT INTO t(b) VALUES ('FF')") // recovered and reset unseen
		r.want(1)
		r.same(a)
		a.close(0)
		r.want(0)
		r.identical()
	})
}

// TestKilledAndClosedByAnother has another process recover and close the database before we look.
func TestKilledAndClosedByAnother(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	r := follow(t, a.path)
	a.add(3)
	a.kill()
	b := startApp(t, python, a.path)
	b.run("SELECT count(*) FROM t")
	b.close(0)
	r.want(3)
	r.want(0)
	r.identical()
	b.add(1)
	r.want(1)
	r.same(b)
}

// TestDiesAgainAndAgain has the count of commits be what it would be if nothing were missing, by two lives of as many
// commits, one of which was not seen.
func TestDiesAgainAndAgain(t *testing.T) {
	t.Parallel()
	for _, seen := range []string{"alive", "dead"} {
		t.Run(seen, func(t *testing.T) {
			t.Parallel()
			a := database(t, python)
			a.add(10)
			a.kill()
			life := func(unread bool) {
				a = startApp(t, python, a.path)
				a.run("PRAGMA wal_autocheckpoint=0", "SELECT count(*) FROM t")
				a.add(5)
				if unread {
					a.run("PRAGMA wal_checkpoint(TRUNCATE)")
				}
			}
			life(false)
			r := follow(t, a.path)
			r.want(0)
			if seen == "dead" {
				a.kill()
				r.want(0)
				life(true)
				a.kill()
				a = startApp(t, python, a.path)
				a.add(1) // iChange is 1, and so is the number of commits in the log
				r.gap(Unproven, 0)
			} else {
				a.kill()
				life(true)
				a.add(1) // iChange is 6; 5 was read; 1 is in the log
				r.gap(Unproven, 0)
			}
			r.rebase()
			r.same(a)
		})
	}
}

// TestNeverPublished has a whole commit in the log that a process was killed before it could publish. As long as another
// one is connected it is no commit, and is overwritten; if nobody is, the next one recovers it.
func TestNeverPublished(t *testing.T) {
	t.Parallel()
	for _, connected := range []bool{true, false} {
		a := database(t, python)
		a.add(5)
		r := follow(t, a.path)
		a.add(1)
		r.want(1)
		if !connected {
			a.kill()
			r.want(0)
		}
		forge(t, r)
		if connected {
			r.want(0)
			a.run("PRAGMA wal_checkpoint(PASSIVE)") // which leaves the frame behind the new ones
			a.add(1)
			r.want(1)
			r.same(a)
			continue
		}
		r.want(1)
		a = startApp(t, python, a.path)
		a.run("SELECT count(*) FROM t")
		r.want(0)
		a.run("PRAGMA wal_checkpoint(TRUNCATE)")
		r.want(0)
	}
}

// forge appends a frame with a commit to the log, behind those that were read. It writes page 2 as it is.
func forge(t *testing.T, r *replica) {
	t.Helper()
	p := r.tail.Position()
	f, err := os.OpenFile(r.path+"-wal", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chain := sqlite.Chain{BigEndian: r.tail.order, Salt: p.Salt, Sum: p.Checksum}
	image := r.image()
	frame := chain.Append(nil, 2, uint32(len(image))/p.PageSize, image[p.PageSize:2*p.PageSize])
	if _, err := f.WriteAt(frame, sqlite.FrameOffset(p.Frames+1, p.PageSize)); err != nil {
		t.Fatal(err)
	}
}

// TestRecoveredInPlace has the index damaged, so that the next reader recovers it while another process is connected.
func TestRecoveredInPlace(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	a.add(5)
	r := follow(t, a.path)
	a.add(2)
	r.want(2)
	f, err := os.OpenFile(a.path+"-shm", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1, 2, 3}, 20); err != nil {
		t.Fatal(err)
	}
	var state *StateError
	if b, err := r.poll(); !errors.As(err, &state) || state.State != Busy {
		t.Fatalf("%+v, %v", b, err)
	}
	b := startApp(t, own, a.path)
	b.run("SELECT count(*) FROM t")
	r.want(0)
	b.add(2)
	a.add(1)
	r.want(3)
	r.same(a)
}

func TestSharedMemoryIsMadeAnew(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	a.add(5)
	r := follow(t, a.path)
	a.kill()
	r.want(0)
	if err := os.Remove(a.path + "-shm"); err != nil {
		t.Fatal(err)
	}
	r.want(0)
	b := startApp(t, own, a.path)
	b.add(2)
	r.want(2)
	r.same(b)
}

// TestFileTooLarge has the log's file system full: a commit fails in the middle, later ones work.
func TestFileTooLarge(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	a.fill(100)
	r := follow(t, a.path)
	log, err := look(a.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range []int64{4120*3 + 24, 4120*2 + 100, 4120} {
		if _, err := a.try(0, "limit "+itoa(log.stamp.Size+more), "UPDATE t SET b = hex(randomblob(250))"); err == nil {
			t.Fatal("the disk is not full")
		}
		r.want(0)
	}
	a.run("limit " + itoa(1<<40))
	a.add(2)
	r.want(2)
	r.same(a)
	a.close(0)
	r.want(0)
	r.identical()
}

// TestNothingIsWritten looks at the application's files before and after, and lets it make a checkpoint that needs all locks.
func TestNothingIsWritten(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	a.add(5)
	state := func() (all [3]inode) {
		for i, suffix := range []string{"", "-wal", "-shm"} {
			var err error
			if all[i], err = look(a.path + suffix); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	before := state()
	r := follow(t, a.path)
	for range 20 {
		r.want(0)
	}
	if after := state(); after != before {
		t.Errorf("%+v, before %+v", after, before)
	}
	for range 20 {
		a.add(1)
		if busy := a.run("PRAGMA wal_checkpoint(TRUNCATE)"); busy != "0|0|0" {
			t.Fatalf("a checkpoint was held up: %s", busy)
		}
		_, _ = r.poll()
	}
	if entries, err := os.ReadDir(filepath.Dir(a.path)); err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestClockSetBack(t *testing.T) {
	t.Parallel()
	a := database(t, own)
	r := follow(t, a.path)
	a.add(1)
	r.want(1)
	now := r.tail.now
	r.tail.now = func() instant { i := now(); i.wall = i.wall.Add(-time.Hour); return i }
	r.tail.watch.close()
	r.tail.watch = nil
	a.close(0)
	_, err := r.poll()
	var gap *GapError
	if !errors.As(err, &gap) || gap.Cause != Unproven {
		t.Fatal(err)
	}
}

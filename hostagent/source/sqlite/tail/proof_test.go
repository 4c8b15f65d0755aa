package tail

import (
	"errors"
	"testing"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// nothingSaid is where a database is whose log is empty and whose index was recovered: neither tells one such life from
// another. The database file's times are not known to be settled yet.
func nothingSaid(t *testing.T) (*app, *replica) {
	t.Helper()
	a := database(t, python)
	r := follow(t, a.path)
	a.run("PRAGMA wal_checkpoint(TRUNCATE)")
	r.want(0)
	a.kill()
	r.want(0)
	a = startApp(t, python, a.path)
	a.run("PRAGMA wal_autocheckpoint=0", "SELECT count(*) FROM t")
	r.want(0)
	if p := r.tail.Position(); p.Salt != (sqlite.Salt{}) || p.Frames != 0 {
		t.Fatalf("%+v", p)
	}
	r.tail.file, r.tail.pos.File = Stamp{}, Stamp{} // as if the checkpoint had been just now
	return a, r
}

// TestALifeWithoutATrace has a whole life between two polls after which log and index are, byte for byte, as they were.
func TestALifeWithoutATrace(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"alive", "dead"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			a, r := nothingSaid(t)
			a.add(1)
			a.run("PRAGMA wal_checkpoint(TRUNCATE)")
			a.kill()
			a = startApp(t, python, a.path)
			a.run("SELECT count(*) FROM t")
			if end == "dead" {
				a.kill()
			}
			r.gap(Unproven, 0)
			if end == "alive" {
				r.rebase()
				r.same(a)
			}
		})
	}
}

// TestALifeWithoutATraceBeforeResume has it between two lives of the tail.
func TestALifeWithoutATraceBeforeResume(t *testing.T) {
	t.Parallel()
	a, r := nothingSaid(t)
	waitFor(t, func() bool { r.want(0); return r.tail.Position().File != (Stamp{}) })
	must(t, resume(t, r, position(t, r))) // nothing happened
	r.want(0)
	p := position(t, r)
	a.add(1)
	a.run("PRAGMA wal_checkpoint(TRUNCATE)")
	a.kill()
	a = startApp(t, python, a.path)
	a.run("SELECT count(*) FROM t")
	if err := resume(t, r, p); gapOf(err) != Unproven {
		t.Fatalf("%v", err)
	}
}

// TestExclusiveTruncated has a commit come and go, and another one come, in a log that has no index and was empty.
func TestExclusiveTruncated(t *testing.T) {
	t.Parallel()
	for _, more := range []int{0, 1} {
		a := database(t, python)
		a.close(0)
		r := follow(t, a.path)
		r.want(0)
		a.run("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA wal_autocheckpoint=0", "SELECT count(*) FROM t")
		r.want(0)
		if r.tail.files == nil || r.tail.files.index != nil {
			t.Fatal("a log without an index is what this is about")
		}
		a.add(1)
		a.run("PRAGMA wal_checkpoint(TRUNCATE)")
		a.add(more)
		r.gap(Unproven, 0)
		r.rebase()
		r.same(a)
	}
}

// TestNeverPublishedAndTwoResets has a commit that was never published stand where one is looked for that was overwritten.
func TestNeverPublishedAndTwoResets(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	a.add(9)
	r := follow(t, a.path)
	a.add(1)
	r.want(1)
	forge(t, r)
	for range 2 {
		a.run("PRAGMA wal_checkpoint(RESTART)")
		a.add(1)
	}
	_, err := r.poll()
	var gap *GapError
	if !errors.As(err, &gap) {
		t.Fatalf("%v: a transaction was delivered that never was", err)
	}
	r.rebase()
	r.same(a)
}

package tail

import (
	"fmt"
	"testing"
)

func TestCommitsAndCheckpoints(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		a := database(t, library)
		a.add(3)
		r := follow(t, a.path)
		r.same(a)
		r.want(0)
		a.add(2)
		r.want(2)
		r.want(0)
		for _, mode := range []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"} {
			a.run("PRAGMA wal_checkpoint(" + mode + ")")
			r.want(0)
			r.same(a)
			a.add(4)
			r.want(4)
			r.same(a)
			a.run("PRAGMA wal_checkpoint(" + mode + ")")
			a.add(1) // overwrites the beginning of the log before we look
			r.want(1)
			r.same(a)
		}
		a.run("DELETE FROM t WHERE a > 3", "VACUUM")
		r.want(2)
		r.same(a)
		a.close(0)
		r.want(0)
		r.identical()
	})
}

// TestResetBetweenPolls resets the log after commits that were not read yet.
func TestResetBetweenPolls(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		for _, c := range []struct {
			mode                     string
			read, unread, fresh, mis int
		}{
			{"RESTART", 2, 3, 0, 0},  // nothing is overwritten
			{"RESTART", 5, 3, 1, 0},  // only what was read is
			{"PASSIVE", 5, 3, 1, 0},  //
			{"RESTART", 1, 1, 6, 1},  // what was not read is
			{"PASSIVE", 0, 7, 1, -1}, // some of it is
			{"TRUNCATE", 5, 3, 0, 3}, // all is gone
			{"TRUNCATE", 5, 0, 0, 0}, //
			{"TRUNCATE", 5, 0, 9, 0}, //
			{"TRUNCATE", 5, 1, 9, 1}, //
			{"FULL", 4, 2, 1, 0},     //
		} {
			t.Run(fmt.Sprintf("%s after %d and %d, then %d", c.mode, c.read, c.unread, c.fresh), func(t *testing.T) {
				t.Parallel()
				a := database(t, library)
				a.fill(20)
				a.run("PRAGMA wal_checkpoint(TRUNCATE)")
				r := follow(t, a.path)
				a.add(c.read)
				r.want(c.read)
				a.add(c.unread)
				a.run("PRAGMA wal_checkpoint(" + c.mode + ")")
				a.add(c.fresh)
				switch {
				case c.mis == 0:
					r.want(c.unread + c.fresh)
				case c.mis > 0:
					r.gap(Missed, c.mis)
					r.rebase()
				default:
					if b, err := r.poll(); err == nil {
						t.Fatalf("%+v: want a gap", b)
					}
					r.rebase()
				}
				r.same(a)
				a.add(2)
				r.want(2)
				r.same(a)
			})
		}
	})
}

// TestManyResetsBetweenPolls resets the log twice between two polls.
func TestManyResetsBetweenPolls(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	r := follow(t, a.path)
	for range 3 {
		a.run("PRAGMA wal_checkpoint(RESTART)")
	}
	a.add(2)
	r.want(2)
	a.run("PRAGMA wal_checkpoint(RESTART)")
	a.add(1)
	a.run("PRAGMA wal_checkpoint(RESTART)")
	a.add(1)
	r.gap(Missed, 1)
	r.rebase()
	r.same(a)
}

// TestAnotherConnectionBegins resets by one process and commits by another, which draws both salts anew.
func TestAnotherConnectionBegins(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		a := database(t, library)
		a.add(2)
		r := follow(t, a.path)
		b := startApp(t, python, a.path)
		b.run("PRAGMA wal_autocheckpoint=0", "SELECT count(*) FROM t")
		a.add(1)
		a.run("PRAGMA wal_checkpoint(RESTART)")
		b.add(2)
		r.want(3)
		a.run("PRAGMA wal_checkpoint(TRUNCATE)")
		b.add(1)
		a.add(1)
		r.want(2)
		r.same(a)
	})
}

// TestUncommitted spills frames of a transaction to the log before it ends.
func TestUncommitted(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		a := database(t, library)
		a.fill(400)
		a.run("PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA cache_size=5")
		r := follow(t, a.path)
		for _, end := range []string{"ROLLBACK", "COMMIT"} {
			a.run("BEGIN", "UPDATE t SET b = hex(randomblob(280))", "SAVEPOINT s", "UPDATE t SET b = hex(randomblob(290))", "ROLLBACK TO s")
			if log, err := look(a.path + "-wal"); err != nil || log.stamp.Size < 100<<10 {
				t.Fatalf("nothing was spilled: %+v, %v", log, err)
			}
			r.want(0)
			a.run(end)
			if end == "COMMIT" {
				r.want(1)
			} else {
				r.want(0)
				a.add(1)
				r.want(1)
			}
			r.same(a)
		}
		a.close(0)
		r.want(0)
		r.identical()
	})
}

// TestPadding has frames written twice: by padding, and by transactions that write the same again.
func TestPadding(t *testing.T) {
	t.Parallel()
	for name, parameters := range map[string]string{"padded": "?psow=0", "the same again": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := database(t, python).path
			a := startApp(t, python, "file:"+file+parameters)
			a.run("PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=0", "INSERT INTO t VALUES (1, 'x')", "PRAGMA wal_checkpoint(TRUNCATE)")
			r := follow(t, file)
			again := func(n int) {
				for range n {
					if parameters != "" { // what is padding can't be told from the same again where there is both
						a.run("UPDATE t SET b = hex(randomblob(20))")
						continue
					}
					a.run("BEGIN", "UPDATE t SET b = 'y'", "UPDATE t SET b = 'x'", "COMMIT") // unchanged pages are not written
				}
			}
			a.add(1)
			r.want(1)
			again(3)
			r.want(3) // now it is known which of the two it is
			a.run("PRAGMA wal_checkpoint(TRUNCATE)")
			again(3)
			r.want(3)
			again(2)
			a.run("PRAGMA wal_checkpoint(RESTART)")
			r.want(2)
			a.run("PRAGMA wal_checkpoint(TRUNCATE)")
			again(5)
			a.run("PRAGMA wal_checkpoint(TRUNCATE)")
			again(2)
			r.gap(Missed, 5)
			r.rebase()
			r.same(a)
		})
	}
}

// TestNothingKnownOfPadding meets such frames before it could learn what they are.
func TestNothingKnownOfPadding(t *testing.T) {
	t.Parallel()
	a := database(t, python)
	a.run("INSERT INTO t VALUES (1, 'x')")
	r := follow(t, a.path)
	a.run("PRAGMA wal_checkpoint(TRUNCATE)", "BEGIN", "UPDATE t SET b = 'y'", "UPDATE t SET b = 'x'", "COMMIT", "BEGIN", "UPDATE t SET b = 'y'", "UPDATE t SET b = 'x'", "COMMIT")
	r.gap(Unproven, 0)
	r.rebase()
	r.same(a)
}

func TestPageSizes(t *testing.T) {
	t.Parallel()
	for _, size := range []int{512, 1024, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			a := database(t, own, fmt.Sprintf("PRAGMA page_size=%d", size), "PRAGMA auto_vacuum=FULL")
			r := follow(t, a.path)
			a.add(30)
			r.want(30)
			a.run("PRAGMA wal_checkpoint(RESTART)", "DELETE FROM t WHERE a % 2", "PRAGMA incremental_vacuum")
			b, err := r.poll()
			if err != nil || b.PageSize != uint32(size) {
				t.Fatalf("%+v, %v", b, err)
			}
			r.same(a)
			a.close(0)
			r.want(0)
			r.identical()
		})
	}
}

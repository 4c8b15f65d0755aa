package tail

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// truth is what the files say when nobody is in the middle of anything: what who opens a copy of them finds.
func truth(t *testing.T, path string) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "truth")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		must(t, os.WriteFile(copied+suffix, b, 0o600))
	}
	return ask(t, copied)
}

func ask(t *testing.T, path string) string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	var got, check string
	must(t, db.QueryRow(sum).Scan(&got))
	must(t, db.QueryRow("PRAGMA quick_check").Scan(&check))
	if check != "ok" {
		t.Fatal(check)
	}
	return got
}

// history is a random life of a database with two processes.
type history struct {
	t    *testing.T
	r    *rand.Rand
	apps [2]*app
	open [2]bool
	told []string
	wild int // how often, of 20, more happens than can be followed
}

// act has one of the processes do something.
func (h *history) act() {
	i := h.r.IntN(2)
	a := h.apps[i]
	do := func(statements ...string) {
		h.told = append(h.told, fmt.Sprint(i, statements))
		if !h.open[i] {
			statements = append([]string{"PRAGMA wal_autocheckpoint=0", "PRAGMA cache_size=5"}, statements...)
		}
		h.open[i] = true
		a.run(statements...)
	}
	switch n := h.r.IntN(20 + h.wild); {
	case n < 8:
		do("INSERT INTO t(b) VALUES (hex(randomblob(300)))")
	case n < 10:
		do("UPDATE t SET b = hex(randomblob(250)) WHERE a % 7 = " + itoa(int64(h.r.IntN(7))))
	case n < 11:
		do("BEGIN", "UPDATE t SET b = hex(randomblob(250))", "ROLLBACK")
	case n < 12:
		do("DELETE FROM t WHERE a % 5 = 1")
	case n < 17:
		do("PRAGMA wal_checkpoint(" + []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"}[h.r.IntN(4)] + ")")
	case n < 18:
		do("SELECT count(*) FROM t")
	case n < 19:
		if h.open[i] {
			h.told = append(h.told, fmt.Sprint(i, " close"))
			a.close(0)
			h.open[i] = false
		}
	case n < 20:
		h.told = append(h.told, fmt.Sprint(i, " kill"))
		if h.open[i] && h.r.IntN(2) == 0 {
			a.run("BEGIN", "UPDATE t SET b = hex(randomblob(260))")
		}
		a.kill()
		h.apps[i] = startApp(h.t, []string{own, python}[i], a.path)
		h.open[i] = false
	default: // a short life that leaves no trace in the log
		do("INSERT INTO t(b) VALUES (hex(randomblob(300)))", "PRAGMA wal_checkpoint(TRUNCATE)")
		h.told = append(h.told, fmt.Sprint(i, " kill"))
		a.kill()
		h.apps[i] = startApp(h.t, []string{own, python}[i], a.path)
		h.open[i] = false
		a = h.apps[i]
		do("SELECT count(*) FROM t")
	}
}

// TestRandomHistories expects that a replica is the database whenever a poll says so, and that nothing is missed by who
// looks after each step.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	for n := range sample(4, 60) {
		seed, always := test.seed+uint64(n), n%2 == 0
		t.Run(fmt.Sprintf("seed %d, each step %v", seed, always), func(t *testing.T) {
			t.Parallel()
			a := database(t, own)
			a.fill(60)
			h := &history{t: t, r: rand.New(rand.NewPCG(seed, 9))}
			h.apps, h.open = [2]*app{a, startApp(t, python, a.path)}, [2]bool{true, false}
			r := follow(t, a.path)
			if !always {
				h.wild = 3
			}
			if n%4 == 3 { // the system has no inotify instance left
				r.tail.watch.close()
				r.tail.watch = nil
				r.rebase()
			}
			gaps, polls := 0, 0
			for range sample(25, 200) {
				h.act()
				if !always && h.r.IntN(3) > 0 {
					continue
				}
				polls++
				_, err := r.poll()
				var gap *GapError
				if errors.As(err, &gap) {
					if gaps++; always {
						t.Fatalf("%v, after %q", err, h.told)
					}
					r.rebase()
				} else {
					must(t, err)
				}
				if got, want := ask(t, r.file()), truth(t, r.path); got != want {
					t.Fatalf("rebuilt: %s; it is %s; after %q", got, want, h.told)
				}
			}
			t.Logf("%d polls, %d gaps", polls, gaps)
		})
	}
}

func FuzzEvents(f *testing.F) {
	event := func(wd int32, mask uint32) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(wd))
		b = binary.NativeEndian.AppendUint32(b, mask)
		return append(b, make([]byte, 8)...)
	}
	f.Add(append(event(1, unix.IN_OPEN), event(1, unix.IN_MODIFY)...))
	f.Add(append(event(3, unix.IN_ATTRIB), event(2, unix.IN_MODIFY)...))
	f.Add(event(-1, unix.IN_Q_OVERFLOW))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &watch{index: 1, database: 2, log: 3}
		w.note(b)
		if w.inits > len(b)/unix.SizeofInotifyEvent {
			t.Fatal(w.inits)
		}
	})
}

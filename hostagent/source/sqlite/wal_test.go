package sqlite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/test/writer"
)

// TestWhileWritten captures databases again and again while an application writes as fast as it can, with checkpoints of
// all modes, and checks that each snapshot is exactly the first so many transactions, all among them that were
// acknowledged before the capture began.
func TestWhileWritten(t *testing.T) {
	for _, c := range []struct {
		journal, checkpoint string
		page                int
		rate                float64
		again               bool
	}{
		{"wal", "auto", 512, 0, false},
		{"wal", "passive", 1024, 0, false},
		{"wal", "full", 4096, 0, false},
		{"wal", "restart", 16384, 0, false},
		{"wal", "truncate", 65536, 0, false},
		{"wal", "auto", 4096, 0, true},
		{"delete", "none", 2048, 300, false},
		{"truncate", "none", 4096, 300, false},
		{"persist", "none", 8192, 300, false},
	} {
		name := fmt.Sprintf("%s %s %d", c.journal, c.checkpoint, c.page)
		if c.again {
			name += " reopened"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			config := writer.Config{
				Path: filepath.Join(dir, "app.db"), Notes: filepath.Join(dir, "notes"), Rate: c.rate,
				Journal: c.journal, Checkpoint: c.checkpoint, Every: 50, PageSize: c.page, Synchronous: "off", Busy: 20 * time.Second,
				Shape: writer.Shape{Payload: 300, Cells: 3000, Bulk: 40, Width: 300},
			}
			if c.again {
				config.Commits = 30
			}
			app := startWriter(t, config, c.again)
			s := pagedtest.New()
			for range 2 {
				before := acknowledged(config.Notes)
				r := capture(t, s, sqlite.Options{Path: config.Path, MaxLock: 20 * time.Second})
				n, err := writer.Check(t.Context(), copied(t, s))
				if err != nil || n < before {
					t.Fatalf("%d transactions of at least %d: %v (%+v)", n, before, err, r)
				}
				if want := c.journal == "wal"; (r.Mode == sqlite.ModeWAL) != want || r.PageSize != uint32(c.page) || len(r.Problems) > 0 {
					t.Errorf("%+v", r)
				}
				s = s.Child(time.Time{})
			}
			stop(app)
			// What a killed application leaves is captured as the next one will find it.
			before := acknowledged(config.Notes)
			capture(t, s, sqlite.Options{Path: config.Path, MaxLock: 20 * time.Second})
			if n, err := writer.Check(t.Context(), copied(t, s)); err != nil || n < before {
				t.Errorf("after a kill: %d transactions of at least %d: %v", n, before, err)
			}
		})
	}
}

// TestInTheMidst has an application that does the worst while a snapshot is half made.
func TestInTheMidst(t *testing.T) {
	const wal = "PRAGMA journal_mode = WAL"
	for name, c := range map[string]struct {
		pragmas string
		does    []string
		want    int
	}{
		"commits":                    {wal, []string{set(1), set(2)}, 2},
		"empties the log":            {wal, []string{set(1) + "; PRAGMA wal_checkpoint(TRUNCATE)", set(2) + "; PRAGMA wal_checkpoint(TRUNCATE)"}, 2},
		"shrinks":                    {wal, []string{"DELETE FROM cells WHERE id > 500", "VACUUM", set(1), "PRAGMA wal_checkpoint(TRUNCATE)"}, 1},
		"grows":                      {wal, []string{"INSERT INTO cells SELECT id + 100000, v, data FROM cells", set(1), "PRAGMA wal_checkpoint(TRUNCATE)"}, 1},
		"leaves WAL mode":            {wal, []string{set(1), "PRAGMA journal_mode = DELETE", set(2)}, 2},
		"changes its page size":      {wal, []string{set(1), "PRAGMA journal_mode = DELETE", "PRAGMA page_size = 8192", "VACUUM", "PRAGMA journal_mode = WAL", set(2)}, 2},
		"goes into WAL mode":         {"PRAGMA journal_mode = DELETE", []string{set(1), "PRAGMA journal_mode = WAL", set(2)}, 2},
		"vacuums in a rollback mode": {"PRAGMA journal_mode = DELETE", []string{"DELETE FROM cells WHERE id > 500", "VACUUM", set(1)}, 1},
		"other pages in a rollback mode": {
			"PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = FULL", []string{"PRAGMA page_size = 1024", "VACUUM", set(1)}, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app.db")
			a := startApp(t, path)
			a.fill(c.pragmas, 2300, 3000) // two regions
			s := pagedtest.New()
			o := sqlite.Options{Path: path, MaxLock: 20 * time.Second}
			r := captureIn(t, s, o, func() {
				for _, text := range c.does {
					if err := a.try(text); err != nil {
						t.Errorf("%s: %v", text, err)
					}
				}
			})
			if got := value(t, copied(t, s)); got != c.want {
				t.Errorf("transaction %d, want %d (%+v)", got, c.want, r)
			}
			// And the next one, of what has changed since.
			a.run(set(9))
			s = s.Child(time.Time{})
			capture(t, s, o)
			if got := value(t, copied(t, s)); got != 9 {
				t.Errorf("then transaction %d, want 9", got)
			}
		})
	}
}

// TestReplaced has another database put in the place of one that is being read, and then none.
func TestReplaced(t *testing.T) {
	for _, mode := range []string{"WAL", "DELETE"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path, other := filepath.Join(dir, "app.db"), filepath.Join(dir, "other.db")
			a, b := startApp(t, path), startApp(t, other)
			a.fill("PRAGMA journal_mode = "+mode, 2300, 3000)
			b.fill("PRAGMA page_size = 2048; PRAGMA journal_mode = "+mode, 100, 3000)
			b.run(set(7))
			b.run("PRAGMA journal_mode = DELETE") // all of it is in the file
			stop(b.cmd)
			s := pagedtest.New()
			r := captureIn(t, s, sqlite.Options{Path: path, MaxLock: 20 * time.Second}, func() {
				if err := os.Rename(other, path); err != nil {
					t.Error(err)
				}
				_ = os.Remove(path + "-wal")
				_ = os.Remove(path + "-shm")
			})
			if got := value(t, copied(t, s)); got != 7 || r.PageSize != 2048 || r.Repeated == 0 {
				t.Errorf("transaction %d, want 7 (%+v)", got, r)
			}
		})
	}
}

// TestUnchanged captures what nobody has written to since, with a log and without.
func TestUnchanged(t *testing.T) {
	for _, mode := range []string{"WAL", "DELETE"} {
		t.Run(mode, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app.db")
			a := startApp(t, path)
			a.fill("PRAGMA journal_mode = "+mode+"; PRAGMA wal_autocheckpoint = 0", 1000, 3000)
			s := pagedtest.New()
			o := sqlite.Options{Path: path, MaxLock: 20 * time.Second}
			capture(t, s, o)
			first := s.Entries[0]
			s = s.Child(time.Now().Add(time.Hour)) // as if the change were long before
			r := capture(t, s, o)
			if r.Mode != sqlite.ModeUnchanged || s.Added() > 0 || !same(first, s.Entries[0]) {
				t.Errorf("%+v, %d bytes added", r, s.Added())
			}
			if (r.Position.Inode != 0) != (mode == "WAL") {
				t.Errorf("position %+v", r.Position)
			}
			a.run(set(1))
			s = s.Child(time.Now().Add(time.Hour))
			if r := capture(t, s, o); r.Mode == sqlite.ModeUnchanged || value(t, copied(t, s)) != 1 {
				t.Errorf("%+v", r)
			}
			if mode == "DELETE" {
				return
			}
			// Without its log the file alone is older, although nobody has written to it since.
			stop(a.cmd)
			if err := os.Remove(path + "-wal"); err != nil {
				t.Fatal(err)
			}
			s = s.Child(time.Now().Add(time.Hour))
			if r := capture(t, s, o); r.Mode == sqlite.ModeUnchanged {
				t.Errorf("the log is gone: %+v", r)
			}
		})
	}
}

// TestOnlyChangedPagesTravel changes one page in twenty.
func TestOnlyChangedPagesTravel(t *testing.T) {
	for _, mode := range []string{"WAL", "DELETE"} {
		path := filepath.Join(t.TempDir(), "app.db")
		a := startApp(t, path)
		a.fill("PRAGMA journal_mode = "+mode, 3000, 3000)
		s := pagedtest.New()
		o := sqlite.Options{Path: path, MaxLock: 20 * time.Second}
		r := capture(t, s, o)
		if size := int(s.Entries[0].Size); s.Added() > size+size/50 {
			t.Errorf("%d bytes stored of %d", s.Added(), size)
		}
		a.run("UPDATE cells SET data = randomblob(3000) WHERE id % 20 = 0")
		s = s.Child(time.Time{})
		capture(t, s, o)
		changed := 3000 / 20 * int(r.PageSize)
		if s.Added() < changed/2 || s.Added() > changed*5/4+100_000 {
			t.Errorf("%s: %d bytes added, %d changed", mode, s.Added(), changed)
		}
		if got := value(t, copied(t, s)); got != 0 {
			t.Error(got)
		}
	}
}

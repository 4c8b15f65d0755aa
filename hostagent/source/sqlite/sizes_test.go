package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
)

// looked is a tail as a follower gives it: what the log has is read when it is first looked at, not before. The first look
// is before the file is read, the second after it, and there is no other.
type looked struct {
	*tail.Tail
	path          string
	looks         int
	before, after func(look int) // a look; may be nil
}

func (l *looked) Poll(ctx context.Context, page func(uint32, []byte) error) (tail.Batch, error) {
	l.looks++
	if l.before != nil {
		l.before(l.looks)
	}
	if l.Tail == nil {
		t, err := tail.Open(l.path)
		if err != nil {
			return tail.Batch{}, err
		}
		if err := t.Start(); err != nil {
			return tail.Batch{}, err
		}
		l.Tail = t
	}
	b, err := l.Tail.Poll(ctx, page)
	if l.after != nil {
		l.after(l.looks)
	}
	return b, err
}

// Wait waits for ever.
func (l *looked) Wait(ctx context.Context, _ time.Duration) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestTheFileGrows has checkpoints that move much into the file, and empty the log, in the moments at which a capture has
// not yet looked at the log, has just done so, or has done so for the last time.
func TestTheFileGrows(t *testing.T) {
	const (
		all  = "PRAGMA wal_checkpoint(TRUNCATE)"
		more = "INSERT INTO cells SELECT id + 100000, v, data FROM cells; "
	)
	for name, c := range map[string]struct {
		first string // after the database was filled
		after bool   // the look, or else before it
		look  int
		does  string
		want  int
	}{
		"before the first look":             {"", false, 1, all, 0},
		"commits, before the first look":    {"", false, 1, more + set(1) + "; " + all, 1},
		"after the first look":              {"", true, 1, all, 0},
		"commits, after the first look":     {all, true, 1, more + set(1) + "; PRAGMA wal_checkpoint(PASSIVE)", 1},
		"before the last look":              {"", false, 2, all, 0},
		"commits, after the last look":      {all, true, 2, more + set(1) + "; " + all, 0},
		"commits more, after the last look": {"", true, 2, more + set(1) + "; " + all, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app.db")
			a := startApp(t, path)
			a.fill("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0", 300, 3000)
			if c.first != "" {
				a.run(c.first)
			}
			do := func(look int) {
				if look == c.look {
					a.run(c.does)
				}
			}
			l := &looked{path: path, before: do}
			if c.after {
				l.before, l.after = nil, do
			}
			s := pagedtest.New()
			r, err := sqlite.Capture(t.Context(), sqlite.Options{Path: path, Temp: t.TempDir()}, s, l, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = l.Close()
			path = copied(t, s)
			if got := value(t, path); got != c.want || len(r.Problems) > 0 || l.looks != 2 {
				t.Errorf("transaction %d after %d looks, want %d (%+v)", got, l.looks, c.want, r)
			}
			if h, err := tail.Header(path); err != nil || h.Pages != r.Pages {
				t.Errorf("%d pages, and by its header %d, %v", r.Pages, h.Pages, err)
			}
		})
	}
}

// TestCutShort has a file that lacks pages which its log does not have either: it is saved as it is, and said.
func TestCutShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	a.fill("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0", 300, 3000)
	a.run("PRAGMA wal_checkpoint(TRUNCATE)")
	a.run("UPDATE cells SET v = 1 WHERE id > 290")
	stop(a.cmd)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, short := range []int64{0, 4096 * 10} { // the last ten are in the log
		if err := os.Truncate(path, info.Size()-short); err != nil {
			t.Fatal(err)
		}
		if r := capture(t, pagedtest.New(), sqlite.Options{Path: path}); len(r.Problems) > 0 {
			t.Errorf("%d bytes cut: %+v", short, r.Problems)
		}
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	r := capture(t, pagedtest.New(), sqlite.Options{Path: path})
	if r.Counts.Errors != 1 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error, "damaged") || r.Counts.Bytes != uint64(info.Size()) {
		t.Errorf("%+v", r)
	}
}

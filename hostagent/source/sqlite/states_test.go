package sqlite_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestStates has what can't be captured: each is named, and what to do.
func TestStates(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise)
	good := filepath.Join(dir, "good.db")
	a := startApp(t, good)
	a.fill("PRAGMA journal_mode = DELETE", 100, 3000)
	stop(a.cmd)
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	broken := slices.Clone(content)
	binary.BigEndian.PutUint16(broken[16:], 777)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path string
		want string
	}{
		"missing":    {filepath.Join(dir, "nothing.db"), "does not exist"},
		"directory":  {dir, "regular file"},
		"fifo":       {fifo, "regular file"},
		"foreign":    {write("text.db", []byte(strings.Repeat("this is no database ", 1000))), "not-a-database"},
		"encrypted":  {write("noise.db", noise), "encrypted"},
		"bad header": {write("broken.db", broken), "corrupt"},
	} {
		_, err := sqlite.Capture(t.Context(), sqlite.Options{Path: c.path, Temp: t.TempDir()}, pagedtest.New(), nil, nil)
		var own *sqlite.Error
		if !errors.As(err, &own) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) || own.Hint() == "" {
			t.Errorf("%s: %v", name, err)
		} else if strings.Count(err.Error(), c.path) > 1 || strings.Contains(err.Error(), own.Hint()) {
			t.Errorf("%s: says it twice: %v (%s)", name, err, own.Hint())
		}
	}
	if _, err := sqlite.Capture(t.Context(), sqlite.Options{Path: "relative.db"}, pagedtest.New(), nil, nil); err == nil {
		t.Error("a relative path was taken")
	}
	// A link is followed, and the entry has the name that was asked for.
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink("good.db", link); err != nil {
		t.Fatal(err)
	}
	s := pagedtest.New()
	capture(t, s, sqlite.Options{Path: link})
	if value(t, copied(t, s)) != 0 {
		t.Error("another content")
	}
	// Nothing at all is a database without a table.
	s = pagedtest.New()
	if r := capture(t, s, sqlite.Options{Path: write("empty.db", nil)}); r.Pages != 0 || s.Entries[0].Size != 0 {
		t.Errorf("%+v", r)
	}
	// What is cut short is saved as it is, and said.
	s = pagedtest.New()
	r := capture(t, s, sqlite.Options{Path: write("short.db", content[:len(content)/2])})
	if r.Counts.Errors != 1 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error, "damaged") {
		t.Errorf("%+v", r)
	}
}

// TestLockedExclusively has an application that keeps everybody out, and one that does for a while.
func TestLockedExclusively(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	a.fill("PRAGMA journal_mode = DELETE", 1000, 3000)
	a.run("BEGIN EXCLUSIVE")
	o := sqlite.Options{Path: path, Temp: t.TempDir(), MaxLock: 20 * time.Millisecond}
	_, err := sqlite.Capture(t.Context(), o, pagedtest.New(), nil, nil)
	var own *sqlite.Error
	if !errors.As(err, &own) || !strings.Contains(err.Error(), "locked exclusively") || own.Hint() == "" {
		t.Error(err)
	}
	o.MaxLock = time.Minute
	var committing sync.WaitGroup
	defer committing.Wait()
	committing.Go(func() {
		time.Sleep(50 * time.Millisecond)
		if err := a.try("COMMIT"); err != nil {
			t.Error(err)
		}
	})
	s := pagedtest.New()
	capture(t, s, o)
	if value(t, copied(t, s)) != 0 {
		t.Error("another content")
	}
}

// TestMaxLock has a database that can't be compared in the time that is allowed; its application can write afterwards.
func TestMaxLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	a.fill("PRAGMA journal_mode = DELETE", 2300, 3000)
	o := sqlite.Options{Path: path, Temp: t.TempDir(), MaxLock: time.Microsecond}
	_, err := sqlite.Capture(t.Context(), o, pagedtest.New(), nil, nil)
	var own *sqlite.Error
	if err == nil {
		t.Skip("this file system makes clones")
	}
	if !errors.As(err, &own) || !strings.Contains(err.Error(), "max_lock") || !strings.Contains(own.Hint(), "WAL") {
		t.Error(err)
	}
	a.run("PRAGMA busy_timeout = 0")
	a.run(set(1))
}

// TestHotJournal has an application that is killed in the midst of a transaction of which a part is in the file already.
func TestHotJournal(t *testing.T) {
	for _, mode := range []string{"DELETE", "PERSIST", "TRUNCATE"} {
		path := filepath.Join(t.TempDir(), "app.db")
		a := startApp(t, path)
		a.fill("PRAGMA synchronous = FULL; PRAGMA journal_mode = "+mode, 800, 3000)
		a.run(set(1))
		s := pagedtest.New()
		capture(t, s, sqlite.Options{Path: path, MaxLock: time.Minute})
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		a.run("PRAGMA cache_size = 10; BEGIN; " + set(2))
		a.run("INSERT INTO cells SELECT id + 100000, 2, data FROM cells")
		// While it is alive, others keep waiting for it, as its pages go into the file.
		if _, err := sqlite.Capture(t.Context(), sqlite.Options{Path: path, Temp: t.TempDir(), MaxLock: time.Millisecond}, pagedtest.New(), nil, nil); err == nil {
			t.Error("captured in the midst of a transaction")
		}
		stop(a.cmd)
		if after, err := os.ReadFile(path); err != nil || slices.Equal(before, after) {
			t.Fatalf("the file has not changed: %v", err)
		}
		for range 2 { // the first time of what has changed, the second of what has not
			var notes []string
			s = s.Child(time.Now().Add(time.Hour))
			r := capture(t, s, sqlite.Options{Path: path, MaxLock: time.Minute, Note: func(text string) { notes = append(notes, text) }})
			if got := value(t, copied(t, s)); got != 1 || r.Counts.Bytes != uint64(len(before)) || len(notes) == 0 {
				t.Errorf("%s: transaction %d, want 1 (%+v, %q)", mode, got, r, notes)
			}
			if s.Added() > 0 { // what the parent has is what is put back
				t.Errorf("%s: %d bytes added", mode, s.Added())
			}
		}
	}
}

// TestSessionFails has a store that fails after some chunks, an end of the context, and no place for pages: the capture
// ends with that error, leaves nothing behind and does not disturb the application; the next one succeeds.
func TestSessionFails(t *testing.T) {
	for _, mode := range []string{"WAL", "DELETE"} {
		path := filepath.Join(t.TempDir(), "app.db")
		a := startApp(t, path)
		a.fill("PRAGMA journal_mode = "+mode, 1500, 3000)
		stored := errors.New("the store is full")
		s := pagedtest.New()
		s.Stored = func(snapshot.Kind, []byte) error {
			if s.Added() > 3<<20 {
				return stored
			}
			return nil
		}
		temp := t.TempDir()
		o := sqlite.Options{Path: path, Temp: temp, MaxLock: time.Minute}
		if _, err := sqlite.Capture(t.Context(), o, s, nil, nil); !errors.Is(err, stored) {
			t.Errorf("%s: %v", mode, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.Stored = func(snapshot.Kind, []byte) error { cancel(); return nil }
		if _, err := sqlite.Capture(ctx, o, s.Child(time.Time{}), nil, nil); !errors.Is(err, context.Canceled) && err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		cancel()
		o.Temp = filepath.Join(temp, "nothing")
		if _, err := sqlite.Capture(t.Context(), o, pagedtest.New(), nil, nil); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", mode, err)
		}
		a.run("PRAGMA busy_timeout = 0")
		a.run(set(3))
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v %v", mode, left, err)
		}
		s = pagedtest.New()
		capture(t, s, sqlite.Options{Path: path, MaxLock: time.Minute})
		if got := value(t, copied(t, s)); got != 3 {
			t.Errorf("%s: %d", mode, got)
		}
	}
}

// given is a tail that somebody else has.
type given struct {
	*tail.Tail
	gap bool
}

func (g *given) Poll(ctx context.Context, page func(uint32, []byte) error) (tail.Batch, error) {
	if g.gap {
		return tail.Batch{}, &tail.GapError{Cause: tail.Missed, Why: "a test"}
	}
	return g.Tail.Poll(ctx, page)
}

// TestGivenTail captures by a tail of the caller, which hears of gaps itself.
func TestGivenTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	a.fill("PRAGMA journal_mode = WAL", 2300, 3000)
	follow, err := tail.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = follow.Close() }()
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	g := &given{Tail: follow}
	s := pagedtest.New()
	do := midst(func() { a.run(set(5)) })
	o := sqlite.Options{Path: path, Temp: t.TempDir()}
	r, err := sqlite.Capture(t.Context(), o, s, g, &do)
	if err != nil || r.Position != follow.Position() || r.Position.Inode == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := value(t, copied(t, s)); got != 5 {
		t.Error(got)
	}
	g.gap = true
	var gap *tail.GapError
	if _, err := sqlite.Capture(t.Context(), o, pagedtest.New(), g, nil); !errors.As(err, &gap) {
		t.Error(err)
	}
}

// TestFind lists the databases that a pattern names.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.db", "a.db"} {
		a := startApp(t, filepath.Join(dir, name))
		a.fill("PRAGMA journal_mode = WAL", 1, 10) // beside it are a log and an index
	}
	for name, content := range map[string]string{"empty.db": "", "text.db": "SQLite is not enough", "c.txt": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "d.db"), 0o700), unix.Mkfifo(filepath.Join(dir, "e.db"), 0o600)); err != nil {
		t.Fatal(err)
	}
	got, err := sqlite.Find(filepath.Join(dir, "*"))
	if want := []string{filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := sqlite.Find(dir + "/["); err == nil {
		t.Error("a bad pattern was taken")
	}
}

package tail

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// replica is a database that is rebuilt from a copy of the file, made without a lock, and what a tail delivers.
type replica struct {
	t       testing.TB
	path    string
	tail    *Tail
	base    []byte
	overlay map[uint32][]byte
	pages   uint32
	commits int
	frames  int
}

func follow(t testing.TB, path string) *replica {
	t.Helper()
	tail, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tail.Close() })
	r := &replica{t: t, path: path, tail: tail}
	r.rebase()
	return r
}

// rebase begins anew. It tries again if there is a gap while the file is copied, which on a busy machine may happen often.
func (r *replica) rebase() {
	r.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		r.overlay, r.pages, r.base = map[uint32][]byte{}, 0, nil
		err := r.tail.Start()
		var state *StateError
		if errors.As(err, &state) && state.State == Busy {
			continue
		} else if err != nil {
			r.t.Fatal(err)
		}
		if _, err := r.poll(); err != nil || r.tail.gap != nil {
			r.t.Logf("once more: %v", err)
			continue
		}
		if err := r.copy(); err == nil && r.tail.gap == nil {
			return
		}
	}
	r.t.Fatal("no base")
}

func (r *replica) copy() error {
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		r.base = append(r.base, buf[:n]...)
		if _, err := r.poll(); err != nil {
			return err
		}
		if err != nil || n == 0 {
			return nil
		}
	}
}

// poll polls until all is there, and takes in what comes.
func (r *replica) poll() (Batch, error) {
	r.t.Helper()
	b, err := r.once()
	for err == nil && b.More {
		next, err := r.once()
		if err != nil {
			return b, nil //nolint:nilerr // a gap comes again
		}
		next.Commits += b.Commits
		next.Frames += b.Frames
		b = next
	}
	return b, err
}

// once polls once.
func (r *replica) once() (Batch, error) {
	staged := map[uint32][]byte{}
	b, err := r.tail.Poll(r.t.Context(), func(number uint32, data []byte) error {
		if len(data) != int(r.tail.PageSize()) || number == 0 {
			return errors.New("a page of another size")
		}
		staged[number] = bytes.Clone(data)
		return nil
	})
	if err != nil {
		return b, err
	}
	for n, p := range staged {
		r.overlay[n] = p
	}
	if b.Commits > 0 {
		r.pages = b.Pages
		if b.Time.IsZero() {
			r.t.Error("no time")
		}
	} else if len(staged) > 0 {
		r.t.Errorf("%d pages of no commit", len(staged))
	}
	r.commits += b.Commits
	r.frames += b.Frames
	return b, nil
}

// want polls, and expects so many commits.
func (r *replica) want(commits int) Batch {
	r.t.Helper()
	b, err := r.poll()
	if err != nil {
		r.t.Fatalf("poll: %v", err)
	}
	if b.Commits != commits {
		r.t.Fatalf("%d commits, want %d", b.Commits, commits)
	}
	return b
}

// gap polls, and expects a gap.
func (r *replica) gap(cause Cause, missed int) {
	r.t.Helper()
	b, err := r.poll()
	var gap *GapError
	if !errors.As(err, &gap) || gap.Cause != cause || gap.Missed != missed {
		r.t.Fatalf("%+v, %v; want a gap: %s, %d missed", b, err, cause, missed)
	}
	if _, again := r.poll(); !errors.Is(again, err) {
		r.t.Fatalf("the gap is forgotten: %v", again)
	}
}

// image is the database as it was rebuilt.
func (r *replica) image() []byte {
	out := bytes.Clone(r.base)
	size := int(r.tail.PageSize())
	pages := len(out) / size
	if r.pages > 0 {
		pages = int(r.pages)
	}
	if len(out) < pages*size {
		out = append(out, make([]byte, pages*size-len(out))...)
	}
	out = out[:pages*size]
	for n, p := range r.overlay {
		if int(n) <= pages && n != sqlite.LockPage(uint32(size)) {
			copy(out[(int(n)-1)*size:], p)
		}
	}
	return out
}

// file writes the database that was rebuilt, without a log: only its journal mode is another.
func (r *replica) file() string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "rebuilt")
	image := r.image()
	if len(image) > 0 {
		image[18], image[19] = 1, 1
	}
	if err := os.WriteFile(path, image, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// sum is a query whose answer tells databases apart.
const sum = "SELECT count(*) || ' ' || coalesce(max(a), 0) || ' ' || coalesce(sum(length(b) + instr(b, 'F')), 0) FROM t"

// same expects that the replica is what the application sees.
func (r *replica) same(a *app) {
	r.t.Helper()
	want := a.run(sum)
	db, err := sql.Open("sqlite", r.file())
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	var got, check string
	if err := db.QueryRow(sum).Scan(&got); err != nil {
		r.t.Fatal(err)
	}
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil {
		r.t.Fatal(err)
	}
	if got != want || check != "ok" {
		r.t.Fatalf("rebuilt: %q, %s; the application has %q", got, check, want)
	}
}

// identical expects that the replica is byte for byte the file of a database that nobody has open.
func (r *replica) identical() {
	r.t.Helper()
	file, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	if !bytes.Equal(file, r.image()) {
		r.t.Fatalf("rebuilt: %d bytes, not those of the file of %d", len(r.image()), len(file))
	}
}

// database makes a database in WAL mode with a table, and an application that has it open and makes checkpoints only when
// it is told to.
func database(t testing.TB, library string, pragmas ...string) *app {
	t.Helper()
	a := startApp(t, library, filepath.Join(t.TempDir(), "app.db"))
	a.run(pragmas...)
	a.run("PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	return a
}

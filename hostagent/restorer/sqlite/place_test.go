package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/hostagent/scratch"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestNothingIsReplaced(t *testing.T) {
	src := source(restoredBytes(t, 10))
	for _, there := range []string{"db", "db-wal", "db-shm", "db-journal"} {
		dir := t.TempDir()
		path := filepath.Join(dir, there)
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ToFile(context.Background(), filepath.Join(dir, "db"), opener(src), Options{}); !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v", there, err)
		}
		if got := names(t, dir); got != there || string(read(t, path)) != "mine" {
			t.Errorf("%s: %s", there, got)
		}
	}
	// One that comes while the new one is built.
	dir := t.TempDir()
	target := filepath.Join(dir, "db")
	late := func(context.Context, string) error { return os.WriteFile(target+"-wal", []byte("mine"), 0o600) }
	if _, err := ToFile(context.Background(), target, opener(src), Options{Prove: late}); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if got := names(t, dir); got != "db-wal" {
		t.Error(got)
	}
}

func TestBusy(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "db")
	src := source(restoredBytes(t, 10))
	second := func(context.Context, string) error {
		if _, err := ToFile(context.Background(), target, opener(src), Options{}); !errors.Is(err, ErrBusy) {
			t.Errorf("a second restore to the same place: %v", err)
		}
		if _, err := InPlace(context.Background(), target, opener(src), Options{}); !errors.Is(err, ErrBusy) {
			t.Errorf("one in place: %v", err)
		}
		return nil
	}
	if _, err := ToFile(context.Background(), target, opener(src), Options{Prove: second}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "db" {
		t.Error(got)
	}
}

func TestNoRoom(t *testing.T) {
	src := source(restoredBytes(t, 10))
	src.Entry.Extents = []snapshot.Extent{{Length: 1 << 60}}
	src.Entry.Size = 1 << 60
	dir := t.TempDir()
	if _, err := ToFile(context.Background(), filepath.Join(dir, "db"), opener(src), Options{}); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	// A disk that is full by then.
	full := func(step string) error {
		if step == StepBuild {
			return syscall.ENOSPC
		}
		return nil
	}
	if _, err := ToFile(context.Background(), filepath.Join(dir, "db"), opener(source(restoredBytes(t, 10))), Options{fault: full}); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if got := names(t, dir); got != "" {
		t.Error(got)
	}
}

func TestFileMode(t *testing.T) {
	target := filepath.Join(t.TempDir(), "made", "for it", "db")
	if _, err := ToFile(context.Background(), target, opener(source(restoredBytes(t, 10))), Options{}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(target)
	if err != nil || st.Mode() != 0o640 {
		t.Error(st.Mode(), err)
	}
}

// TestLeftovers takes over what a restore to a file left that was killed.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "db")
	left := filepath.Join(dir, ".db.holdfast-restore", "new")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "db"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ToFile(context.Background(), target, opener(source(restoredBytes(t, 10))), Options{}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "db" {
		t.Error(got)
	}
}

func TestScratch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "scratch")
	busy, err := scratch.New(dir, scratchPattern, 0o700, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Remove() }()
	killed := filepath.Join(dir, "restore-1")
	if err := os.MkdirAll(filepath.Join(killed, ".database.holdfast-restore"), 0o700); err != nil {
		t.Fatal(err)
	}
	looked := ""
	look := func(_ context.Context, path string) error {
		looked = sqlite(t, path, "SELECT count(*) FROM new;")
		return errors.New("not as expected")
	}
	_, err = Scratch(context.Background(), dir, opener(source(restoredBytes(t, 10))), Options{Prove: look})
	var e *StepError
	if !errors.As(err, &e) || e.Step != StepProve || looked != "10" {
		t.Errorf("%v, %q", err, looked)
	}
	if got := names(t, dir); got != filepath.Base(busy.Path) {
		t.Errorf("left: %s", got)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	base, after := restoredBytes(t, 10), restoredBytes(t, 20)
	r := difference(base, after, 1024, 1)
	src := source(base, r, r, r)
	each := r.Each
	src.Records = sequence([]Record{r, {Time: stamp(2), PageSize: 1024, Pages: r.Pages, Each: func(page func(uint32, []byte) error) error {
		cancel()
		return each(page)
	}}, r}, nil)
	began := time.Now()
	if _, err := ToFile(ctx, filepath.Join(dir, "db"), opener(src), Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := names(t, dir); got != "" || time.Since(began) > time.Minute {
		t.Error(got)
	}
}

// TestOpeners takes a process of this program for one also where an upgrade has replaced its file since it began.
func TestOpeners(t *testing.T) {
	proc, file := t.TempDir(), filepath.Join(t.TempDir(), "db")
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for pid, exe := range map[string]string{"77": self + " (deleted)", "78": "/nowhere/other", "79": self} {
		dir := filepath.Join(proc, pid)
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "fd"), 0o700), os.Symlink(exe, filepath.Join(dir, "exe")), os.Symlink(file, filepath.Join(dir, "fd", "3"))); err != nil {
			t.Fatal(err)
		}
	}
	id, err := inplace.Identify(file)
	if err != nil {
		t.Fatal(err)
	}
	if who := openers(proc, id); len(who) != 1 || !strings.HasPrefix(who[0], "78") {
		t.Errorf("%q", who)
	}
}

package inplace_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMove(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	if err := inplace.Move(a, b); err != nil {
		t.Errorf("nothing to move: %v", err)
	}
	write(t, a, "a")
	if err := inplace.Move(a, b); err != nil || read(t, b) != "a" {
		t.Error(err)
	}
	write(t, a, "other")
	if err := inplace.Move(a, b); !errors.Is(err, inplace.ErrMoved) || read(t, b) != "a" || read(t, a) != "other" {
		t.Error(err)
	}
}

// TestExchange lets a file and a directory change places; each keeps its identity.
func TestExchange(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "a")
	if err := os.Mkdir(b, 0o700); err != nil {
		t.Fatal(err)
	}
	was := map[string]inplace.Identity{}
	for _, path := range []string{a, b} {
		id, err := inplace.Identify(path)
		if err != nil || id == (inplace.Identity{}) {
			t.Fatal(id, err)
		}
		was[path] = id
	}
	switch err := inplace.Exchange(a, b); {
	case errors.Is(err, inplace.ErrNoExchange):
		if read(t, a) != "a" {
			t.Error("it has changed something")
		}
		return
	case err != nil:
		t.Fatal(err)
	}
	for path, other := range map[string]string{a: b, b: a} {
		if id, err := inplace.Identify(path); err != nil || id != was[other] {
			t.Errorf("%s: %v, %v", path, id, err)
		}
	}
	if err := inplace.Exchange(a, filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if id, err := inplace.Identify(filepath.Join(dir, "none")); err != nil || id != (inplace.Identity{}) {
		t.Error(id, err)
	}
}

// TestBeside is what a reboot does to the numbers of devices.
func TestBeside(t *testing.T) {
	here := inplace.Identity{Device: 7, Inode: 1}
	if got := (inplace.Identity{Device: 3, Inode: 5}).Beside(here); got != (inplace.Identity{Device: 7, Inode: 5}) {
		t.Error(got)
	}
	if got := (inplace.Identity{}).Beside(here); got != (inplace.Identity{}) {
		t.Error(got)
	}
}

func TestName(t *testing.T) {
	place := filepath.Join(t.TempDir(), "db")
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	for _, want := range []string{".before-20260304T040607Z", ".before-20260304T040607Z-2", ".before-20260304T040607Z-3"} {
		got, err := inplace.Name(place, "before", at)
		if err != nil || got != place+want {
			t.Fatal(got, err)
		}
		write(t, got, "")
	}
}

// TestWork takes over what a restore left that died, and nothing from one at work.
func TestWork(t *testing.T) {
	place := filepath.Join(t.TempDir(), "db")
	w, err := inplace.OpenWork(place, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inplace.OpenWork(place, 0o700); !errors.Is(err, inplace.ErrBusy) {
		t.Errorf("%v", err)
	}
	type marker struct{ Phase string }
	var m marker
	if found, err := w.Marked(&m); found || err != nil {
		t.Error(found, err)
	}
	for _, phase := range []string{"swap", "back"} {
		if err := w.Mark(marker{phase}); err != nil {
			t.Fatal(err)
		}
		if found, err := w.Marked(&m); !found || err != nil || m.Phase != phase {
			t.Error(found, err, m)
		}
	}
	w.Leave()
	if w, err = inplace.OpenWork(place, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, w.Marker(), "{torn")
	if _, err := w.Marked(&m); !errors.Is(err, inplace.ErrMoved) || !strings.Contains(err.Error(), w.Marker()) {
		t.Error(err)
	}
	if err := os.MkdirAll(w.Join("new/below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.Clear(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(w.Path); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	if err := w.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(inplace.WorkOf(place)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

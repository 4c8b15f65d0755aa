package scratch_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/scratch"
)

// TestNew removes what a process left that is gone, and nothing that somebody is at work in or that is not of the pattern.
func TestNew(t *testing.T) {
	below := filepath.Join(t.TempDir(), "below", "it")
	const pattern = "job-*"
	first, err := scratch.New(below, pattern, 0o711, nil)
	if err != nil {
		t.Fatal(err)
	}
	left, other := filepath.Join(below, "job-left"), filepath.Join(below, "other")
	for _, dir := range []string{left, other} {
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	stubborn := filepath.Join(below, "job-stubborn")
	if err := os.Mkdir(stubborn, 0o700); err != nil {
		t.Fatal(err)
	}
	var asked []string
	second, err := scratch.New(below, pattern, 0o711, func(path string) error {
		asked = append(asked, path)
		if path == stubborn {
			return errors.New("it stays")
		}
		return os.RemoveAll(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 2 || asked[0] != left || asked[1] != stubborn {
		t.Errorf("asked to remove %v", asked)
	}
	for path, there := range map[string]bool{first.Path: true, second.Path: true, left: false, other: true, stubborn: true} {
		if _, err := os.Stat(path); (err == nil) != there {
			t.Errorf("%s: %v", path, err)
		}
	}
	if st, err := os.Stat(second.Path); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if _, err := scratch.Lock(first.Path); !errors.Is(err, scratch.ErrLocked) {
		t.Errorf("%v", err)
	}
	for _, d := range []*scratch.Dir{first, second} {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
		if _, err := scratch.Lock(d.Path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
}

// TestLockOfALink is refused: who may write beside it could lead elsewhere.
func TestLockOfALink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if f, err := scratch.Lock(link); err == nil {
		_ = f.Close()
		t.Error("locked")
	}
}

// TestFile is written and read, and is not there for anybody else.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	f, err := scratch.File(dir, "job-*")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt([]byte("text"), 3); err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 4); true {
		if _, err := f.ReadAt(b, 3); err != nil || string(b) != "text" {
			t.Errorf("%q, %v", b, err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

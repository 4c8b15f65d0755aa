package trees

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEqualSeedsMakeEqualTrees(t *testing.T) {
	for seed := range uint64(3) {
		a, b := TempDir(t), TempDir(t)
		Make(t, a, seed, Options{Deep: true})
		Make(t, b, seed, Options{Deep: true})
		if diffs := Compare(a, b); len(diffs) > 0 {
			t.Errorf("seed %d: %q", seed, diffs)
		}
		nodes, err := Read(a)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK} {
			if len(Paths(nodes, kind)) == 0 {
				t.Errorf("seed %d: nothing of type %o", seed, kind)
			}
		}
	}
}

func TestCompareSeesDifferences(t *testing.T) {
	changes := map[string]func(dir string) error{
		"content":    func(d string) error { return overwrite(filepath.Join(d, "file")) },
		"mode":       func(d string) error { return os.Chmod(filepath.Join(d, "file"), 0o511) },
		"mtime":      func(d string) error { return unix.Utimes(filepath.Join(d, "empty"), make([]unix.Timeval, 2)) },
		"missing":    func(d string) error { return os.Remove(filepath.Join(d, "fifo")) },
		"extra":      func(d string) error { return os.Mkdir(filepath.Join(d, "extra"), 0o700) },
		"hole":       func(d string) error { return fillHole(filepath.Join(d, "only a hole")) },
		"link":       func(d string) error { return breakLink(filepath.Join(d, "linked too")) },
		"type":       func(d string) error { return retype(filepath.Join(d, "symlink")) },
		"attributes": func(d string) error { return attribute(filepath.Join(d, "linked")) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			a, b := TempDir(t), TempDir(t)
			Make(t, a, 5, Options{Entries: 5})
			Make(t, b, 5, Options{Entries: 5})
			if err := os.Chmod(b, 0o700); err != nil {
				t.Fatal(err)
			}
			before := len(Compare(a, b))
			if err := change(b); err != nil {
				t.Fatal(err)
			}
			if after := len(Compare(a, b)); after <= before {
				t.Errorf("%d differences before the change, %d after", before, after)
			}
		})
	}
}

// overwrite changes a byte and keeps the mtime.
func overwrite(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0); err != nil {
		return err
	}
	if err := os.Chmod(path, info.Mode()); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}

func fillHole(path string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	return os.WriteFile(path, make([]byte, 1<<20), 0)
}

func breakLink(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return exec.Command("cp", "-p", filepath.Join(filepath.Dir(path), "linked"), path).Run()
}

func retype(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o600)
}

func attribute(path string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	return unix.Lsetxattr(path, "user.another", []byte("x"), 0)
}

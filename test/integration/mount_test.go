package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mounted is a running `holdfast mount`.
type mounted struct {
	*exec.Cmd
	dir  string
	done chan error
}

func (h *host) mount() *mounted {
	h.t.Helper()
	needFUSE(h.t)
	m := &mounted{Cmd: h.command("mount", h.t.TempDir()), done: make(chan error, 1)}
	m.dir = m.Args[2]
	// The kernel keeps the mount of a killed process: it must not outlive the test.
	h.t.Cleanup(func() { _ = unmount(m.dir) })
	stderr, err := m.StderrPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := m.Start(); err != nil {
		h.t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "mounted on ") {
		_ = m.Process.Kill()
		h.t.Fatalf("mount: %q, %v", lines.Text(), m.Wait())
	}
	go func() {
		for lines.Scan() {
			h.t.Log(lines.Text())
		}
		m.done <- m.Wait()
	}()
	return m
}

// needFUSE says what a machine lacks on which nothing can be mounted.
func needFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("this test mounts: it needs FUSE, and a /dev/fuse that this user may open (crw-rw-rw-): %v", err)
	}
	_ = f.Close()
	if os.Geteuid() == 0 {
		return
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Fatal("this test mounts as an ordinary user: it needs fusermount3 (package fuse3), which `bash .ci/run` installs")
	}
}

// unmount detaches a mount that may be in use. Only root may ask the kernel itself.
func unmount(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	if out, err := exec.Command("fusermount3", "-u", "-z", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount %s: %w: %s", dir, err, out)
	}
	return nil
}

// ended waits for the process.
func (m *mounted) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-m.done:
		return err
	case <-time.After(5 * time.Minute):
		_ = m.Process.Kill()
		t.Fatal("the mount does not end")
		return nil
	}
}

// mountTree makes a tree with what a mount has to show.
func mountTree(t *testing.T) string {
	t.Helper()
	top := filepath.Join(t.TempDir(), "tree")
	must(t, os.MkdirAll(filepath.Join(top, "deep", "er"), 0o755))
	must(t, os.MkdirAll(filepath.Join(top, "many"), 0o755))
	for i := range 2500 {
		must(t, os.WriteFile(filepath.Join(top, "many", "f"+strings.Repeat("x", i%50)+string(rune('a'+i%26))+"-"+time.Duration(i).String()), []byte{byte(i)}, 0o600))
	}
	long := bytes.Repeat([]byte("0123456789abcdef line of a long file\n"), 600_000)
	must(t, os.WriteFile(filepath.Join(top, "deep", "long"), long, 0o640))
	must(t, os.WriteFile(filepath.Join(top, "deep", "er", "small"), []byte("small"), 0o600))
	must(t, os.Truncate(filepath.Join(top, "deep", "er", "small"), 3<<20))
	must(t, os.Chmod(filepath.Join(top, "deep", "er", "small"), 0o400))
	must(t, os.Symlink("er/small", filepath.Join(top, "deep", "link")))
	must(t, os.WriteFile(filepath.Join(top, "zero"), nil, 0o600))
	return top
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// compareMounted compares what a mount shows with the tree itself.
func compareMounted(t *testing.T, want, got string) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(want, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		rel, _ := filepath.Rel(want, path)
		other := filepath.Join(got, rel)
		a, err := os.Lstat(path)
		if err != nil {
			return err
		}
		b, err := os.Lstat(other)
		if err != nil {
			return err
		}
		if a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) || !d.IsDir() && a.Size() != b.Size() {
			t.Errorf("%s: %v %d %v, want %v %d %v", rel, b.Mode(), b.Size(), b.ModTime(), a.Mode(), a.Size(), a.ModTime())
		}
		return compareContent(path, other, a)
	})
	must(t, err)
	shown := 0
	must(t, filepath.WalkDir(got, func(_ string, _ fs.DirEntry, err error) error {
		shown++
		return err
	}))
	if seen != shown {
		t.Errorf("the mount shows %d entries of %d", shown, seen)
	}
}

func compareContent(path, other string, info fs.FileInfo) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		a, _ := os.Readlink(path)
		b, err := os.Readlink(other)
		if err == nil && a != b {
			err = errors.New(other + ": another target")
		}
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	a, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(other)
	if err == nil && !bytes.Equal(a, b) {
		err = errors.New(other + ": other content")
	}
	return err
}

func TestMountShowsSnapshots(t *testing.T) {
	h := newHost(t, "")
	tree := mountTree(t)
	h.run("init")
	h.run("backup", "--files", tree, "--name", "tree")
	m := h.mount()
	latest := filepath.Join(m.dir, "test", "tree", "latest")
	compareMounted(t, tree, filepath.Join(latest, tree))
	if err := os.WriteFile(filepath.Join(latest, tree, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to it: %v", err)
	}
	if _, err := os.Stat(filepath.Join(latest, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(tree, "zero"), []byte("more"), 0o600))
	h.run("backup", "--files", tree, "--name", "tree")
	deadline := time.Now().Add(2 * time.Minute)
	for {
		got, err := os.ReadFile(filepath.Join(latest, tree, "zero"))
		if err == nil && string(got) == "more" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the new snapshot is not seen: %q, %v", got, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	must(t, m.Process.Signal(syscall.SIGTERM))
	_ = m.ended(t)
	left, err := os.ReadDir(m.dir)
	if err != nil || len(left) > 0 {
		t.Errorf("after it: %v, %v", left, err)
	}
}

// TestMountEnds ends mounts in each way there is, with a file of the mount open.
func TestMountEnds(t *testing.T) {
	h := newHost(t, "")
	tree := filepath.Join(t.TempDir(), "tree")
	must(t, os.MkdirAll(tree, 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "file"), bytes.Repeat([]byte("x"), 1<<20), 0o600))
	h.run("init")
	h.run("backup", "--files", tree, "--name", "tree")
	for name, end := range map[string]func(*mounted) error{
		"interrupt": func(m *mounted) error { return m.Process.Signal(os.Interrupt) },
		"terminate": func(m *mounted) error { return m.Process.Signal(syscall.SIGTERM) },
		"hang up":   func(m *mounted) error { return m.Process.Signal(syscall.SIGHUP) },
		"kill":      func(m *mounted) error { return m.Process.Kill() },
		"unmount":   func(m *mounted) error { return unmount(m.dir) },
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			m := h.mount()
			f, err := os.Open(filepath.Join(m.dir, "test", "tree", "latest", tree, "file"))
			must(t, err)
			_, err = f.Read(make([]byte, 100))
			must(t, err)
			must(t, end(m))
			if name == "unmount" {
				must(t, f.Close()) // a detached file system goes with its last user
			}
			_ = m.ended(t)
			_ = f.Close()
		})
	}
}

func TestMountRefusesWhatIsInUse(t *testing.T) {
	h := newHost(t, "")
	h.run("init")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	h.want(1, []string{"mount", dir}, "not empty")
	h.want(1, []string{"mount", filepath.Join(dir, "none")}, "no such file")
}

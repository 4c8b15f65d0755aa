// Package trees makes random directory trees that hold everything a file system can hold, and tells how two trees
// differ. It is for tests only.
//
// [TempDir] gives a directory, [Make] fills it, [Compare] reports differences of two trees, [Read] lists one.
// All work is relative to open directories, so paths longer than PATH_MAX are no problem. What the user that runs the test may not
// do (make device nodes, give files away) is left out of the tree.
package trees

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TempDir returns a new directory that is removed when the test ends, whatever modes the tree below it has.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "trees")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Remove(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// Remove removes a tree, also when directories in it are not writable for their owner.
func Remove(dir string) error {
	if os.Geteuid() != 0 {
		d, err := openDir(unix.AT_FDCWD, dir)
		if err == nil {
			makeWritable(d)
			d.close()
		}
	}
	return os.RemoveAll(dir)
}

func makeWritable(d dir) {
	if err := os.Chmod(d.self(), 0o700); err != nil { //nolint:gosec // a directory
		return // RemoveAll reports what is left
	}
	names, err := d.names()
	if err != nil {
		return
	}
	for _, name := range names {
		if info, err := os.Lstat(d.path(name)); err != nil || !info.IsDir() {
			continue
		}
		sub, err := d.open(name)
		if err != nil { // not readable yet
			if os.Chmod(d.path(name), 0o700) != nil { //nolint:gosec // a directory
				continue
			}
			if sub, err = d.open(name); err != nil {
				continue
			}
		}
		makeWritable(sub)
		sub.close()
	}
}

// dir is an open directory. Paths below it go through /proc, so they stay short however deep the directory is.
type dir struct{ fd int }

func openDir(at int, name string) (dir, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dir{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return dir{fd}, nil
}

func (d dir) open(name string) (dir, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return dir{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return dir{fd}, nil
}

func (d dir) close() { _ = unix.Close(d.fd) }

func (d dir) self() string { return "/proc/self/fd/" + strconv.Itoa(d.fd) }

func (d dir) path(name string) string { return filepath.Join(d.self(), name) }

// names lists the directory in byte order.
func (d dir) names() ([]string, error) {
	list, err := os.ReadDir(d.self() + "/.")
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, err
}

// Package program builds this module's programs for tests: each once for all test packages that want it, and again only
// when its sources have changed. What is built is kept in .cache/test, so that a whole run of the tests links each
// program once instead of once for each package, and compiles everything with the flags of `make build`.
//
// Use [Holdfast] for the command line and [Function] for a function of the control plane.
package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Holdfast puts the command line's binary into the directory and returns its path.
func Holdfast(dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return place(root, filepath.Join(root, "hostagent"), filepath.Join(dir, "holdfast"))
}

// Function puts the binary of the function whose source is in the directory source to the path to, as it is deployed.
func Function(source, to string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	if source, err = filepath.Abs(source); err != nil {
		return err
	}
	_, err = place(root, source, to, "-tags", "lambda.norpc")
	return err
}

// Root returns the directory of the module: the one above the working directory that has go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		// test/tools is a module of its own.
		if _, err := os.Stat(filepath.Join(dir, "test", "tools", "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the module above the working directory: not there")
		}
		dir = up
	}
}

// done are the programs that this process has built: its sources do not change while it runs. Guarded by doing.
var (
	doing sync.Mutex
	done  = map[string]bool{}
)

// place builds what is in source, unless that is done already, and puts it to a path of the caller's own: what is kept
// may be replaced at any time by somebody whose sources are newer.
func place(root, source, to string, args ...string) (string, error) {
	doing.Lock()
	defer doing.Unlock()
	rel, err := filepath.Rel(root, source)
	if err != nil {
		return "", err
	}
	kept := filepath.Join(root, ".cache", "test", strings.ReplaceAll(filepath.ToSlash(rel), "/", "-"))
	unlock, err := Lock(kept + ".lock")
	if err != nil {
		return to, build(source, to, args) // a checkout that is somebody else's
	}
	defer unlock()
	if !done[kept] {
		if err := build(source, kept, args); err != nil {
			return "", err
		}
		done[kept] = true
	}
	return to, duplicate(kept, to)
}

func build(source, to string, args []string) error {
	args = append([]string{"build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", to}, args...)
	cmd := exec.Command("go", append(args, ".")...) //nolint:gosec // a fixed command
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", source, err, out)
	}
	return nil
}

// duplicate gives a file a second name, or copies it where it can have none. The compiler replaces files, it does not
// write into them: the second name keeps what it has.
func duplicate(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	// By another process: a file that this one had open for writing could not be run while any child of it begins.
	if out, err := exec.Command("cp", "--", from, to).CombinedOutput(); err != nil { //nolint:gosec // a fixed command
		return fmt.Errorf("copy %s: %w\n%s", from, err, out)
	}
	return nil
}

// Lock waits for the lock of a file, whose directory it makes. It ends with the process at the latest.
func Lock(name string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // programs for everybody
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // a lock for everybody
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

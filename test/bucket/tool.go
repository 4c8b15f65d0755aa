// Package bucket starts real object stores for tests: versitygw for S3, fake-gcs-server for Google Cloud Storage, each
// a process on a random local port with data in a temporary directory, and a proxy that breaks connections on demand.
//
// Use [StartS3], [StartGS] and [StartProxy]. The programs are built once from the module in test/tools into
// .cache/tools. What is missing fails the test; nothing is skipped.
package bucket

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tool returns the path of a program of test/tools, and builds it first if it is not there or older than its versions.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(root, ".cache", "tools")
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // programs for everybody
		t.Fatal(err)
	}
	program := filepath.Join(cache, name)
	sums := filepath.Join(root, "test", "tools", "go.sum")
	if current(program, sums) {
		return program
	}
	unlock, err := lock(program + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if current(program, sums) {
		return program // another test built it meanwhile
	}
	t.Logf("building %s (once)", name)
	unfinished := program + ".unfinished"
	build := exec.Command("go", "build", "-trimpath", "-o", unfinished, pkg)
	build.Dir = filepath.Dir(sums)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	if err := os.Rename(unfinished, program); err != nil {
		t.Fatal(err)
	}
	return program
}

func current(program, sums string) bool {
	p, err := os.Stat(program)
	if err != nil {
		return false
	}
	s, err := os.Stat(sums)
	return err == nil && !p.ModTime().Before(s.ModTime())
}

// repositoryRoot is the directory above the test's own that holds test/tools.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "test", "tools", "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find test/tools above the working directory: not there")
		}
		dir = up
	}
}

// lock waits for the lock of a file. It ends with the process at the latest.
func lock(name string) (unlock func(), err error) {
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

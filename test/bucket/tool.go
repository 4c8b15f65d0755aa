// Package bucket starts real object stores for tests: versitygw for S3, fake-gcs-server for Google Cloud Storage, each
// a process on a random local port with data in a temporary directory, and a proxy that breaks connections on demand.
//
// Use [StartS3], [StartGS] and [StartProxy]. The programs are built once from the module in test/tools into
// .cache/tools. What is missing fails the test; nothing is skipped.
package bucket

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/test/program"
)

// tool returns the path of a program of test/tools, and builds it first if it is not there or older than its versions.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	root, err := program.Root()
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(root, ".cache", "tools")
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // programs for everybody
		t.Fatal(err)
	}
	binary := filepath.Join(cache, name)
	sums := filepath.Join(root, "test", "tools", "go.sum")
	if current(binary, sums) {
		return binary
	}
	unlock, err := program.Lock(binary + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if current(binary, sums) {
		return binary // another test built it meanwhile
	}
	t.Logf("building %s (once)", name)
	unfinished := binary + ".unfinished"
	build := exec.Command("go", "build", "-trimpath", "-o", unfinished, pkg)
	build.Dir = filepath.Dir(sums)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	if err := os.Rename(unfinished, binary); err != nil {
		t.Fatal(err)
	}
	return binary
}

func current(binary, sums string) bool {
	p, err := os.Stat(binary)
	if err != nil {
		return false
	}
	s, err := os.Stat(sums)
	return err == nil && !p.ModTime().Before(s.ModTime())
}

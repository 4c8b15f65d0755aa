package demo_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/program"
)

// TestDemo runs the demonstration on a part of the Go installation's own source, with the PostgreSQL and the SQLite of this
// machine, and checks that it tells what it must and leaves nothing behind.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	holdfast, err := program.Holdfast(dir)
	if err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	demo := exec.Command("./demo.sh", holdfast, filepath.Join(strings.TrimSpace(string(goroot)), "src", "net"))
	demo.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := demo.CombinedOutput()
	if err != nil {
		t.Fatalf("demo on %s: %v\n%s", runtime.GOOS, err, out)
	}
	for _, want := range []string{
		"code@1 saved: full", "code@2 saved: incremental", "code@2 restored", "all the same", "damaged: v1/demo/code/packs/",
		"FAIL code@2", "PASS code@3", "Done in", "Databases: PostgreSQL", "governance-db restored to", "governance-sqlite restored to",
		"postgres: 0 maintainers", "sqlite: 0 maintainers", ": 1000 maintainers",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out)
		}
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

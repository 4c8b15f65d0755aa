// Package cloud starts what tests of the control plane need: the CDK's synthesis ([Synth]), its command line, and
// ministack, an emulator of AWS. The programs are installed by `make setup` into .cache/cloud; a missing one fails the
// test that needs it.
package cloud

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/test/program"
)

// Root returns the directory of the module.
func Root(t testing.TB) string {
	t.Helper()
	root, err := program.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Node returns the directory of node and cdk.
func Node(t testing.TB) string { return tool(t, "node/node_modules/.bin", "node") }

// Python returns the directory of ministack and cfn-lint.
func Python(t testing.TB) string { return tool(t, "venv/bin", "ministack") }

func tool(t testing.TB, dir, name string) string {
	t.Helper()
	at := filepath.Join(Root(t), ".cache", "cloud", dir)
	if _, err := os.Stat(filepath.Join(at, name)); err != nil {
		t.Fatalf("%s is not installed: run make setup: %v", name, err)
	}
	return at
}

// Stubs makes a directory of programs that stand in for the functions' binaries in templates that nobody deploys.
func Stubs(t testing.TB, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range programs {
		at := filepath.Join(dir, p)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "bootstrap"), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

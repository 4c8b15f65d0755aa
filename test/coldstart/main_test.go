package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/test/program"
)

// TestFunctionsStart: each function is measured with an environment with which it starts, and none is left out.
func TestFunctionsStart(t *testing.T) {
	root, err := program.Root()
	if err != nil {
		t.Fatal(err)
	}
	mains, err := filepath.Glob(filepath.Join(root, "functions", "*", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	api, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer api.close()
	seen := map[string]bool{}
	for _, f := range functions() {
		seen[f.program] = true
		bin := filepath.Join(t.TempDir(), "bootstrap")
		if err := program.Function(filepath.Join(root, "functions", f.program), bin); err != nil {
			t.Fatal(err)
		}
		env, err := environment.Map(f.env)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.start(bin, env); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
	for _, main := range mains {
		if verb := filepath.Base(filepath.Dir(main)); !seen[verb] {
			t.Errorf("the start of %s is not measured", verb)
		}
	}
	if _, err := api.start(filepath.Join(root, "go.mod"), nil); err == nil {
		t.Error("what is no program starts")
	}
	if _, err := os.Stat("/bin/true"); err == nil {
		if _, err := api.start("/bin/true", nil); err == nil {
			t.Error("what ends at once is ready")
		}
	}
}

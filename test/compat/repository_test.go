package compat_test

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// source is the name under which tests back up, on the host "one".
const source = "one/data"

// bench is a repository with all that both programs need to use it.
type bench struct {
	programs
	dir  string // repository, identity and the tree that is backed up are in it
	copy string // another place of the repository, if not empty
}

func (b bench) repository() string { return cmp.Or(b.copy, filepath.Join(b.dir, "repository")) }
func (b bench) tree() string       { return filepath.Join(b.dir, "tree") }

// newBench makes an empty repository.
func newBench(t *testing.T, p programs, dir string) bench {
	t.Helper()
	b := bench{programs: p, dir: dir}
	if err := os.MkdirAll(b.tree(), 0o700); err != nil {
		t.Fatal(err)
	}
	b.mustRun(t, "init", "--quiet")
	return b
}

// on returns a bench for a copy of the repository.
func (b bench) on(dir string) bench {
	b.copy = dir
	return b
}

// run calls holdfast on the repository and returns what it printed, and its exit code.
func (b bench) run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	command := exec.Command(b.holdfast, args...)
	command.Env = append(
		os.Environ(), "HOLDFAST_HOST=one", "HOLDFAST_REPOSITORY="+b.repository(),
		"HOLDFAST_IDENTITY="+filepath.Join(b.dir, "identity"), "HOLDFAST_STATE="+cmp.Or(b.copy, b.dir+"/")+"state",
		"HOLDFAST_POLICY=",
	)
	return output(t, command)
}

func (b bench) mustRun(t *testing.T, args ...string) {
	t.Helper()
	if out, code := b.run(t, args...); code != 0 {
		t.Fatalf("holdfast %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
}

func (b bench) backup(t *testing.T) {
	t.Helper()
	b.mustRun(t, "backup", "--quiet", "--files", b.tree(), "--name", "data")
}

// read calls the reader on the repository.
func (b bench) read(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return output(t, b.command(append([]string{"-m", "reader", b.repository(), filepath.Join(b.dir, "identity")}, args...)...))
}

// command is a call of Python, which leaves no compiled files in the checkout.
func (p programs) command(args ...string) *exec.Cmd {
	return exec.Command(p.python, append([]string{"-B"}, args...)...)
}

// script runs one of this directory's Python files.
func (p programs) script(t *testing.T, args ...string) {
	t.Helper()
	if out, code := output(t, p.command(args...)); code != 0 {
		t.Fatalf("python %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
}

func output(t *testing.T, command *exec.Cmd) (string, int) {
	t.Helper()
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", command.Path, err)
	}
	return out.String(), command.ProcessState.ExitCode()
}

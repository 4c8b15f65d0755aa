package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/program"
)

// holdfast is the binary under test, built once.
var holdfast string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	program.DefaultSignals() // tests send them
	dir, err := os.MkdirTemp("", "holdfast-integration-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if holdfast, err = program.Holdfast(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// host is a machine as far as Holdfast is concerned: a repository, an identity and a state directory.
type host struct {
	t   *testing.T
	env []string
	dir string
}

// newHost makes a host whose repository is at the address given, or in its own directory.
func newHost(t *testing.T, repository string) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir()}
	if repository == "" {
		repository = h.path("repository")
	}
	h.env = append(os.Environ(),
		"HOLDFAST_REPOSITORY="+repository, "HOLDFAST_IDENTITY="+h.path("identity"), "HOLDFAST_STATE="+h.path("state"), "HOLDFAST_HOST=test")
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// command is one invocation, not started. It is killed when the test ends.
func (h *host) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	h.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, holdfast, args...)
	cmd.Env = h.env
	return cmd
}

// try runs a command and returns its exit code and all it printed.
func (h *host) try(args ...string) (code int, output string) {
	h.t.Helper()
	cmd := h.command(args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		h.t.Fatalf("holdfast %q: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// run runs a command that must succeed.
func (h *host) run(args ...string) string {
	h.t.Helper()
	code, out := h.try(args...)
	if code != 0 {
		h.t.Fatalf("holdfast %q: exit code %d\n%s", args, code, out)
	}
	return out
}

// want runs a command that must end with the code and say each of the texts.
func (h *host) want(code int, args []string, texts ...string) string {
	h.t.Helper()
	got, out := h.try(args...)
	if got != code {
		h.t.Fatalf("holdfast %q: exit code %d, want %d\n%s", args, got, code, out)
	}
	for _, text := range texts {
		if !bytes.Contains([]byte(out), []byte(text)) {
			h.t.Errorf("holdfast %q does not say %q:\n%s", args, text, out)
		}
	}
	return out
}

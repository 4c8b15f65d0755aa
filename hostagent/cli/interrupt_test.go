package cli_test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// holdfastIn makes a command with a home, state and repository below dir. TestMain puts holdfast on the path.
func holdfastIn(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("holdfast", args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "HOLDFAST_STATE="+dir+"/state", "HOLDFAST_REPOSITORY="+dir+"/repo",
		"HOLDFAST_HOST=testhost", "HOLDFAST_POLICY=", "HOLDFAST_IDENTITY=", "GORACE="+quickEnd)
	return cmd
}

// TestInterruptedBackupIsTakenUp interrupts a backup when its first pack has arrived: it ends with 130, lists nothing,
// and the next run uses the pack.
func TestInterruptedBackupIsTakenUp(t *testing.T) {
	dir := t.TempDir()
	if out, err := holdfastIn(dir, "init").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		b := make([]byte, 10<<20)
		_, _ = rand.Read(b)
		if err := os.WriteFile(filepath.Join(tree, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	// 60 MiB at this rate take long enough that the signal comes first, whatever the machine.
	cmd := holdfastIn(dir, "backup", "--files", tree, "--name", "t", "--limit-upload", "3MiB")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, filepath.Join(dir, "repo", "v1", "testhost", "t", "packs", "*", "*"))
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 130 || !strings.Contains(out.String(), "error: interrupted") {
		t.Errorf("exit code %d, want 130\n%s", got, &out)
	}
	listed, err := holdfastIn(dir, "snapshots").CombinedOutput()
	if err != nil || !strings.Contains(string(listed), "no snapshots") {
		t.Errorf("%v\n%s", err, listed)
	}
	again, err := holdfastIn(dir, "backup", "--files", tree, "--name", "t").CombinedOutput()
	if err != nil || !strings.Contains(string(again), "took up an interrupted run: ") {
		t.Errorf("%v\n%s", err, again)
	}
}

// TestInterruptedHook interrupts a backup while a hook before it runs: it ends with 130 like any other, and the hooks
// after it run.
func TestInterruptedHook(t *testing.T) {
	for _, flag := range []string{"--json=false", "--json"} {
		dir := t.TempDir()
		if out, err := holdfastIn(dir, "init").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := os.Mkdir(dir+"/tree", 0o700); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(`version: 1
hosts:
  testhost:
    sources:
      t:
        files: {roots: [DIR/tree]}
        hooks:
          before: [{command: [sh, -c, "touch DIR/before; exec sleep 100"]}]
          after: [{command: [touch, DIR/after]}]
`, "DIR", dir)
		if err := os.WriteFile(dir+"/policy.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		cmd := holdfastIn(dir, "backup", "--policy", dir+"/policy.yaml", flag)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, dir+"/before")
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		want := "error: interrupted\n"
		if flag == "--json" {
			want = `{"error":"interrupted","code":130}` + "\n"
		}
		if got := cmd.ProcessState.ExitCode(); got != 130 || !strings.HasSuffix(out.String(), want) || strings.Contains(out.String(), "signal") {
			t.Errorf("%s: exit code %d, want 130\n%s", flag, got, &out)
		}
		waitFor(t, dir+"/after")
	}
}

// waitFor waits until a file that fits the pattern is there.
func waitFor(t *testing.T, pattern string) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not appear", pattern)
		}
	}
}

package cli_test

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/btcdecoded/holdfast/hostagent/cli"
)

// quickEnd is for commands that are built with the race detector, like this test: each would wait for a second before it
// ends.
const quickEnd = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"holdfast": command})
}

// command is what hostagent/main.go does.
func command() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(cli.Main(ctx, os.Args[1:], cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, "v0.0.0-test"))
}

// TestScripts runs testdata/script/*.txt with the real command. Each script has its own home, state and host name.
func TestScripts(t *testing.T) {
	examples, err := filepath.Abs("../../docs/examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir+"/home")
			e.Setenv("HOLDFAST_STATE", e.WorkDir+"/state")
			e.Setenv("HOLDFAST_HOST", "testhost")
			e.Setenv("HOLDFAST_POLICY", "")
			e.Setenv("EXAMPLES", examples)
			e.Setenv("TMPDIR", e.WorkDir+"/tmp")
			e.Setenv("GORACE", quickEnd)
			return os.MkdirAll(e.WorkDir+"/home", 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  status,
			"capture": capture,
			"newpack": newPack,
			"flip":    flip,
			"sshkey":  sshkey,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

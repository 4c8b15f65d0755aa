package dump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres/logical"
)

// TestKilled kills the restoring process at each step. No half database has the right name, and the next restore removes
// what is left.
func TestKilled(t *testing.T) {
	if port := os.Getenv("HOLDFAST_TEST_PORT"); port != "" {
		killed(port, os.Getenv("HOLDFAST_TEST_STEP"), os.Getenv("HOLDFAST_TEST_DUMP"))
		return
	}
	w := newWorld(t)
	want := w.PsqlIn("governance", sum)
	w.lose()
	lost := w.PsqlIn("governance", sum)
	file := t.TempDir() + "/dump"
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.dumps[0].Write(t.Context(), f), f.Close()); err != nil {
		t.Fatal(err)
	}
	index := &logical.Index{Format: logical.Format, Databases: []logical.Database{w.dumps[0].Database}, Wanted: w.dumps[0].Reader}
	b, err := index.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".json", b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{StepRestore, StepAnalyze, StepProve, StepExchange, "commit", "committed"} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_PORT="+fmt.Sprint(w.Port), "HOLDFAST_TEST_STEP="+step, "HOLDFAST_TEST_DUMP="+file)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%s: %v: %s", step, err, out)
		}
		wanted := lost
		if step == "committed" {
			wanted = want
		}
		// Its sessions end, and with one of them its lock, when the server notices.
		for w.Psql("SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'holdfast%') + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')") != "0" {
			time.Sleep(20 * time.Millisecond)
		}
		if got := w.PsqlIn("governance", sum); got != wanted {
			t.Errorf("killed at %s: %s, want %s", step, got, wanted)
		}
	}
	r, err := Beside(t.Context(), w.dumps[0], "next", w.options("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Dropped) > 1 { // each of the others was dropped by the one after it
		t.Errorf("%q", r.Dropped)
	}
	if got := w.databases(); len(got) != 4 || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, newPrefix) }) {
		t.Errorf("%q", got)
	}
}

// killed restores, and kills itself at a step.
func killed(port, step, file string) {
	b, err := os.ReadFile(file + ".json")
	if err != nil {
		panic(err)
	}
	x, err := logical.ParseIndex(b)
	if err != nil {
		panic(err)
	}
	settings := "host=127.0.0.1 user=postgres dbname=postgres port=" + port
	o := Options{Connection: settings, Connect: connector(settings), Prove: func(context.Context, string, string) error { return nil }}
	o.fault = func(at string) error {
		if at == step {
			p, _ := os.FindProcess(os.Getpid())
			_ = p.Kill()
			select {}
		}
		return nil
	}
	_, err = InPlace(context.Background(), []Dump{{Database: x.Databases[0], Reader: x.Wanted, Write: func(_ context.Context, w io.Writer) error {
		b, err := os.ReadFile(file)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}}}, o)
	panic(fmt.Sprint("not killed: ", err))
}

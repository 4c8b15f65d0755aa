package state_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var (
	repo = snapshot.RepositoryID{1}
	src  = snapshot.Source{Host: "host", Name: "etc"}
)

func open(t *testing.T) (*state.Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	d, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d, path
}

func TestLockIsExclusive(t *testing.T) {
	d, _ := open(t)
	lock, err := d.Lock(repo, src)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock(repo, src); !errors.Is(err, state.ErrLocked) || !strings.Contains(err.Error(), "process") {
		t.Errorf("second lock: %v, want ErrLocked with the holder's process", err)
	}
	other, err := d.Lock(repo, snapshot.Source{Host: "host", Name: "logs"})
	if err != nil {
		t.Errorf("lock of another source: %v", err)
	} else if err := other.Unlock(); err != nil {
		t.Error(err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := d.Lock(repo, src)
	if err != nil {
		t.Fatalf("lock after unlock: %v", err)
	}
	if err := again.Unlock(); err != nil {
		t.Error(err)
	}
}

// TestLockEndsWithItsProcess runs this test binary as the other process and kills it.
func TestLockEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv("STATE_TEST_LOCK"); dir != "" {
		holdLock(dir)
	}
	d, path := open(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockEndsWithItsProcess$")
	cmd.Env = append(os.Environ(), "STATE_TEST_LOCK="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock(repo, src); !errors.Is(err, state.ErrLocked) {
		t.Errorf("lock while another process holds it: %v, want ErrLocked", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := d.Lock(repo, src); err != nil {
		t.Errorf("lock after its holder was killed: %v", err)
	}
}

func holdLock(dir string) {
	d, err := state.Open(dir)
	if err == nil {
		_, err = d.Lock(repo, src)
	}
	if err != nil {
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("x")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestSeenOnlyGrows(t *testing.T) {
	d, path := open(t)
	if _, ok, err := d.Seen(repo, src); ok || err != nil {
		t.Fatalf("nothing seen yet: %v, %v", ok, err)
	}
	want := state.Seen{Sequence: 7, Manifest: snapshot.Hash{7}}
	for _, s := range []state.Seen{{Sequence: 3, Manifest: snapshot.Hash{3}}, want, {Sequence: 5, Manifest: snapshot.Hash{5}}} {
		if err := d.See(repo, src, s); err != nil {
			t.Fatal(err)
		}
	}
	got, ok, err := d.Seen(repo, src)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	left, err := filepath.Glob(filepath.Join(path, repo.String(), "host", "etc", ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := d.Forget(repo, src); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := d.Seen(repo, src); ok || err != nil {
		t.Errorf("after Forget: %v, %v", ok, err)
	}
}

func TestSeenRefusesGarbage(t *testing.T) {
	d, _ := open(t)
	dir, err := d.Path(repo, src)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"", "{", `{"sequence":-1}`, `{"sequence":1,"manifest":"zz"}`} {
		if err := os.WriteFile(filepath.Join(dir, "seen.json"), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := d.Seen(repo, src); ok || err == nil {
			t.Errorf("%q: read as %v, %v", b, ok, err)
		}
		// What cannot be read is replaced by the next good run.
		if err := d.See(repo, src, state.Seen{Sequence: 1}); err != nil {
			t.Error(err)
		}
	}
}

func TestNamesDoNotLeaveTheDirectory(t *testing.T) {
	d, _ := open(t)
	for _, bad := range []snapshot.Source{{Host: "..", Name: "x"}, {Host: "h", Name: "../../x"}, {}} {
		if _, err := d.Lock(repo, bad); err == nil {
			t.Errorf("lock of %q: no error", bad)
		}
		if err := d.See(repo, bad, state.Seen{Sequence: 1}); err == nil {
			t.Errorf("see of %q: no error", bad)
		}
	}
}

package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReachable has the programs lie where only who runs the test may go.
func TestReachable(t *testing.T) {
	for _, v := range Versions(t) {
		account := Account(t)
		private := filepath.Join(t.TempDir(), "private")
		if err := os.Mkdir(private, 0o700); err != nil {
			t.Fatal(err)
		}
		from := filepath.Join(private, "installation")
		if err := duplicate(filepath.Dir(filepath.Dir(Bin(t, v, "postgres"))), from); err != nil {
			t.Fatal(err)
		}
		place := account.Dir(t)
		bin, err := reachable(filepath.Join(from, "bin"), account, place)
		if err != nil {
			t.Fatal(err)
		}
		if account.other != strings.HasPrefix(bin, place) {
			t.Errorf("%s uses %s", account, bin)
		}
		if out, err := account.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(place, "data"), "-A", "trust", "--no-sync").CombinedOutput(); err != nil {
			t.Errorf("PostgreSQL %d: %v\n%s", v, err, out)
		}
	}
}

// TestKilled kills a test while its server runs: the server ends too.
func TestKilled(t *testing.T) {
	if name := os.Getenv("TEST_CLUSTER_KILLED"); name != "" {
		s := Start(t, Options{})
		if err := os.WriteFile(name+".new", []byte(s.Dir), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(limit)
		return
	}
	name := filepath.Join(t.TempDir(), "started")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$") //nolint:gosec // this program
	cmd.Env = append(os.Environ(), "TEST_CLUSTER_KILLED="+name, "TMPDIR="+t.TempDir())
	if err := os.Chmod(filepath.Dir(t.TempDir()), 0o711); err != nil { //nolint:gosec // to be entered
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir []byte
	for end := time.Now().Add(limit); len(dir) == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		dir, _ = os.ReadFile(name)
	}
	pid, err := os.ReadFile(filepath.Join(string(dir), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		// It removes the file when it has ended as it should.
		if _, err := os.Stat(filepath.Join(string(dir), "postmaster.pid")); os.IsNotExist(err) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the server still runs: %s", pid)
		}
	}
}

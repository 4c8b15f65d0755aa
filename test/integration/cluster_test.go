package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/cluster"
)

// clusterHost is a host with a cluster that is followed.
type clusterHost struct {
	*host
	*cluster.Server
	scratch string // directory in which the server's user may go
	program string // where that user can run it
	follow  *exec.Cmd
}

func newClusterHost(t *testing.T) *clusterHost {
	t.Helper()
	c := &clusterHost{host: newHost(t, ""), Server: cluster.Start(t, cluster.Options{Checksums: true, SegmentSize: 1})}
	c.scratch = c.Owner.Dir(t)
	c.program = c.Owner.Program(t, holdfast, "holdfast")
	c.run("init")
	c.Psql("CREATE TABLE kept (n int PRIMARY KEY); INSERT INTO kept VALUES (1)")
	return c
}

// started follows the cluster until it is stopped.
func (c *clusterHost) started() {
	c.host.t.Helper()
	c.follow = c.host.command("replicate", "--postgres", c.DSN("postgres"), "--name", "db", "--interval", "50ms")
	c.follow.Stdout, c.follow.Stderr = c.host.t.Output(), c.host.t.Output()
	must(c.host.t, c.follow.Start())
	c.durable(time.Time{})
}

func (c *clusterHost) stopped() {
	c.host.t.Helper()
	must(c.host.t, c.follow.Process.Signal(syscall.SIGTERM))
	_ = c.follow.Wait() // however it ends, what was committed is shipped
}

// now is the server's clock.
func (c *clusterHost) now() time.Time {
	c.host.t.Helper()
	at, err := time.Parse("2006-01-02 15:04:05.999999Z07", c.Psql("SELECT clock_timestamp()"))
	must(c.host.t, err)
	return at
}

// durable waits until all that was committed before a moment can be restored.
func (c *clusterHost) durable(at time.Time) {
	c.host.t.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		code, _ := c.try("snapshots", "db", "--points", "--quiet")
		if code != 0 {
			continue
		}
		cmd := c.host.command("snapshots", "db", "--points", "--json")
		out, err := cmd.Output()
		must(c.host.t, err)
		var doc []struct {
			Spans []struct {
				To  time.Time `json:"to"`
				Log bool      `json:"log"`
			} `json:"spans"`
		}
		must(c.host.t, json.Unmarshal(out, &doc))
		if len(doc) == 1 && len(doc[0].Spans) > 0 {
			if last := doc[0].Spans[len(doc[0].Spans)-1]; at.IsZero() || last.Log && !last.To.Before(at) {
				return
			}
		}
	}
	c.host.t.Fatal("nothing arrives in the log")
}

// ships does something that is to arrive in the log as a record of its own, and waits for that: how many records there are must
// not be a matter of how fast the machine is.
func (c *clusterHost) ships(something func()) {
	c.host.t.Helper()
	before := len(c.log("/log/"))
	something()
	for end := time.Now().Add(3 * time.Minute); len(c.log("/log/")) == before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.host.t.Fatal("nothing more arrives in the log")
		}
	}
}

// log returns the files of the repository's log whose paths have a part: segments are told from records by theirs.
func (c *clusterHost) log(part string) (out []string) {
	c.host.t.Helper()
	must(c.host.t, filepath.WalkDir(c.path("repository/v1"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(path, part) {
			return err
		}
		if name := filepath.Base(path); part != "/log/" || name != "head.json" && !strings.Contains(path, "/joined/") {
			out = append(out, path)
		}
		return nil
	}))
	return out
}

// insert commits a row and returns a moment after it that is known to be one.
func (c *clusterHost) insert(n int) time.Time {
	c.host.t.Helper()
	c.Psql(fmt.Sprintf("INSERT INTO kept VALUES (%d)", n))
	return c.now()
}

// restore restores to a new directory, by the program that the server's user can run.
func (c *clusterHost) restore(args ...string) (code int, out string) {
	c.host.t.Helper()
	cmd := c.host.command(append([]string{"restore", "db"}, args...)...)
	cmd.Path, cmd.Args[0] = c.program, c.program
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.host.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// rows are those of a restored cluster.
func (c *clusterHost) rows(dir string) string {
	c.host.t.Helper()
	s := cluster.Open(c.host.t, dir, cluster.Options{})
	defer s.Stop("fast")
	return s.Psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept")
}

// TestCluster takes a cluster through a restore to a time, to an LSN, in place, a drill, and damage.
func TestCluster(t *testing.T) {
	c := newClusterHost(t)
	c.started()
	c.ships(func() { c.insert(2) })
	between := c.now()
	lsn := c.Psql("SELECT pg_current_wal_flush_lsn()")
	c.Psql("SELECT pg_create_restore_point('good')")
	c.ships(func() { c.Psql("DELETE FROM kept WHERE n = 1") })
	c.ships(func() { c.insert(3) })
	c.ships(func() {
		c.Psql("DELETE FROM kept WHERE n = 2")
		c.Psql("SELECT pg_switch_wal()")
	})
	c.durable(between)
	c.stopped()
	at := between.UTC().Format("2006-01-02 15:04:05.999999") + "+00"

	for name, args := range map[string][]string{"time": {"--at", at}, "lsn": {"--lsn", lsn, "--exclusive"}} {
		dir := filepath.Join(c.scratch, name)
		if code, out := c.restore(append(args, "--to", dir)...); code != 0 {
			t.Fatalf("%s: exit code %d\n%s", name, code, out)
		}
		if got := c.rows(dir); got != "1,2" {
			t.Errorf("%s: rows %s", name, got)
		}
	}
	dir := filepath.Join(c.scratch, "none")
	for _, args := range [][]string{
		{"--at", "2001-01-01 00:00:00+00"}, {"--lsn", "FF/0"}, {"--lsn", "0/1"}, {"--timeline", "7"}, {"--xid", "4000000"}, {"--name", "bad"},
	} {
		code, out := c.restore(append(args, "--to", dir)...)
		if code == 0 || !strings.Contains(out, "error: ") || args[0] == "--name" && !strings.Contains(out, `"good" of `) || args[0] == "--xid" && !strings.Contains(out, "committed ") {
			t.Errorf("%q: exit code %d\n%s", args, code, out)
		}
		t.Log(out)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("something was made for a target that can't be had")
	}

	// A drill.
	drill := c.host.command("verify", "db", "--level", "restore", "--scratch", c.scratch+"/drill", "--json")
	drill.Path, drill.Args[0] = c.program, c.program
	drill.Stderr = t.Output()
	out, err := drill.Output()
	if err != nil || !strings.Contains(string(out), `"amcheck"`) {
		t.Errorf("%v\n%s", err, out)
	}
	if list, err := os.ReadDir(c.scratch + "/drill"); err != nil || len(list) > 0 {
		t.Errorf("left: %v, %v", list, err)
	}

	// In place, over the server's own directory. While it runs that is refused.
	if code, out := c.restore("--at", at, "--in-place"); code == 0 || !strings.Contains(out, "a server runs on it") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	c.Server.Stop("fast")
	if code, out := c.restore("--at", at, "--in-place"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	c.Restart()
	if got := c.Psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept"); got != "1,2" {
		t.Errorf("in place: rows %s", got)
	}
	c.damage(t)

	// A newer snapshot does not lead to what is older.
	c.run("backup", "--postgres", c.DSN("postgres"), "--name", "db")
	named := filepath.Join(c.scratch, "named")
	if code, out := c.restore("--name", "good", "--to", named); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	if got := c.rows(named); got != "1,2" {
		t.Errorf("restore point: rows %s", got)
	}
	alone := filepath.Join(c.scratch, "alone")
	if code, out := c.restore("--to", alone); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	// Its timeline comes from all that were before, also where the log has no history of them.
	if text, err := os.ReadFile(filepath.Join(alone, "pg_wal", "00000003.history")); err != nil || !strings.HasPrefix(string(text), "1\t") || !strings.Contains(string(text), "\n2\t") {
		t.Errorf("%v\n%s", err, text)
	}
	if code, out := c.restore("--name", "bad", "--to", dir); code == 0 || !strings.Contains(out, `"good" of `) {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// damage alters the newest records of the log, then its head: nothing is restored without them, and it is said why.
func (c *clusterHost) damage(t *testing.T) {
	t.Helper()
	pieces, heads := c.log("/log/"), c.log("/head.json")
	if len(pieces) < 4 {
		t.Fatalf("%d records", len(pieces))
	}
	for _, path := range c.log("/joined/") {
		must(t, os.Remove(path))
	}
	dir := filepath.Join(c.scratch, "damaged")
	for _, path := range []string{pieces[len(pieces)*2/3], pieces[len(pieces)-1], heads[0]} {
		b, err := os.ReadFile(path) //nolint:gosec // of the test
		must(t, err)
		b[len(b)/2] ^= 1
		must(t, os.Chmod(path, 0o600))
		must(t, os.WriteFile(path, b, 0o600))
		code, out := c.restore("--at", "latest", "--to", dir)
		if code == 0 || !strings.Contains(out, "hint: ") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("a damaged log has made a cluster")
		}
		t.Log(out)
		// The hint names a moment before the damage that can be had.
		if _, at, ok := strings.Cut(out, "--at "); ok && path != heads[0] {
			at = strings.TrimRight(strings.Fields(at)[0], "`;")
			good := filepath.Join(c.scratch, "good-"+filepath.Base(path))
			if code, out := c.restore("--at", at, "--to", good); code != 0 {
				t.Errorf("--at %s: exit code %d\n%s", at, code, out)
			}
		} else if !ok {
			t.Errorf("no moment is named:\n%s", out)
		}
		b[len(b)/2] ^= 1
		must(t, os.WriteFile(path, b, 0o600))
	}
	c.gone(t, pieces[len(pieces)*2/3])
}

// gone takes a record out of the log: its end is not where the hole is, and a drill fails.
func (c *clusterHost) gone(t *testing.T, piece string) {
	t.Helper()
	dir, away := filepath.Join(c.scratch, "holed"), c.path("away")
	must(t, os.Rename(piece, away))
	for _, at := range []string{"latest", "2100-01-01 00:00:00+00"} {
		code, out := c.restore("--at", at, "--to", dir)
		if code == 0 || !strings.Contains(out, "of the log is missing") || !strings.Contains(out, "--at ") {
			t.Errorf("--at %s: exit code %d\n%s", at, code, out)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("a log with a hole has made a cluster")
		}
	}
	if code, out := c.try("verify", "db", "--level", "restore"); code == 0 || !strings.Contains(out, "FAIL") {
		t.Errorf("verify: exit code %d\n%s", code, out)
	}
	must(t, os.Rename(away, piece))
}

// TestWALFetch calls the command as a server does, and wrongly: only what is known not to be there has exit code 1.
func TestWALFetch(t *testing.T) {
	h := newHost(t, "")
	plan := h.path("plan.json")
	must(t, os.WriteFile(plan, []byte(`{"format":1,"system":1,"segment_size":1048576,"legs":[{"timeline":1,"begin":"0/0","end":"0/300000"}],"timelines":[2],"from":{"stream":"a","epoch":1,"sequence":0,"record":""},"target":{"kind":"latest"},"snapshot":"h/s@1"}`), 0o600))
	for _, c := range []struct {
		code int
		args []string
	}{
		{1, []string{"--plan", plan, "000000010000000000000003", h.path("to")}},
		{1, []string{"--plan", plan, "00000003.history", h.path("to")}},
		{126, []string{"--plan", plan, "00000002.history", h.path("to")}},
		{126, []string{"--plan", plan, "000000010000000000000001", h.path("to")}},
		{126, []string{"--plan", h.path("none"), "000000010000000000000003", h.path("to")}},
		{126, []string{"--plan", plan, "nonsense", h.path("to")}},
		{126, []string{"--plan", plan}},
		{126, []string{"--nothing"}},
		{126, nil},
	} {
		code, out := h.try(append([]string{"wal-fetch"}, c.args...)...)
		if code != c.code {
			t.Errorf("%q: exit code %d, want %d\n%s", c.args, code, c.code, out)
		}
	}
	if code, out := h.try("-r", h.path("nowhere"), "wal-fetch", "--bad"); code != 126 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	h.want(0, []string{"wal-fetch", "--help"}, "restore_command")
}

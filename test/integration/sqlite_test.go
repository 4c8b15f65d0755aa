package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/writer"
)

// sqlite3 runs statements in a process of its own, as an application would.
func sqlite3(t *testing.T, path, text string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sqlite3", "-bail", path, text).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %q: %v\n%s", text, err, out)
	}
	return string(out)
}

// backups is what `backup --json` prints.
type backups struct {
	Backups []struct {
		Snapshot string `json:"snapshot"`
		Counts   struct {
			Bytes      uint64 `json:"bytes"`
			AddedBytes uint64 `json:"added_bytes"`
		} `json:"counts"`
		Database struct {
			Mode     string `json:"mode"`
			PageSize int    `json:"page_size"`
			Pages    int    `json:"pages"`
		} `json:"database"`
	} `json:"backups"`
}

func (h *host) backup(args ...string) backups {
	h.t.Helper()
	cmd := h.command(append([]string{"backup", "--json"}, args...)...)
	cmd.Stderr = h.t.Output()
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("backup %q: %v\n%s", args, err, out)
	}
	var doc backups
	if err := json.Unmarshal(out, &doc); err != nil || len(doc.Backups) != 1 {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return doc
}

// TestDatabase takes a database through all commands.
func TestDatabase(t *testing.T) {
	h := newHost(t, "")
	h.run("init")
	db := h.path("app.db")
	sqlite3(t, db, `PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i, randomblob(3000) FROM n`)
	first := h.backup("--sqlite", db, "--name", "app")
	if b := first.Backups[0]; b.Database.PageSize != 4096 || b.Counts.Bytes != uint64(b.Database.Pages)*4096 || b.Counts.AddedBytes < 14<<20 {
		t.Errorf("%+v", b)
	}
	sqlite3(t, db, "UPDATE t SET x = randomblob(3000) WHERE id % 20 = 0")
	second := h.backup("--sqlite", db, "--name", "app")
	if b := second.Backups[0]; b.Counts.AddedBytes > 250*4096*5/4+200_000 {
		t.Errorf("%d bytes added for 250 pages", b.Counts.AddedBytes)
	}
	h.want(0, []string{"ls", "app"}, "app.db")
	h.want(0, []string{"find", "app", "*.db"}, db)
	h.want(0, []string{"diff", "app@1", "app@2"}, db)
	h.want(0, []string{"verify", "app", "--level", "content"})
	h.want(0, []string{"copy", "--to", h.path("copy")})
	h.want(0, []string{"verify", "app", "--level", "bytes", "-r", h.path("copy")})
	for _, number := range []string{"1", "2"} {
		out := h.path("cat-" + number + ".db")
		cmd := h.command("cat", "app@"+number, db)
		file, err := os.Create(out)
		must(t, err)
		cmd.Stdout = file
		must(t, cmd.Run())
		must(t, file.Close())
		if said := sqlite3(t, out, "PRAGMA integrity_check; SELECT count(*) FROM t"); said != "ok\n5000\n" {
			t.Errorf("snapshot %s: %s", number, said)
		}
	}
	h.want(0, []string{"prune", "app", "--keep-last", "1", "--force"})
	h.want(0, []string{"verify", "app", "--level", "content"})
}

// TestDatabaseBackupsAreKilled kills backups of a database that is written to all the time, and checks that a later one
// goes on with what has arrived, and is right.
func TestDatabaseBackupsAreKilled(t *testing.T) {
	h := newHost(t, "")
	h.run("init")
	dir := t.TempDir()
	db, notes := filepath.Join(dir, "app.db"), filepath.Join(dir, "notes")
	app := filepath.Join(dir, "app")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", app, "../writer/app").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, stop := context.WithCancel(t.Context())
	running := exec.CommandContext(ctx, app, "-db", db, "-notes", notes, "-rate", "200", "-cells", "60000", "-payload", "500", "-checkpoint", "truncate", "-every", "50")
	running.Stderr = t.Output()
	must(t, running.Start())
	defer func() {
		stop()
		_ = running.Wait()
	}()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if all, err := writer.Notes(notes); err == nil && len(all) > 10 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the application does nothing")
		}
	}
	for i := range 6 {
		cmd := h.command("backup", "--sqlite", db, "--name", "app")
		must(t, cmd.Start())
		time.Sleep(time.Duration(20+60*i) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	all, err := writer.Notes(notes)
	must(t, err)
	h.backup("--sqlite", db, "--name", "app")
	out := h.path("restored.db")
	file, err := os.Create(out)
	must(t, err)
	cmd := h.command("cat", "app@latest", db)
	cmd.Stdout = file
	must(t, cmd.Run())
	must(t, file.Close())
	n, err := writer.Check(t.Context(), out)
	if err != nil || n < all[len(all)-1].N {
		t.Errorf("%d transactions of at least %d: %v", n, all[len(all)-1].N, err)
	}
	h.want(0, []string{"verify", "app", "--level", "content"})
	left, err := filepath.Glob(filepath.Join(h.path("state"), "pages-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestAgentBacksUpDatabases has an agent that follows a schedule, with a pattern, and finds a database that is made later.
func TestAgentBacksUpDatabases(t *testing.T) {
	h := newHost(t, "")
	h.run("init")
	must(t, os.Mkdir(h.path("srv"), 0o700))
	sqlite3(t, h.path("srv/a.db"), "CREATE TABLE t(x)")
	policy := h.path("policy.yaml")
	must(t, os.WriteFile(policy, fmt.Appendf(nil, `version: 1
hosts:
  test:
    sources:
      tenants:
        sqlite: {glob: '%s/*.db'}
        schedule: {incremental: "* * * * *", jitter: 0s}
`, h.path("srv")), 0o600))
	h.want(0, []string{"agent", "--once", "--policy", policy}, "tenants.a.db")
	sqlite3(t, h.path("srv/b.db"), "CREATE TABLE t(x)")
	out := h.want(0, []string{"agent", "--once", "--policy", policy}, "tenants.b.db@1")
	if strings.Contains(out, "failed") {
		t.Error(out)
	}
	h.want(0, []string{"snapshots", "--policy", policy}, "tenants.a.db@1", "tenants.b.db@1")
}

package e2e_test

import (
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/btcdecoded/holdfast/test/cluster"
)

// databases has a database of SQLite and a cluster of PostgreSQL backed up by jobs, changed, and restored over the queue
// beside what is in use: what comes back is what was there at the backup, and opens.
func databases(w *world) {
	file := filepath.Join(w.root, "app.db")
	sqlite := func(path, sql string) string {
		w.t.Helper()
		out, err := exec.Command("sqlite3", "-batch", path, sql).CombinedOutput() //nolint:gosec // the test's own
		if err != nil {
			w.t.Fatalf("sqlite3 %s %s: %v\n%s", path, sql, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	sqlite(file, "PRAGMA journal_mode=WAL; CREATE TABLE t (i INTEGER PRIMARY KEY, s TEXT); "+
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, 'row ' || i FROM n")
	w.server.Psql("CREATE TABLE t AS SELECT i, 'row ' || i AS s FROM generate_series(1, 500) i")
	for _, source := range []string{"database", "cluster"} {
		id, body := w.backupJob(source, 1)
		w.send(body)
		if told := w.finished(id); told[0] != 1 {
			w.t.Fatalf("%s: snapshot %d", source, told[0])
		}
	}
	sqlite(file, "DELETE FROM t")
	w.server.Psql("DROP TABLE t")

	back := filepath.Join(w.root, "restored", "app.db")
	w.approved(host+"/database", back)
	if got := sqlite(back, "PRAGMA integrity_check; SELECT count(*), sum(i), max(s) FROM t"); got != "ok\n500|125250|row 99" {
		w.t.Errorf("the database came back with %q", got)
	}
	if got := sqlite(file, "SELECT count(*) FROM t"); got != "0" {
		w.t.Errorf("the one in use has %s rows", got)
	}

	data := filepath.Join(w.clusters, "data")
	w.approved(host+"/cluster", data)
	restored := cluster.Open(w.t, data, cluster.Options{})
	if got := restored.Psql("SELECT count(*), sum(i), max(s) FROM t"); got != "500|125250|row 99" {
		w.t.Errorf("the cluster came back with %q", got)
	}
}

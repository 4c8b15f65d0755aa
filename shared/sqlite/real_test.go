package sqlite

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	_ "modernc.org/sqlite"
)

// run executes statements on a database with one connection, which is closed at the end.
func run(t testing.TB, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// query returns the first column of the first row.
func query(t testing.TB, path, q string) string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var v sql.NullString
	if err := db.QueryRow(q).Scan(&v); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return v.String
}

// python is a process with the library of the system, which is another than the one in this process.
type python struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

const pythonLoop = `
import json, sqlite3, sys
db = None
for line in sys.stdin:
    try:
        path, statements = json.loads(line)
        if db is None:
            db = sqlite3.connect(path, isolation_level=None, uri=path.startswith("file:"))
        rows = [db.execute(s).fetchall() for s in statements]
        print(json.dumps(["", rows[-1] if rows else None]), flush=True)
    except Exception as e:
        print(json.dumps([str(e), None]), flush=True)
`

func startPython(t testing.TB) *python {
	t.Helper()
	p := &python{cmd: exec.Command(pythonPath(), "-c", pythonLoop)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = os.Stderr
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *python) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// run executes statements and returns the rows of the last.
func (p *python) run(t testing.TB, path string, statements ...string) string {
	t.Helper()
	b, err := json.Marshal([]any{path, statements})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(p.in, "%s\n", b); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		t.Fatal("python ended", p.out.Err())
	}
	var answer []any
	if err := json.Unmarshal(p.out.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if answer[0] != "" {
		t.Fatal(answer[0])
	}
	rows, err := json.Marshal(answer[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(rows)
}

// copyTo copies files of a database that nobody writes to.
func copyTo(t testing.TB, from, to string, suffixes ...string) {
	t.Helper()
	for _, s := range suffixes {
		if err := os.WriteFile(to+s, read(t, from+s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// logged makes a database whose log has the frames of a few transactions, and returns its path. The log is that of a
// process that was killed.
func logged(t testing.TB, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	p := startPython(t)
	all := append([]string{"PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)"}, statements...)
	p.run(t, path, all...)
	p.kill()
	return path
}

// pythonPath is a Python with the module sqlite3; the system's first, for a wrapper before it takes long to start.
var pythonPath = sync.OnceValue(func() string {
	for _, name := range []string{"/usr/bin/python3", "/usr/local/bin/python3", "python3"} {
		if exec.Command(name, "-c", "import sqlite3").Run() == nil {
			return name
		}
	}
	return "no-python3-with-the-module-sqlite3"
})

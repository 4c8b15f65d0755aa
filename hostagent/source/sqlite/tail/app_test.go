package tail

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/btcdecoded/holdfast/test/writer"
)

// test is what was asked for after -args.
var test struct {
	long bool
	seed uint64
}

// sample is how many of something a test takes: few, or with -long many.
func sample(few, many int) int {
	if test.long {
		return many
	}
	return few
}

// The application is always another process: in this one, closing a file would take its locks away.

func TestMain(m *testing.M) {
	switch os.Getenv("TAIL_TEST_APP") {
	case "sql":
		speak(os.Stdin, os.Stdout)
		return
	case "load":
		var c writer.Config
		err := json.Unmarshal([]byte(os.Getenv("TAIL_TEST_CONFIG")), &c)
		if err == nil {
			_, err = writer.Run(context.Background(), c)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "writer:", err)
			os.Exit(1)
		}
		return
	}
	flag.BoolVar(&test.long, "long", false, "histories and loads for minutes, and many of them")
	flag.Uint64Var(&test.seed, "seed", 1, "of the dice; 0: another one for each run")
	flag.Parse()
	if test.seed == 0 {
		test.seed = rand.Uint64() >> 32
	}
	fmt.Printf("tail: repeat with -args -seed %d\n", test.seed)
	// Most of the time is spent waiting for the applications' processes and for the disk, whatever the number of processors.
	parallel := false
	flag.Visit(func(f *flag.Flag) { parallel = parallel || f.Name == "test.parallel" })
	if !parallel {
		_ = flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}

// request is a line to an application: statements for one of its connections. None: the connection is closed.
type request struct {
	Connection int      `json:"connection"`
	Path       string   `json:"path"`
	Statements []string `json:"statements"`
}

type answer struct {
	Error string `json:"error"`
	Value string `json:"value"` // of the last statement: first row, joined by |
}

// speak is the application on this project's driver.
func speak(in io.Reader, out io.Writer) {
	connections := map[int]*sql.DB{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var r request
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			panic(err)
		}
		if err := serve(connections, r, &a); err != nil {
			a.Error = err.Error()
		}
		b, _ := json.Marshal(a)
		fmt.Fprintf(out, "%s\n", b)
	}
}

func serve(connections map[int]*sql.DB, r request, a *answer) error {
	db := connections[r.Connection]
	if len(r.Statements) == 0 {
		delete(connections, r.Connection)
		return db.Close()
	}
	if db == nil {
		var err error
		if db, err = sql.Open("sqlite", r.Path); err != nil {
			return err
		}
		db.SetMaxOpenConns(1)
		connections[r.Connection] = db
	}
	for _, s := range r.Statements {
		rows, err := db.Query(s)
		if err != nil {
			return err
		}
		a.Value = ""
		columns, _ := rows.Columns()
		values := make([]any, len(columns))
		for first := true; rows.Next(); first = false {
			if !first {
				continue
			}
			for i := range values {
				values[i] = new(sql.NullString)
			}
			if err := rows.Scan(values...); err != nil {
				return err
			}
			var texts []string
			for _, v := range values {
				texts = append(texts, v.(*sql.NullString).String)
			}
			a.Value = strings.Join(texts, "|")
		}
		if err := rows.Err(); err != nil {
			return err
		}
		rows.Close()
	}
	return nil
}

// foreign is the application on Python's sqlite3: the C library of the system. limit … is no SQL: it sets how large a file
// may become, in bytes.
const foreign = `
import json, resource, sqlite3, sys
connections = {}
for line in sys.stdin:
    r = json.loads(line)
    error, value = "", ""
    try:
        n = r["connection"]
        if not r["statements"]:
            connections.pop(n).close()
        for s in r["statements"] or []:
            if s.startswith("limit "):
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(s[6:]), resource.RLIM_INFINITY))
                continue
            if n not in connections:
                connections[n] = sqlite3.connect(r["path"], isolation_level=None, uri=r["path"].startswith("file:"), timeout=1)
            row = connections[n].execute(s).fetchall()[:1]
            value = "|".join("" if v is None else str(v) for v in row[0]) if row else ""
    except Exception as e:
        error = str(e)
    print(json.dumps({"error": error, "value": value}), flush=True)
`

// app is an application's process.
type app struct {
	t    testing.TB
	path string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	dead bool
}

const (
	own    = "modernc"
	python = "python"
)

func startApp(t testing.TB, library, path string) *app {
	t.Helper()
	var cmd *exec.Cmd
	if library == python {
		cmd = exec.Command(pythonPath(), "-c", foreign)
	} else {
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TAIL_TEST_APP=sql")
	}
	a := &app{t: t, path: path, cmd: cmd}
	var err error
	if a.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	a.out = bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		t.Fatalf("an application: %v", err)
	}
	t.Cleanup(a.kill)
	return a
}

func (a *app) kill() {
	if !a.dead {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	}
	a.dead = true
}

// try executes statements on a connection.
func (a *app) try(connection int, statements ...string) (string, error) {
	a.t.Helper()
	b, err := json.Marshal(request{connection, a.path, statements})
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(a.in, "%s\n", b); err != nil {
		a.t.Fatal(err)
	}
	if !a.out.Scan() {
		a.t.Fatal("the application ended: ", a.out.Err())
	}
	var r answer
	if err := json.Unmarshal(a.out.Bytes(), &r); err != nil {
		a.t.Fatal(err)
	}
	if r.Error != "" {
		return "", fmt.Errorf("%s", r.Error)
	}
	return r.Value, nil
}

// on executes statements on a connection and returns the first row of the last one.
func (a *app) on(connection int, statements ...string) string {
	a.t.Helper()
	v, err := a.try(connection, statements...)
	if err != nil {
		a.t.Fatalf("%v: %v", statements, err)
	}
	return v
}

// run executes statements on the first connection.
func (a *app) run(statements ...string) string {
	a.t.Helper()
	if len(statements) == 0 {
		return ""
	}
	return a.on(0, statements...)
}

func (a *app) close(connection int) { a.t.Helper(); a.on(connection) }

// add commits n rows, one transaction each.
func (a *app) add(n int) {
	a.t.Helper()
	statements := make([]string, n)
	for i := range statements {
		statements[i] = "INSERT INTO t(b) VALUES (hex(randomblob(300)))"
	}
	a.run(statements...)
}

// fill commits n rows in one transaction.
func (a *app) fill(n int) {
	a.t.Helper()
	a.run(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO t(b) SELECT hex(randomblob(300)) FROM n", n))
}

// libraries runs a test against both libraries.
func libraries(t *testing.T, f func(t *testing.T, library string)) {
	for _, l := range []string{own, python} {
		t.Run(l, func(t *testing.T) { f(t, l) })
	}
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

package sqlite_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/writer"
)

// What this program is if one of these is set: an application with a database, in a process of its own, as locks of SQLite
// belong to processes.
const (
	asWriter = "HOLDFAST_TEST_WRITER" // a writer.Config
	asSQL    = "HOLDFAST_TEST_SQL"    // path of the database; statements come in lines
)

func TestMain(m *testing.M) {
	ctx := context.Background()
	var err error
	switch {
	case os.Getenv(asWriter) != "":
		err = runWriter(ctx)
	case os.Getenv(asSQL) != "":
		err = serveSQL(ctx, os.Getenv(asSQL), os.Stdin, os.Stdout)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runWriter runs the application, again and again if it has an end: each time it opens and closes the database.
func runWriter(ctx context.Context) error {
	var c struct {
		writer.Config
		Again bool
	}
	if err := json.Unmarshal([]byte(os.Getenv(asWriter)), &c); err != nil {
		return err
	}
	for {
		if _, err := writer.Run(ctx, c.Config); err != nil || !c.Again {
			return err
		}
	}
}

// serveSQL runs each line on one connection, and answers each with a line.
func serveSQL(ctx context.Context, path string, in io.Reader, out io.Writer) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		answer := "ok"
		if _, err := db.ExecContext(ctx, lines.Text()); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Fprintln(out, answer)
	}
	return errors.Join(lines.Err(), db.Close())
}

// child starts this program as something else, and kills it in the end.
func child(t *testing.T, env string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$") //nolint:gosec // the test itself
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	t.Cleanup(func() { stop(cmd) })
	return cmd
}

func stop(cmd *exec.Cmd) {
	if cmd.Process != nil && cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// startWriter starts the application, and waits until it has committed something.
func startWriter(t *testing.T, c writer.Config, again bool) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(struct {
		writer.Config
		Again bool
	}{c, again})
	if err != nil {
		t.Fatal(err)
	}
	cmd := child(t, asWriter+"="+string(text))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if n := acknowledged(c.Notes); n > 3 {
			return cmd
		}
		if time.Now().After(end) {
			t.Fatal("the application does nothing")
		}
	}
}

// acknowledged is the last transaction that was.
func acknowledged(notes string) int64 {
	all, err := writer.Notes(notes)
	if err != nil || len(all) == 0 {
		return 0
	}
	return all[len(all)-1].N
}

// app is an application that does what it is told.
type app struct {
	t    *testing.T
	path string
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Reader
}

func startApp(t *testing.T, path string) *app {
	t.Helper()
	cmd := child(t, asSQL+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &app{t, path, cmd, in, bufio.NewReader(out)}
}

// try runs a statement, or several, and returns what is wrong.
func (a *app) try(text string) error {
	if _, err := fmt.Fprintln(a.in, strings.ReplaceAll(text, "\n", " ")); err != nil {
		return err
	}
	answer, err := a.out.ReadString('\n')
	if err != nil {
		return err
	}
	if answer != "ok\n" {
		return errors.New(strings.TrimSpace(answer))
	}
	return nil
}

func (a *app) run(text string) {
	a.t.Helper()
	if err := a.try(text); err != nil {
		a.t.Fatalf("%s: %v", text, err)
	}
}

// fill makes a table of n rows that all have the same value, each about a page long. The application does not wait for the
// disk, if the pragmas do not say so: it is not the machine that fails here.
func (a *app) fill(pragmas string, n, size int) {
	a.t.Helper()
	a.run("PRAGMA synchronous = OFF; " + pragmas + "; PRAGMA busy_timeout = 20000")
	a.run("CREATE TABLE cells(id INTEGER PRIMARY KEY, v INTEGER, data BLOB)")
	a.run(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) INSERT INTO cells SELECT i, 0, zeroblob(%d) FROM n", n, size))
}

// set gives all rows a value, in one transaction: all pages change.
func set(v int) string {
	return fmt.Sprintf("UPDATE cells SET v = %d", v)
}

// value returns the value that all rows of a copy have.
func value(t *testing.T, path string) int {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var said string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&said); err != nil || said != "ok" {
		t.Fatalf("integrity_check: %v %s", err, said)
	}
	var least, most int
	if err := db.QueryRowContext(t.Context(), "SELECT min(v), max(v) FROM cells").Scan(&least, &most); err != nil {
		t.Fatal(err)
	}
	if least != most {
		t.Fatalf("the copy has parts of the transactions %d to %d", least, most)
	}
	return least
}

// copied writes what was captured into a file of its own.
func copied(t *testing.T, s *pagedtest.Session) string {
	t.Helper()
	if len(s.Entries) != 1 {
		t.Fatalf("%d entries", len(s.Entries))
	}
	e := s.Entries[0]
	content, err := s.Content(e.Extents, e.Maps)
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(content)) != e.Size {
		t.Fatalf("%d bytes, the entry has %d", len(content), e.Size)
	}
	path := filepath.Join(t.TempDir(), "copy.db")
	// A copy that is marked as of WAL mode would get files beside it: they are none of ours.
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// capture captures with success.
func capture(t *testing.T, s *pagedtest.Session, o sqlite.Options) *sqlite.Result {
	t.Helper()
	return captureIn(t, s, o, nil)
}

// midst is a Progress that does something once, when the first region was read and before the next one is.
type midst func()

func (m *midst) Add(_, _, read uint64) {
	if fn := *m; read > 0 && fn != nil {
		*m = nil
		fn()
	}
}

func (*midst) Current(string) {}

// captureIn captures, and does something in the midst.
func captureIn(t *testing.T, s *pagedtest.Session, o sqlite.Options, fn midst) *sqlite.Result {
	t.Helper()
	if o.Temp == "" {
		o.Temp = t.TempDir()
	}
	r, err := sqlite.Capture(t.Context(), o, s, nil, &fn)
	if err != nil {
		t.Fatal(err)
	}
	if e := s.Entries[0]; e.Path != o.Path || r.Counts.Files != 1 || r.Counts.Bytes != e.Size || e.Size != uint64(r.PageSize)*uint64(r.Pages) {
		t.Errorf("%+v of %+v", r, e)
	}
	return r
}

// same reports whether two snapshots share their content.
func same(a, b *snapshot.Entry) bool {
	return bytes.Equal(snapshot.EncodeMap(a.Extents), snapshot.EncodeMap(b.Extents)) && len(a.Maps) == len(b.Maps)
}

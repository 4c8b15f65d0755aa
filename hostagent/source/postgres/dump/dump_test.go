package dump_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/dump"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
)

type silent struct{}

func (silent) Total(uint64, uint64)       {}
func (silent) Add(uint64, uint64, uint64) {}
func (silent) Current(string)             {}

// settings are those of a connection as dumps are told them.
func settings(s *cluster.Server, user, database string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s", s.Port, user, database)
}

// options dump what a server has.
func options(s *cluster.Server, session *pagedtest.Session, user string) dump.Options {
	connection := settings(s, user, "postgres")
	return dump.Options{
		Connection: connection,
		Connect: func(ctx context.Context, database string) (*pgconn.PgConn, error) {
			return pgconn.Connect(ctx, pgbin.Conninfo(connection, database))
		},
		Globals: true,
		ReadBack: func(_ context.Context, e *snapshot.Entry, w io.Writer) error {
			b, err := session.Content(e.Extents, e.Maps)
			if err == nil {
				_, err = w.Write(b)
			}
			return err
		},
	}
}

// text is words that compress as those of people do.
func text(r *rand.Rand, words int) string {
	list := strings.Fields("rule vote maintainer signature threshold proposal merge release quorum review tally ledger key rotation emergency veto")
	var b strings.Builder
	for range words {
		b.WriteString(list[r.IntN(len(list))] + " ")
	}
	return b.String()
}

// fill makes a table of some megabytes.
func fill(t *testing.T, s *cluster.Server, database string, rows int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	var b strings.Builder
	b.WriteString("CREATE TABLE decisions (id int PRIMARY KEY, body text NOT NULL, proof bytea);\nCOPY decisions FROM stdin;\n")
	for i := range rows {
		noise := make([]byte, 60)
		for j := range noise {
			noise[j] = byte(r.Uint32())
		}
		fmt.Fprintf(&b, "%d\t%s\t\\\\x%s\n", i, text(r, 40), hex.EncodeToString(noise))
	}
	b.WriteString("\\.\n")
	name := filepath.Join(s.Owner.Dir(t), "fill.sql")
	if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Run("psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", name)
}

func find(entries []*snapshot.Entry, path string) *snapshot.Entry {
	i := slices.IndexFunc(entries, func(e *snapshot.Entry) bool { return e.Path == path })
	if i < 0 {
		return nil
	}
	return entries[i]
}

func content(t *testing.T, s *pagedtest.Session, path string) []byte {
	t.Helper()
	e := find(s.Entries, path)
	if e == nil {
		t.Fatalf("no %s among %d entries", path, len(s.Entries))
	}
	b, err := s.Content(e.Extents, e.Maps)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAll dumps a server with all that belongs to it, and once more on the next day.
func TestAll(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	s.Psql(`CREATE ROLE app LOGIN PASSWORD 'not shown'`)
	s.Psql(`CREATE DATABASE governance OWNER app`)
	s.Psql(`CREATE DATABASE "a/b% c" TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'`)
	s.Psql(`CREATE DATABASE closed ALLOW_CONNECTIONS false`)
	s.Psql(`CREATE DATABASE governance_before_x`)
	s.Psql(`COMMENT ON DATABASE governance_before_x IS 'holdfast: set aside'`)
	s.Psql(`ALTER DATABASE governance SET search_path TO app, "$user", public`)
	s.Psql(`ALTER ROLE app IN DATABASE governance SET work_mem TO '8MB'`)
	s.Psql(`GRANT CONNECT ON DATABASE governance TO app WITH GRANT OPTION`)
	s.Psql(`COMMENT ON DATABASE governance IS 'it''s ours'`)
	s.Psql(`ALTER DATABASE governance CONNECTION LIMIT 77`)
	fill(t, s, "governance", 16_000)

	first := pagedtest.New()
	r, err := dump.Capture(t.Context(), options(s, first, "postgres"), first, silent{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems) > 0 || !r.Checked || r.Counts.Files != 5 || r.Counts.NewFiles != 5 || r.Counts.Errors != 0 {
		t.Errorf("%+v", r)
	}
	x, err := logical.ParseIndex(content(t, first, logical.IndexPath))
	if err != nil {
		t.Fatal(err)
	}
	if got := x.Names(); !slices.Equal(got, []string{"a/b% c", "governance", "postgres"}) || x.Major != s.Version || x.Default != "postgres" || !x.Passwords {
		t.Errorf("%q %+v", got, x)
	}
	g, _ := x.Find("governance")
	if g.Owner != "app" || g.Limit != 77 || g.Comment != "it's ours" || g.Grants == nil || len(g.Settings) != 2 ||
		g.Settings[0].Value != `search_path=app, "$user", public` || g.Settings[1].Role != "app" || g.Size == 0 || g.Entries < 2 {
		t.Errorf("%+v", g)
	}
	if other, _ := x.Find("a/b% c"); other.Path != "/postgres/a%2Fb%25 c.dump" || other.Encoding != "SQL_ASCII" || other.Grants != nil {
		t.Errorf("%+v", other)
	}
	globals := string(content(t, first, logical.GlobalsPath))
	if !strings.Contains(globals, "CREATE ROLE app") || !strings.Contains(globals, "SCRAM-SHA-256$") || strings.Contains(globals, "not shown") {
		t.Error(globals)
	}
	if b := content(t, first, g.Path); !bytes.HasPrefix(b, []byte("PGDMP")) || uint64(len(b)) != g.Bytes {
		t.Errorf("a dump of %d bytes, the index says %d", len(b), g.Bytes)
	}

	// The next day: some rows changed, some new.
	s.PsqlIn("governance", `UPDATE decisions SET body = body || 'changed' WHERE id % 4000 = 7; INSERT INTO decisions SELECT id + 1000000, body, proof FROM decisions WHERE id < 50`)
	second := first.Child(first.Captured())
	if r, err = dump.Capture(t.Context(), options(s, second, "postgres"), second, silent{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("first %d bytes, second adds %d", first.Added(), second.Added())
	if second.Added()*4 > first.Added() || r.Counts.NewFiles != 0 || r.Counts.ChangedFiles != 5 {
		t.Errorf("the dump of the next day added %d bytes to %d", second.Added(), first.Added())
	}
}

// TestServer does what needs no server of its own.
func TestServer(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	for _, tt := range []struct {
		name string
		test func(*testing.T, *cluster.Server)
	}{{"list", testList}, {"rights", testRights}, {"not whole", testNotWhole}, {"only writing", testOnlyWriting}} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, s) })
	}
}

// testList dumps what is named, and names what is not there.
func testList(t *testing.T, s *cluster.Server) {
	s.Psql(`CREATE DATABASE one`)
	session := pagedtest.New()
	o := options(s, session, "postgres")
	o.Databases, o.Globals = []string{"one", "gone"}, false
	r, err := dump.Capture(t.Context(), o, session, silent{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems) != 1 || !strings.Contains(string(r.Problems[0].Path), "gone") || !slices.Equal(r.Index.Names(), []string{"one"}) ||
		r.Index.Globals != "" || r.Counts.Errors != 1 {
		t.Errorf("%+v", r)
	}
	o.Databases = []string{"gone"}
	_, err = dump.Capture(t.Context(), o, pagedtest.New(), silent{})
	var e *dump.Error
	if !errors.As(err, &e) || e.Database != "gone" {
		t.Error(err)
	}
}

// TestOldPrograms: no pg_dump may be older than the server.
func TestOldPrograms(t *testing.T) {
	versions := cluster.Versions(t)
	s := cluster.Start(t, cluster.Options{Version: versions[len(versions)-1]})
	session := pagedtest.New()
	o := options(s, session, "postgres")
	o.Bin = filepath.Dir(cluster.Bin(t, cluster.System(t), "pg_dump"))
	_, err := dump.Capture(t.Context(), o, session, silent{})
	var e *dump.Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), fmt.Sprintf("the server is PostgreSQL %d", s.Version)) || e.Hint() == "" || len(session.Entries) > 0 {
		t.Error(err)
	}
}

// testRights dumps with a role that may read all, and with one that may not.
func testRights(t *testing.T, s *cluster.Server) {
	s.Psql(`CREATE ROLE backup LOGIN; GRANT pg_read_all_data TO backup; CREATE ROLE nobody LOGIN`)
	s.Psql(`CREATE DATABASE app`)
	s.PsqlIn("app", `CREATE TABLE secret (x int); INSERT INTO secret VALUES (1)`)
	session := pagedtest.New()
	r, err := dump.Capture(t.Context(), options(s, session, "backup"), session, silent{})
	if err != nil || len(r.Problems) > 0 || r.Index.Globals == "" {
		t.Fatalf("%v %+v", err, r)
	}
	session = pagedtest.New()
	o := options(s, session, "nobody")
	o.Databases = []string{"app", "postgres"}
	var notes []string
	o.Note = func(text string) { notes = append(notes, text) }
	r, err = dump.Capture(t.Context(), o, session, silent{})
	if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error, "permission denied for table secret") {
		t.Fatalf("%v %+v", err, r)
	}
	if r.Index.Passwords || r.Index.Globals == "" || len(notes) != 1 {
		t.Errorf("%+v %q", r.Index, notes)
	}
	o.Databases = []string{"app"}
	_, err = dump.Capture(t.Context(), o, pagedtest.New(), silent{})
	var e *dump.Error
	if !errors.As(err, &e) || !strings.Contains(errorHint(err), "pg_read_all_data") {
		t.Error(err)
	}
}

func errorHint(err error) string {
	var e *dump.Error
	if errors.As(err, &e) {
		return e.Hint()
	}
	return ""
}

// program writes a program of the name that runs a script, in a directory with the real others.
func program(t *testing.T, name, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, real := range []string{"pg_dump", "pg_restore", "pg_dumpall"} {
		path := cluster.Bin(t, cluster.System(t), real)
		if real == name {
			script = strings.ReplaceAll(script, "REAL", path)
			if err := os.WriteFile(filepath.Join(dir, real), []byte("#!/bin/sh\n[ \"$1\" = --version ] && exec "+path+" --version\n"+script), 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.Symlink(path, filepath.Join(dir, real)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// testNotWhole: what is cut off, garbled or altered in the repository is never a snapshot.
func testNotWhole(t *testing.T, s *cluster.Server) {
	s.PsqlIn("app", `CREATE TABLE x AS SELECT generate_series(1, 1000) AS id`)
	for name, c := range map[string]struct {
		program, script, want string
		readBack              func(b []byte) []byte
	}{
		"cut off, and said so":  {program: "pg_dump", script: `REAL "$@" | head -c 3000; echo "pg_dump: error: server closed the connection" >&2; exit 1`, want: "server closed the connection"},
		"killed":                {program: "pg_dump", script: `REAL "$@" | head -c 3000; kill -9 $$`, want: "killed"},
		"no dump":               {program: "pg_dump", script: `echo hello`, want: "can't be restored"},
		"nothing":               {program: "pg_dump", script: `exit 0`, want: "can't be restored"},
		"altered when stored":   {readBack: func(b []byte) []byte { b[3] ^= 1; return b }, want: "not what pg_dump wrote"},
		"cut off when stored":   {readBack: func(b []byte) []byte { return b[:len(b)/50] }, want: "not what pg_dump wrote"},
		"empty when stored":     {readBack: func([]byte) []byte { return nil }, want: "not what pg_dump wrote"},
		"another one is stored": {readBack: func([]byte) []byte { return dumpOf(t, s, "postgres") }, want: "not what pg_dump wrote"},
	} {
		t.Run(name, func(t *testing.T) {
			session := pagedtest.New()
			o := options(s, session, "postgres")
			o.Databases = []string{"app"}
			if c.program != "" {
				o.Bin = program(t, c.program, c.script)
			} else {
				o.ReadBack = func(_ context.Context, e *snapshot.Entry, w io.Writer) error {
					b, err := session.Content(e.Extents, e.Maps)
					if err == nil {
						_, err = w.Write(c.readBack(b))
					}
					return err
				}
			}
			_, err := dump.Capture(t.Context(), o, session, silent{})
			if err == nil || !strings.Contains(err.Error(), c.want) || len(session.Entries) > 0 {
				t.Errorf("%v, %d entries", err, len(session.Entries))
			}
		})
	}
}

func dumpOf(t *testing.T, s *cluster.Server, database string) []byte {
	t.Helper()
	name := filepath.Join(s.Owner.Dir(t), "dump")
	s.Run("pg_dump", "-Fc", "-Z0", "-f", name, database)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testOnlyWriting: a host that may not read is told so, and its dumps are checked as they are sent.
func testOnlyWriting(t *testing.T, s *cluster.Server) {
	session := pagedtest.New()
	o := options(s, session, "postgres")
	o.ReadBack = func(context.Context, *snapshot.Entry, io.Writer) error { return dump.ErrNoReading }
	notes := 0
	o.Note = func(string) { notes++ }
	r, err := dump.Capture(t.Context(), o, session, silent{})
	if err != nil || r.Checked || notes != 1 {
		t.Errorf("%v %+v %d", err, r, notes)
	}
}

// TestStopped ends the server between two dumps: the first is there and whole, the second is named, and so are the roles. (Amid
// one, sockets may hold all the rest of it.)
func TestStopped(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	s.Psql(`CREATE DATABASE app`)
	session := pagedtest.New()
	var stop sync.Once
	session.Stored = func(snapshot.Kind, []byte) error {
		stop.Do(func() { s.Stop("immediate") })
		return nil
	}
	o := options(s, session, "postgres")
	o.Databases = []string{"app", "postgres"}
	r, err := dump.Capture(t.Context(), o, session, silent{})
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, p := range r.Problems {
		named = append(named, string(p.Path))
	}
	if want := []string{logical.PathOf("postgres"), logical.GlobalsPath}; !slices.Equal(named, want) || r.Counts.Errors != 2 {
		t.Errorf("%q, %+v", named, r.Problems)
	}
	if !slices.Equal(r.Index.Names(), []string{"app"}) || r.Index.Globals != "" || find(session.Entries, logical.PathOf("postgres")) != nil {
		t.Errorf("%+v", r.Index)
	}
	if b := content(t, session, logical.PathOf("app")); !bytes.HasPrefix(b, []byte("PGDMP")) {
		t.Errorf("a dump of %d bytes", len(b))
	}
	// None at all is an error, and no snapshot.
	session = pagedtest.New()
	if _, err := dump.Capture(t.Context(), options(s, session, "postgres"), session, silent{}); err == nil || len(session.Entries) > 0 {
		t.Error("a server that does not run is dumped")
	}
}

package dump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	source "github.com/btcdecoded/holdfast/hostagent/source/postgres/dump"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/test/cluster"
)

type silent struct{}

func (silent) Total(uint64, uint64)       {}
func (silent) Add(uint64, uint64, uint64) {}
func (silent) Current(string)             {}

const schema = `
CREATE ROLE app LOGIN;
CREATE DATABASE governance OWNER app;
ALTER DATABASE governance SET search_path TO gov, "$user", public;
GRANT CONNECT ON DATABASE governance TO app;
REVOKE CONNECT ON DATABASE governance FROM PUBLIC;
COMMENT ON DATABASE governance IS 'ours';
`

const content = `
CREATE SCHEMA gov AUTHORIZATION app;
SET ROLE app;
CREATE TYPE gov.vote AS ENUM ('yes', 'no');
CREATE TABLE gov.maintainers (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE gov.votes (id serial PRIMARY KEY, by int NOT NULL REFERENCES gov.maintainers, what gov.vote NOT NULL);
CREATE TABLE public.notes (x text);
CREATE MATERIALIZED VIEW gov.counts AS SELECT count(*) FROM gov.votes;
INSERT INTO gov.maintainers SELECT i, 'maintainer ' || i FROM generate_series(1, 50) i;
INSERT INTO gov.votes (by, what) SELECT 1 + i % 50, 'yes' FROM generate_series(1, 5000) i;
INSERT INTO public.notes VALUES ('a note');
`

// world is a server with a database and its dump.
type world struct {
	*cluster.Server
	dumps   []Dump
	globals string
}

// sum is a checksum of what the database holds.
const sum = `SELECT (SELECT md5(string_agg(m::text, ',' ORDER BY id)) FROM gov.maintainers m) || (SELECT md5(string_agg(v::text, ',' ORDER BY id)) FROM gov.votes v) || (SELECT count(*) FROM public.notes)`

func connection(s *cluster.Server, user string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres", s.Port, user)
}

func connector(settings string) func(ctx context.Context, database string) (*pgconn.PgConn, error) {
	return func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		return pgconn.Connect(ctx, pgbin.Conninfo(settings, database))
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Server: cluster.Start(t, cluster.Options{Config: map[string]string{"max_prepared_transactions": "4"}})}
	w.Psql(schema)
	w.PsqlIn("governance", content)
	w.dumps, w.globals = dumped(t, w.Server, "governance")
	return w
}

// dumped dumps databases as backups do.
func dumped(t *testing.T, s *cluster.Server, databases ...string) (dumps []Dump, globals string) {
	t.Helper()
	session := pagedtest.New()
	settings := connection(s, "postgres")
	r, err := source.Capture(t.Context(), source.Options{Connection: settings, Connect: connector(settings), Databases: databases, Globals: true}, session, silent{})
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) []byte {
		for _, e := range session.Entries {
			if e.Path == path {
				b, err := session.Content(e.Extents, e.Maps)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
		}
		t.Fatal("no ", path)
		return nil
	}
	for _, d := range r.Index.Databases {
		b := read(d.Path)
		dumps = append(dumps, Dump{Database: d, Reader: r.Index.Wanted, Write: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(b)
			return err
		}})
	}
	return dumps, string(read(logical.GlobalsPath))
}

func (w *world) options(user string) Options {
	settings := connection(w.Server, user)
	return Options{Connection: settings, Connect: connector(settings), Source: "h/governance-dump"}
}

// databases are the names of all databases.
func (w *world) databases() []string {
	return strings.Fields(w.Psql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1"))
}

// lose is the mistake after which the dump is needed.
func (w *world) lose() {
	w.PsqlIn("governance", "DELETE FROM gov.votes; DELETE FROM gov.maintainers WHERE id > 3; CREATE TABLE gov.later (x int)")
}

// TestProduction restores beside a server's databases, and over them.
func TestProduction(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"beside", testBeside},
		{"selection", testSelection},
		{"cut off", testCutOff},
		{"patient", testPatient},
		{"rights", testRights},
		{"held", testHeld},
		{"in place", testInPlace},
		{"faults", testFaults},
		{"unwell", testUnwell},
	} {
		w.reset(t)
		t.Run(tt.name, func(t *testing.T) { tt.test(t, w) })
	}
}

// reset makes all as it was dumped.
func (w *world) reset(t *testing.T) {
	t.Helper()
	if _, err := InPlace(t.Context(), w.dumps, w.options("postgres")); err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(w.Psql("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname NOT IN ('governance', 'postgres')")) {
		w.Psql("DROP DATABASE " + logical.Identifier(strings.TrimSuffix(name, "\n")) + " WITH (FORCE)")
	}
}

// testPatient connects as a role whose statements may take little time, and may not write: a restore is neither.
func testPatient(t *testing.T, w *world) {
	conn, err := patient(connector(connection(w.Server, "postgres")+" options='-c statement_timeout=30s -c default_transaction_read_only=on'"))(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	got, err := rows(t.Context(), conn, "SELECT current_setting('statement_timeout'), current_setting('default_transaction_read_only')")
	if err != nil || got[0][0] != "0" || got[0][1] != "off" {
		t.Errorf("%v, %v", got, err)
	}
}

func testBeside(t *testing.T, w *world) {
	want := w.PsqlIn("governance", sum)
	w.lose()
	for _, jobs := range []int{1, 3} {
		o := w.options("postgres")
		o.Jobs, o.Temp = jobs, t.TempDir()
		name := fmt.Sprintf("recovery_%d", jobs)
		proven := ""
		o.Prove = func(ctx context.Context, database, here string) error {
			proven = database
			if !strings.HasPrefix(here, newPrefix) {
				t.Errorf("%q is proven", here)
			}
			return nil
		}
		r, err := Beside(t.Context(), w.dumps[0], name, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.PsqlIn(name, sum); got != want || proven != "governance" || len(r.Warnings) > 0 || r.Bytes != w.dumps[0].Bytes {
			t.Errorf("%s: %s, want %s; %+v", name, got, want, r)
		}
		got := w.Psql(`SELECT pg_get_userbyid(datdba), datacl, (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = '` + name + `'`)
		old := w.Psql(`SELECT pg_get_userbyid(datdba), datacl, (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = 'governance'`)
		if got != old {
			t.Errorf("made as %s, was %s", got, old)
		}
		if left, _ := os.ReadDir(o.Temp); len(left) > 0 {
			t.Errorf("%v is left", left)
		}
		if _, err = Beside(t.Context(), w.dumps[0], name, o); !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	if got := w.databases(); len(got) != 4 {
		t.Errorf("%q", got)
	}
}

// visitor is an application that comes again whenever it is sent away.
func (w *world) visitor(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			conn, err := pgconn.Connect(ctx, w.DSN("governance"))
			for err == nil {
				_, err = conn.Exec(ctx, "SELECT pg_sleep(0.01)").ReadAll()
			}
			if conn != nil {
				_ = conn.Close(context.Background())
			}
		}
	}()
	return func() { cancel(); <-done }
}

// steps records what the hooks are called for.
type told struct {
	mu  sync.Mutex
	all []string
}

func (s *told) hook(name string, err *error) func(context.Context) error {
	return func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all = append(s.all, name)
		if err == nil {
			return nil
		}
		return *err
	}
}

func testInPlace(t *testing.T, w *world) {
	want := w.PsqlIn("governance", sum)
	w.lose()
	lost := w.PsqlIn("governance", "SELECT count(*) FROM gov.votes")
	stop := w.visitor(t)
	var called told
	o := w.options("postgres")
	o.Jobs = 2
	o.Stop, o.Start, o.Healthy = called.hook("stop", nil), called.hook("start", nil), called.hook("health", nil)
	r, err := InPlace(t.Context(), w.dumps, o)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	if got := w.PsqlIn("governance", sum); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !slices.Equal(called.all, []string{"stop", "start", "health"}) {
		t.Errorf("%q", called.all)
	}
	safety := r.Databases[0].Safety
	if got := w.PsqlIn(safety, "SELECT count(*) FROM gov.votes"); got != lost || !strings.HasPrefix(safety, "governance_before_") {
		t.Errorf("%s has %s", safety, got)
	}
	if got := w.Psql("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'governance'"); got != "ours" {
		t.Error(got)
	}
	if got := w.databases(); !slices.Equal(got, []string{"governance", safety, "postgres"}) {
		t.Errorf("%q", got)
	}
	// A dump of all does not have the safety copy.
	if all, _ := dumped(t, w.Server); len(all) != 2 {
		t.Errorf("%d databases are dumped", len(all))
	}
	// Dropped altogether, it comes back as well.
	w.Psql("DROP DATABASE governance")
	if r, err = InPlace(t.Context(), w.dumps, w.options("postgres")); err != nil || r.Databases[0].Safety != "" {
		t.Fatal(err, r)
	}
	if got := w.PsqlIn("governance", sum); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// testFaults lets each step fail: all is as it was, or all is done.
func testFaults(t *testing.T, w *world) {
	want := w.PsqlIn("governance", sum)
	w.lose()
	lost := w.PsqlIn("governance", sum)
	broken := errors.New("broken")
	for _, step := range []string{StepPrepare, StepFetch, StepRestore, StepAnalyze, StepProve, StepStop, StepExchange, "commit", StepStart, StepHealth} {
		t.Run(step, func(t *testing.T) {
			var called told
			o := w.options("postgres")
			o.Jobs = 2
			o.Stop, o.Start, o.Healthy = called.hook("stop", nil), called.hook("start", nil), called.hook("health", nil)
			o.Prove = func(context.Context, string, string) error { return nil }
			failed := false
			o.fault = func(at string) error {
				if at == step && !failed {
					failed = true
					return broken
				}
				return nil
			}
			_, err := InPlace(t.Context(), w.dumps, o)
			var e *StepError
			if !errors.As(err, &e) || !errors.Is(err, broken) || e.Back != nil {
				t.Fatal(err)
			}
			if got := w.PsqlIn("governance", sum); got != lost {
				t.Errorf("%s, was %s", got, lost)
			}
			if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
				t.Errorf("%q", got)
			}
			if got := w.Psql("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'governance'"); got != "ours" {
				t.Error(got)
			}
			if n := len(called.all); slices.Contains(called.all, "stop") && called.all[n-1] != "start" {
				t.Errorf("stopped for ever: %q", called.all)
			}
		})
	}
	// The answer to the commit is lost: it has happened.
	o := w.options("postgres")
	o.fault = func(at string) error {
		if at == "committed" {
			return broken
		}
		return nil
	}
	r, err := InPlace(t.Context(), w.dumps, o)
	if err != nil || len(r.Warnings) != 1 {
		t.Fatal(err, r)
	}
	if got := w.PsqlIn("governance", sum); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// testUnwell: an application that is not well with the new database gets the old one back.
func testUnwell(t *testing.T, w *world) {
	w.lose()
	lost := w.PsqlIn("governance", sum)
	unwell := errors.New("not well")
	for name, set := range map[string]func(o *Options, s *told){
		"health": func(o *Options, s *told) { o.Healthy = s.hook("health", &unwell) },
		"start": func(o *Options, s *told) {
			first := true
			o.Start = func(ctx context.Context) error {
				err := s.hook("start", nil)(ctx)
				if first {
					first, err = false, unwell
				}
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var called told
			o := w.options("postgres")
			o.Stop, o.Start = called.hook("stop", nil), called.hook("start", nil)
			set(&o, &called)
			stop := w.visitor(t)
			_, err := InPlace(t.Context(), w.dumps, o)
			stop()
			var e *StepError
			if !errors.As(err, &e) || !errors.Is(err, unwell) || e.Back != nil || e.Start != nil {
				t.Fatal(err)
			}
			if got := w.PsqlIn("governance", sum); got != lost {
				t.Errorf("%s, was %s", got, lost)
			}
			if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
				t.Errorf("%q", got)
			}
			if n := len(called.all); called.all[n-1] != "start" {
				t.Errorf("%q", called.all)
			}
		})
	}
	// Where there was no database, there is none again.
	w.Psql("DROP DATABASE governance")
	o := w.options("postgres")
	o.Healthy = func(context.Context) error { return unwell }
	if _, err := InPlace(t.Context(), w.dumps, o); !errors.Is(err, unwell) {
		t.Error(err)
	}
	if got := w.databases(); !slices.Equal(got, []string{"postgres"}) {
		t.Errorf("%q", got)
	}
}

// testCutOff: of a dump that is not whole nothing stays.
func testCutOff(t *testing.T, w *world) {
	whole := w.dumps[0].Write
	broken := errors.New("broken")
	var text bytes.Buffer
	if err := whole(t.Context(), &text); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(ctx context.Context, w io.Writer) error{
		"ends early": func(_ context.Context, w io.Writer) error {
			_, err := w.Write(text.Bytes()[:text.Len()*3/4])
			return err
		},
		"fails": func(_ context.Context, w io.Writer) error {
			_, err := w.Write(text.Bytes()[:text.Len()*3/4])
			return errors.Join(err, broken)
		},
		"no dump": func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, "hello")
			return err
		},
	} {
		for _, jobs := range []int{1, 2} {
			d := w.dumps[0]
			d.Write = write
			o := w.options("postgres")
			o.Jobs = jobs
			if _, err := Beside(t.Context(), d, "beside", o); err == nil || name == "fails" && !errors.Is(err, broken) {
				t.Errorf("%s with %d jobs: %v", name, jobs, err)
			}
			if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
				t.Errorf("%q", got)
			}
		}
	}
}

func testSelection(t *testing.T, w *world) {
	for _, jobs := range []int{1, 2} {
		o := w.options("postgres")
		o.Jobs = jobs
		o.Select = &Selection{Tables: []string{"gov.vot*"}}
		name := fmt.Sprintf("votes%d", jobs)
		if _, err := Beside(t.Context(), w.dumps[0], name, o); err != nil {
			t.Fatal(err)
		}
		got := w.PsqlIn(name, "SELECT (SELECT count(*) FROM gov.votes), (SELECT count(*) FROM gov.maintainers), (SELECT count(*) FROM notes)")
		if got != "5000|0|0" {
			t.Error(got)
		}
	}
	o := w.options("postgres")
	o.Select = &Selection{Schemas: []string{"public"}}
	if _, err := Beside(t.Context(), w.dumps[0], "public", o); err != nil {
		t.Fatal(err)
	}
	if got := w.PsqlIn("public", "SELECT (SELECT count(*) FROM gov.votes), (SELECT count(*) FROM notes)"); got != "0|1" {
		t.Error(got)
	}
	o.Select = &Selection{Tables: []string{"gone", "notes"}}
	if _, err := Beside(t.Context(), w.dumps[0], "none", o); !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), "gone") || strings.Contains(err.Error(), "notes") {
		t.Error(err)
	}
	if (&Selection{Tables: []string{"["}}).Check() == nil || (&Selection{Schemas: []string{""}}).Check() == nil {
		t.Error("no patterns are taken")
	}
}

func TestFilter(t *testing.T) {
	const toc = `;
; Archive created at 2026-01-01 00:00:00 UTC
;
3214; 0 16402 TABLE DATA public two words postgres
3215; 0 16403 TABLE DATA app events_1 app
3216; 0 16404 TABLE DATA app events_2 app
217; 1259 16404 TABLE app events_2 app
3217; 2606 16405 FK CONSTRAINT app events_2 events_fk app
3218; 0 16405 SEQUENCE SET app s app
3219; 0 0 BLOBS - BLOBS 
`
	list, missing := (&Selection{Tables: []string{"app.events_[2]", "two words", "x.y"}}).filter(toc)
	want := "3214; 0 16402 TABLE DATA public two words postgres\n3216; 0 16404 TABLE DATA app events_2 app\n217; 1259 16404 TABLE app events_2 app\n3218; 0 16405 SEQUENCE SET app s app\n"
	if list != want || !slices.Equal(missing, []string{"x.y"}) {
		t.Errorf("%s%q", list, missing)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("3214; 0 16402 TABLE DATA public two words postgres\n", "two*")
	f.Fuzz(func(t *testing.T, toc, pattern string) {
		list, _ := (&Selection{Tables: []string{pattern}}).filter(toc)
		if again, _ := (&Selection{Tables: []string{pattern}}).filter(list); again != list {
			t.Errorf("%q becomes %q", list, again)
		}
	})
}

// TestRoles restores to a server that knows none of the roles.
func TestRoles(t *testing.T) {
	w := newWorld(t)
	want := w.PsqlIn("governance", sum)
	other := &world{Server: cluster.Start(t, cluster.Options{})}
	o := other.options("postgres")
	_, err := Beside(t.Context(), w.dumps[0], "governance", o)
	var e *StepError
	if !errors.As(err, &e) || !strings.Contains(e.Hint(), "--globals") || !strings.Contains(err.Error(), "role app") {
		t.Fatal(err)
	}
	o.NoOwner = true
	if _, err = Beside(t.Context(), w.dumps[0], "mine", o); err != nil {
		t.Fatal(err)
	}
	if got := other.Psql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'mine'"); got != "postgres" {
		t.Error(got)
	}
	g, err := Globals(t.Context(), o.Connect, w.globals+"GRANT nobody TO app;\n")
	if err != nil || !slices.Equal(g.Roles, []string{"app"}) || len(g.Warnings) != 1 {
		t.Fatal(err, g)
	}
	if g, err = Globals(t.Context(), o.Connect, w.globals); err != nil || len(g.Roles) > 0 {
		t.Fatal(err, g)
	}
	o.NoOwner = false
	if _, err = InPlace(t.Context(), w.dumps, o); err != nil {
		t.Fatal(err)
	}
	if got := other.PsqlIn("governance", sum); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := Globals(t.Context(), o.Connect, "a 'b"); err == nil {
		t.Error("half a script is taken")
	}
}

// testRights: who may not is told so before anything is done.
func testRights(t *testing.T, w *world) {
	w.Psql("CREATE ROLE weak LOGIN")
	w.Psql("CREATE ROLE maker LOGIN CREATEDB")
	for role, want := range map[string]string{"weak": "CREATEDB", "maker": "--service"} {
		_, err := InPlace(t.Context(), w.dumps, w.options(role))
		var e *StepError
		if !errors.As(err, &e) || !errors.Is(err, ErrRights) || !strings.Contains(e.Hint(), want) || e.Step != StepPrepare {
			t.Errorf("%s: %v", role, err)
		}
	}
	if _, err := InPlace(t.Context(), []Dump{{Database: logical.Database{Properties: logical.Properties{Name: "postgres"}}}}, w.options("postgres")); err == nil {
		t.Error("the maintenance database is restored in place")
	}
	if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
		t.Errorf("%q", got)
	}
}

// testHeld: what keeps the names from being exchanged leaves all as it was.
func testHeld(t *testing.T, w *world) {
	w.PsqlIn("governance", "BEGIN; UPDATE gov.maintainers SET name = 'x' WHERE id = 1; PREPARE TRANSACTION 'held'")
	_, err := InPlace(t.Context(), w.dumps, w.options("postgres"))
	var e *StepError
	if !errors.As(err, &e) || e.Step != StepExchange {
		t.Fatal(err)
	}
	if got := w.databases(); !slices.Equal(got, []string{"governance", "postgres"}) {
		t.Errorf("%q", got)
	}
	w.PsqlIn("governance", "COMMIT PREPARED 'held'")
	// Two restores at once are one too many.
	o := w.options("postgres")
	o.Prove = func(ctx context.Context, _, _ string) error {
		if _, err := Beside(ctx, w.dumps[0], "second", w.options("postgres")); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		return nil
	}
	if _, err = InPlace(t.Context(), w.dumps, o); err != nil {
		t.Fatal(err)
	}
}

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
		// Its sessions end when the server notices.
		for w.Psql("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'holdfast%' OR query LIKE '%advisory%' AND pid <> pg_backend_pid()") != "0" {
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

func TestErrorTexts(t *testing.T) {
	e := failed(StepHealth, "a", errors.New("one"))
	e.Start, e.Back = errors.New("two"), errors.New("three")
	if got := e.Error(); got != "health database a: one; and the old databases could not be put back: three; and what was stopped could not be started: two" {
		t.Error(got)
	}
	for _, one := range []error{e.Err, e.Start, e.Back} {
		if !errors.Is(e, one) {
			t.Errorf("it is not %v", one)
		}
	}
}

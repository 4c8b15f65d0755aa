package dump

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

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

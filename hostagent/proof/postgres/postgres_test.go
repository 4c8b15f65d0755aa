package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/proof/postgres"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/test/cluster"
)

func connector(s *cluster.Server) func(context.Context, string) (*pgconn.PgConn, error) {
	return func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		if database == "" {
			database = "postgres"
		}
		return pgconn.Connect(ctx, s.DSN(database))
	}
}

func TestProve(t *testing.T) {
	for _, v := range cluster.Versions(t) {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			t.Parallel()
			s := cluster.Start(t, cluster.Options{Version: v})
			s.Psql("CREATE DATABASE app")
			in := func(sql string) {
				t.Helper()
				s.Run("psql", "-d", s.DSN("app"), "-v", "ON_ERROR_STOP=1", "-qc", sql)
			}
			in("CREATE TABLE people (id int PRIMARY KEY, name text); INSERT INTO people SELECT i, md5(i::text) FROM generate_series(1, 5000) i")
			in("CREATE INDEX names ON people (name); CREATE TABLE \"Odd 'name\" (x int PRIMARY KEY)")
			dumped := []string{}
			o := postgres.Options{
				Connect: connector(s), Amcheck: true, Checks: []policy.Check{{Query: "SELECT count(*) FROM people", Expect: "= 5000"}},
				Dump: func(_ context.Context, d string) error { dumped = append(dumped, d); return nil },
			}
			r, err := postgres.Prove(context.Background(), o)
			if err != nil || !r.Passed() || len(r.Steps) != 4 || strings.Join(dumped, " ") != "postgres template1 app" && strings.Join(dumped, " ") != "template1 postgres app" {
				t.Fatalf("%v, %+v, %v", err, r, dumped)
			}
			installed := len(r.Notes) == 0
			if got := s.Psql("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'"); got != "0" {
				t.Error("the extension stayed")
			}

			o.Checks = []policy.Check{{Query: "SELECT count(*) FROM people", Expect: "> 5000"}, {Query: "SELECT 1", Expect: "1", Database: "none"}, {Query: "SELEC", Expect: "1"}}
			o.Dump = func(context.Context, string) error { return errors.New("no") }
			r, err = postgres.Prove(context.Background(), o)
			if err != nil || len(r.Problems()) != 4 {
				t.Fatalf("%v, %+v", err, r)
			}
			for _, p := range r.Problems() {
				if strings.Contains(p, "people") || strings.Contains(p, "none") {
					t.Errorf("a receipt would hold %q", p)
				}
			}

			if !installed {
				return
			}
			// An index that leads to nothing, as after a change of the C library's order of texts.
			file := filepath.Join(s.Dir, psql(t, s, "SELECT pg_relation_filepath('names')"))
			s.Stop("fast")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i := 8192 + 6000; i < 8192+8000; i += 8 { // keys of the first leaf
				b[i] ^= 0x55
			}
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			s.Restart()
			o.Checks, o.Dump = nil, nil
			r, err = postgres.Prove(context.Background(), o)
			if err != nil || r.Passed() {
				t.Fatalf("%v, %+v", err, r)
			}
			if strings.Contains(r.Problems()[0], "names") || !strings.Contains(strings.Join(r.Steps[1].Details, " "), "names") {
				t.Errorf("%+v", r)
			}
		})
	}
}

func psql(t *testing.T, s *cluster.Server, sql string) string {
	t.Helper()
	out, err := s.TryRun("psql", "-AtX", "-d", s.DSN("app"), "-c", sql)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

package query_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/proof/query"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/test/cluster"
)

func connect(t *testing.T, s *cluster.Server) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func TestAsk(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	s.Psql(`CREATE TABLE maintainers (id int, name text, active bool, weight float8, much numeric, big bigint)`)
	s.Psql(`INSERT INTO maintainers VALUES (1, 'secret name', true, 0.1, 12345678901234567890.5, 9007199254740993), (2, NULL, false, NULL, NULL, NULL)`)
	c := connect(t, s)
	for sql, cases := range map[string]map[string]string{
		"SELECT count(*) FROM maintainers":                  {"> 0": "", "2": "", "= 2": "", "> 2": "not as expected"},
		"SELECT name FROM maintainers WHERE id = 1":         {"secret name": "", "'secret name'": "", "other": "not as expected", "!= null": ""},
		"SELECT name FROM maintainers WHERE id = 2":         {"null": "", "x": "not as expected"},
		"SELECT active FROM maintainers WHERE id = 1":       {"true": "", "1": "", "t": "", "!= true": "not as expected", "false": "not as expected"},
		"SELECT weight FROM maintainers WHERE id = 1":       {"0.1": "", "< 1": ""},
		"SELECT much FROM maintainers WHERE id = 1":         {"> 12345678901234560000": "", "< 5": "not as expected"},
		"SELECT big FROM maintainers WHERE id = 1":          {"9007199254740993": "", "9007199254740992": "not as expected"},
		"SELECT id FROM maintainers WHERE false":            {"> 0": "no row"},
		"SELECT id FROM maintainers ORDER BY id DESC":       {"2": ""},
		"SELECT nothing FROM maintainers":                   {"1": "failed (SQLSTATE 42703)"},
		"DELETE FROM maintainers RETURNING 1":               {"1": "failed (SQLSTATE 25006)"},
		"COMMIT; DROP TABLE maintainers":                    {"1": "failed (SQLSTATE 42601)"},
		"CREATE TABLE x (y int)":                            {"1": "failed (SQLSTATE 25006)"},
		"SELECT pg_sleep(60)":                               {"": "no answer within 200ms"},
		"SELECT pg_terminate_backend(0)":                    {"false": ""},
		"SELECT set_config('statement_timeout', '0', true)": {"0": ""},
	} {
		for expect, want := range cases {
			limit := time.Duration(0)
			if strings.Contains(sql, "pg_sleep") {
				limit, expect = 200*time.Millisecond, "x"
			}
			problem, details, err := query.Ask(t.Context(), c, policy.Check{Query: sql, Expect: expect}, limit)
			if err != nil || (problem == "") != (want == "") || !strings.Contains(problem, want) || strings.Contains(problem, "secret") && !strings.Contains(expect, "secret") {
				t.Errorf("%s %q: %q %q %v, want %q", sql, expect, problem, details, err, want)
			}
		}
	}
	if got := s.Psql("SELECT count(*) FROM maintainers"); got != "2" {
		t.Error("queries have changed something: ", got)
	}
}

// TestNoAnswer: a connection that is lost is no verdict.
func TestNoAnswer(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	c := connect(t, s)
	problem, _, err := query.Ask(t.Context(), c, policy.Check{Query: "SELECT pg_terminate_backend(pg_backend_pid())", Expect: "1"}, 0)
	if err == nil || problem != "" {
		t.Errorf("%q %v", problem, err)
	}
	if _, _, err = query.Ask(t.Context(), c, policy.Check{Query: "SELECT 1", Expect: "1"}, 0); err == nil {
		t.Error("a lost connection answers")
	}
}

package sqlite_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/proof"
	"github.com/btcdecoded/holdfast/hostagent/proof/sqlite"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// makeDatabase makes a database with the sqlite3 program, another implementation than the one that proves.
func makeDatabase(t *testing.T, sql string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a b?%#.db")
	cmd := exec.Command("sqlite3", "-bail", path)
	cmd.Stdin = strings.NewReader(sql)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

const table = "PRAGMA page_size=1024; CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<500) INSERT INTO t(b) SELECT 'value '||n FROM c;"

func all(checks ...policy.Check) sqlite.Options {
	return sqlite.Options{Integrity: sqlite.IntegrityCheck, ForeignKeys: true, Checks: checks}
}

func prove(t *testing.T, path string, o sqlite.Options) *proof.Report {
	t.Helper()
	r, err := sqlite.Prove(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhole(t *testing.T) {
	for name, sql := range map[string]string{
		"plain":    table,
		"in WAL":   "PRAGMA journal_mode=WAL;" + table,
		"utf-16":   "PRAGMA encoding='UTF-16be';" + table,
		"vacuumed": "PRAGMA auto_vacuum=INCREMENTAL;" + table + "DELETE FROM t WHERE a>100;",
		"no table": "VACUUM;",
	} {
		path := makeDatabase(t, sql)
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, integrity := range []string{sqlite.IntegrityCheck, sqlite.QuickCheck, ""} {
			r := prove(t, path, sqlite.Options{Integrity: integrity, ForeignKeys: true})
			if !r.Passed() || len(r.Steps) != 2 {
				t.Errorf("%s, %q: %+v", name, integrity, r)
			}
		}
		list, err := os.ReadDir(filepath.Dir(path))
		after, serr := os.Stat(path)
		if err != nil || serr != nil || len(list) != 1 || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("%s: the proof left traces: %v, %v", name, list, err)
		}
	}
}

func TestChecks(t *testing.T) {
	path := makeDatabase(t, table)
	r := prove(t, path, all(
		policy.Check{Query: "SELECT count(*) FROM t", Expect: "> 0"},
		policy.Check{Query: "SELECT b FROM t WHERE a=1", Expect: "= value 1"},
		policy.Check{Query: "SELECT max(a), 'more' FROM t", Expect: "500"},
	))
	if !r.Passed() || len(r.Steps) != 5 || r.Steps[4].Name != "query 3" {
		t.Errorf("%+v", r)
	}
	for query, want := range map[string]string{
		"SELECT count(*) FROM t WHERE b='secret of mine'": "does not answer as expected",
		"SELECT a FROM t WHERE b='secret of mine'":        "answers with no row",
		"SELECT secret FROM t":                            "SQLite ended it with code 1",
		"DELETE FROM t WHERE b='secret'":                  "SQLite ended it with code 8",
		"ATTACH '/etc/passwd' AS secret":                  "SQLite ended it with code 1",
		"ATTACH 'made' AS secret":                         "SQLite ended it with code 1",
		"PRAGMA journal_mode=secret":                      "",
	} {
		r := prove(t, path, all(policy.Check{Query: query, Expect: "1"}, policy.Check{Query: "SELECT 1", Expect: "1"}))
		problems := strings.Join(r.Problems(), "; ")
		if r.Passed() || want != "" && problems != "query 1: "+want || strings.Contains(problems, "secret") {
			t.Errorf("%s: %q", query, problems)
		}
		if len(r.Steps) != 4 || r.Steps[3].Problem != "" {
			t.Errorf("%s: the next query was not asked: %+v", query, r.Steps)
		}
	}
	r = prove(t, path, all(policy.Check{Query: "SELECT count(*) FROM t", Expect: "1"}))
	if d := r.Steps[len(r.Steps)-1].Details; len(d) != 1 || d[0] != "the answer is 500" {
		t.Errorf("%q", d)
	}
	if _, err := os.Stat("made"); err == nil {
		t.Error("a query made a file")
	}
}

func TestForeignKeys(t *testing.T) {
	path := makeDatabase(t, "CREATE TABLE p(a PRIMARY KEY); CREATE TABLE c(b REFERENCES p(a)); CREATE TABLE w(k PRIMARY KEY, b REFERENCES p(a)) WITHOUT ROWID; INSERT INTO c VALUES (1); INSERT INTO w VALUES (1, 2);")
	r := prove(t, path, all())
	if got := strings.Join(r.Problems(), "; "); got != "foreign_key_check: 2 rows with a foreign key that leads nowhere" {
		t.Error(got)
	}
	if r := prove(t, path, sqlite.Options{Integrity: sqlite.IntegrityCheck}); !r.Passed() {
		t.Errorf("%+v", r)
	}
}

// TestDamaged flips bytes all over a database: none of it passes unnoticed where it is in a page that is used.
func TestDamaged(t *testing.T) {
	good, err := os.ReadFile(makeDatabase(t, table))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "db")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for page := 0; page < len(good)/1024; page++ {
		bad := append([]byte(nil), good...)
		for i := range 16 { // the header of a b-tree page; of the first page, that of the database
			bad[page*1024+i] ^= 0x5a
		}
		write(bad)
		r := prove(t, path, all(policy.Check{Query: "SELECT 1", Expect: "1"}))
		if r.Passed() || len(r.Steps) != 1 {
			t.Errorf("page %d: %+v", page+1, r)
		}
		if r := prove(t, path, sqlite.Options{Integrity: sqlite.QuickCheck}); r.Passed() {
			t.Errorf("page %d: quick_check passes", page+1)
		}
	}
	for name, b := range map[string][]byte{
		"cut off":  good[:len(good)/2],
		"nonsense": []byte(strings.Repeat("no database ", 1000)),
	} {
		write(b)
		if r := prove(t, path, all()); r.Passed() {
			t.Errorf("%s: %+v", name, r)
		}
		if r := prove(t, path, sqlite.Options{}); name == "nonsense" && r.Passed() {
			t.Errorf("%s passes without a check", name)
		}
	}
	// An index that lacks a row: quick_check does not see that, integrity_check does.
	source := makeDatabase(t, table+"PRAGMA writable_schema=ON; DELETE FROM sqlite_schema WHERE name='i';")
	cmd := exec.Command("sqlite3", source)
	cmd.Stdin = strings.NewReader("DELETE FROM t WHERE a=7; PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES ('index','i','t',(SELECT 3),'CREATE INDEX i ON t(b)'); ")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r := prove(t, source, all()); r.Passed() {
		t.Errorf("%+v", r)
	}
}

func TestLimits(t *testing.T) {
	path := makeDatabase(t, table)
	forever := policy.Check{Query: "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) SELECT count(*) FROM c", Expect: "1"}
	o := all(forever)
	o.QueryTime = 50 * time.Millisecond
	if got := strings.Join(prove(t, path, o).Problems(), "; "); got != "query 1: took too long" {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o = all(forever)
	o.Began = func(step string) {
		if step == "query 1" {
			time.AfterFunc(20*time.Millisecond, cancel)
		}
	}
	if _, err := sqlite.Prove(ctx, path, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := sqlite.Prove(context.Background(), path+".gone", all()); err == nil {
		t.Error("a file that is not there is proven")
	}
}

// damage breaks the first page of a table, of a database with pages of 1 KiB.
func damage(t *testing.T, path, table string) {
	t.Helper()
	out, err := exec.Command("sqlite3", path, "SELECT rootpage FROM sqlite_schema WHERE name = '"+table+"'").Output()
	if err != nil {
		t.Fatal(err)
	}
	page, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 16 {
		b[(page-1)*1024+i] ^= 0x5a
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWhatOnlyTheApplicationHas proves databases with a collation that the program which made them brings along: what does
// without is checked, and found where it is damaged; the rest is told.
func TestWhatOnlyTheApplicationHas(t *testing.T) {
	const own = "CREATE TABLE own(a TEXT PRIMARY KEY COLLATE uint); CREATE INDEX j ON own(a); INSERT INTO own VALUES ('a2'), ('a10'); CREATE TABLE other(a REFERENCES own);"
	for _, integrity := range []string{sqlite.IntegrityCheck, sqlite.QuickCheck} {
		path := makeDatabase(t, table+own)
		r := prove(t, path, sqlite.Options{Integrity: integrity, ForeignKeys: true, Checks: []policy.Check{{Query: "SELECT count(*) FROM t", Expect: "500"}}})
		if !r.Passed() || len(r.Steps) != 2 || r.Steps[0].Name != integrity+sqlite.InPart || len(r.Notes) != 2 || !strings.HasPrefix(r.Notes[0], "1 of 3 tables") {
			t.Errorf("%+v", r)
		}
		damage(t, path, "t")
		r = prove(t, path, sqlite.Options{Integrity: integrity})
		if r.Passed() || len(r.Steps) != 1 {
			t.Errorf("damaged: %+v", r)
		}
	}
	// Where nothing else is there, nothing is claimed.
	r := prove(t, makeDatabase(t, own+"DROP TABLE other;"), sqlite.Options{Integrity: sqlite.IntegrityCheck})
	if !r.Passed() || len(r.Steps) != 0 || len(r.Notes) == 0 {
		t.Errorf("%+v", r)
	}
}

package logical_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func index() *logical.Index {
	grants := []logical.Grant{{Privilege: "CONNECT"}, {Grantee: "app", Privilege: "CREATE", Grantable: true}, {Grantee: "gone", Privilege: "CREATE"}}
	return &logical.Index{
		Format: 1, Server: "15.18", Major: 15, Program: "15.18", Wanted: 15, Globals: logical.GlobalsPath, Passwords: true, Default: "postgres",
		Databases: []logical.Database{{
			Path: "/postgres/app.dump", Started: time.Unix(1, 2).UTC(), Bytes: 10, Entries: 3,
			Properties: logical.Properties{
				Name: "app", Owner: "app", Encoding: "UTF8", Collate: "C", CType: "C", Provider: "c", Tablespace: "fast", Limit: 5, Comment: "it's",
				Grants:   &grants,
				Settings: []logical.Setting{{Value: `search_path=app, "$user", public`}, {Role: "app", Value: "work_mem=8MB"}, {Role: "gone", Value: "a=b"}, {Value: "my.setting=x"}},
			},
		}},
	}
}

func TestIndex(t *testing.T) {
	x := index()
	b, err := x.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := logical.ParseIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(x, again); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string]string{
		"no JSON": "x", "another format": `{"format":2}`, "an unknown member": `{"format":1,"x":1}`, "something behind": `{"format":1}{}`,
		"another path": `{"format":1,"databases":[{"name":"a","path":"/postgres/b.dump"}]}`,
		"twice":        `{"format":1,"databases":[{"name":"a","path":"/postgres/a.dump"},{"name":"a","path":"/postgres/a.dump"}]}`,
		"no name":      `{"format":1,"databases":[{"path":"/postgres/.dump"}]}`,
		"globals":      `{"format":1,"globals":"/etc/passwd"}`,
	} {
		if _, err := logical.ParseIndex([]byte(bad)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzIndex(f *testing.F) {
	b, _ := index().Marshal()
	f.Add(b)
	f.Add([]byte(`{"format":1,"databases":[{"name":"\u0000"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := logical.ParseIndex(b)
		if err != nil {
			return
		}
		out, err := x.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := logical.ParseIndex(out); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPaths(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"app", "a/b", "a%2Fb", "..", ".", ".x", "a\nb", "ä ö", "globals.sql", "databases.json", strings.Repeat("/", 63)} {
		path := logical.PathOf(name)
		if err := snapshot.CheckPath(path); err != nil {
			t.Error(err)
		}
		if strings.Count(path, "/") != 2 || seen[path] != "" || path == logical.IndexPath || path == logical.GlobalsPath {
			t.Errorf("%q is at %q, as %q", name, path, seen[path])
		}
		seen[path] = name
	}
}

func TestCreate(t *testing.T) {
	p := index().Databases[0].Properties
	for _, tt := range []struct {
		change func(*logical.Properties)
		on     logical.Target
		want   string
	}{
		{nil, logical.Target{Major: 14}, `CREATE DATABASE "x" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' CONNECTION LIMIT 5`},
		{
			func(p *logical.Properties) { p.Limit = -1 },
			logical.Target{Major: 15, Owner: true, Tablespaces: []string{"fast"}},
			`CREATE DATABASE "x" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc OWNER "app" TABLESPACE "fast"`,
		},
		{
			func(p *logical.Properties) { p.Provider, p.Locale, p.Limit, p.Rules = "i", "de-DE", -1, "&a < b" },
			logical.Target{Major: 16},
			`CREATE DATABASE "x" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' ICU_RULES '&a < b'`,
		},
		{
			func(p *logical.Properties) { p.Provider, p.Locale, p.Limit = "b", "C.UTF-8", -1 },
			logical.Target{Major: 17},
			`CREATE DATABASE "x" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'`,
		},
		{func(p *logical.Properties) { p.Provider = "b" }, logical.Target{Major: 16}, ""},
		{func(p *logical.Properties) { p.Provider = "i" }, logical.Target{Major: 14}, ""},
		{func(p *logical.Properties) { p.Provider, p.Rules = "i", "x" }, logical.Target{Major: 15}, ""},
	} {
		q := p
		if tt.change != nil {
			tt.change(&q)
		}
		got, err := q.Create("x", tt.on)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s, %v\nwant %s", got, err, tt.want)
		}
	}
}

func TestAlter(t *testing.T) {
	p := index().Databases[0].Properties
	got, left := p.Alter("n", func(role string) bool { return role == "app" })
	want := []string{
		`REVOKE ALL ON DATABASE "n" FROM PUBLIC`, `REVOKE ALL ON DATABASE "n" FROM "app"`, `GRANT CONNECT ON DATABASE "n" TO PUBLIC`,
		`GRANT CREATE ON DATABASE "n" TO "app" WITH GRANT OPTION`,
		`ALTER DATABASE "n" SET "search_path" TO 'app', '$user', 'public'`, `ALTER ROLE "app" IN DATABASE "n" SET "work_mem" TO '8MB'`,
		`ALTER DATABASE "n" SET "my"."setting" TO 'x'`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(left) != 2 {
		t.Errorf("%q", left)
	}
}

func TestQuoting(t *testing.T) {
	if got := logical.Identifier(`a"b`); got != `"a""b"` {
		t.Error(got)
	}
	if got := logical.Literal(`it's`); got != `'it''s'` {
		t.Error(got)
	}
	if got := logical.Literal(`a\'`); got != ` E'a\\'''` {
		t.Error(got)
	}
	if got := logical.Comment("a", ""); got != `COMMENT ON DATABASE "a" IS NULL` {
		t.Error(got)
	}
	if got := logical.Rename("a", "b"); got != `ALTER DATABASE "a" RENAME TO "b"` {
		t.Error(got)
	}
	for _, name := range []string{"short", strings.Repeat("x", 63), strings.Repeat("ä", 31)} {
		got := logical.Derived(name, "_before_1")
		if len(got) > 63 || !utf8.ValidString(got) || !strings.HasSuffix(got, "_before_1") || !strings.HasPrefix(name, strings.TrimSuffix(got, "_before_1")) {
			t.Error(got)
		}
	}
}

const script = `--
-- PostgreSQL database cluster dump
--

\restrict abc
SET default_transaction_read_only = off;

CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b==$c:d=';
CREATE ROLE "Odd ""Name; --";
COMMENT ON ROLE "Odd ""Name; --" IS 'first; line
-- not a comment
\not psql';
ALTER ROLE app SET search_path TO E'a\'; b';
COMMENT ON ROLE app IS $x$ ; 'un $y$ ended $x$;
GRANT app TO other GRANTED BY postgres;
CREATE TABLESPACE fast OWNER app LOCATION '/srv/fast';
ALTER TABLESPACE fast SET (random_page_cost=1);
\unrestrict abc
`

func TestStatements(t *testing.T) {
	got, err := logical.Statements(script)
	if err != nil {
		t.Fatal(err)
	}
	var makes, of []string
	for _, s := range got {
		makes, of = append(makes, s.Makes), append(of, s.Of)
	}
	if want := []string{"app", "", `Odd "Name; --`, "", "", "", "", "fast", ""}; !slices.Equal(makes, want) {
		t.Errorf("%q", makes)
	}
	if want := []string{"", "app", "", `Odd "Name; --`, "app", "app", "", "", "fast"}; !slices.Equal(of, want) {
		t.Errorf("%q", of)
	}
	if got[6].Text != "GRANT app TO other GRANTED BY postgres" || !got[7].Tablespace || got[6].Tablespace ||
		!strings.Contains(got[3].Text, "-- not a comment\n\\not psql") || !strings.HasSuffix(got[5].Text, "$x$") {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"a 'b", `a "b`, "a $$b", "E'a\\'"} {
		if _, err := logical.Statements(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzStatements(f *testing.F) {
	f.Add(script)
	f.Add("a'b''c' $1 $a$b$a$ E'\\''; \"x\"\"\";")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := logical.Statements(text)
		if err != nil {
			return
		}
		for _, s := range list {
			again, err := logical.Statements(s.Text + ";")
			if err != nil || len(again) > 1 {
				t.Fatalf("%q becomes %+v, %v", s.Text, again, err)
			}
		}
	})
}

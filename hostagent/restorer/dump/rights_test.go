package dump

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/test/cluster"
)

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

package policy_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const globs = `version: 1
hosts:
  h:
    sources:
      app: {files: {roots: [/srv]}}
      one: {sqlite: {path: /srv/t/one.db}}
      tenants: {sqlite: {glob: /srv/t/*.db, max_lock: 1s}, objectives: {rpo: 2h}}
      deep: {sqlite: {glob: /srv/d/*/data*.db}}
`

// TestExpand makes sources of databases.
func TestExpand(t *testing.T) {
	p, err := policy.Parse([]byte(globs))
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(p.Hosts["h"].Sources)); !slices.Equal(got, []string{"app", "one"}) {
		t.Errorf("sources %q", got)
	}
	if same, err := p.Expand("other", nil); same != p || err != nil {
		t.Error("a host without patterns has another policy", err)
	}
	long := strings.Repeat("x", 70)
	list := func(glob string) ([]string, error) {
		if strings.HasPrefix(glob, "/srv/d") {
			return []string{"/srv/d/a/data.db", "/srv/d/b_c/data.db", "/srv/d/b/data_c.db"}, errors.New("a part could not be read")
		}
		return []string{"/srv/t/b.db", "/srv/t/one.db", "/srv/t/a b.db", "/srv/t/ä.db", "/srv/t/" + long + ".db", "/srv/t/" + long + "2.db"}, nil
	}
	x, err := p.Expand("h", list)
	if err == nil || !strings.Contains(err.Error(), "could not be read") {
		t.Error(err)
	}
	got := map[string]string{}
	for name, s := range x.Hosts["h"].Sources {
		if err := (snapshot.Source{Host: "h", Name: name}).Check(); err != nil {
			t.Error(err)
		}
		if s.SQLite != nil {
			got[s.SQLite.Path] = name
		}
	}
	for path, name := range map[string]string{
		"/srv/t/one.db": "one", "/srv/t/b.db": "tenants.b.db", "/srv/d/a/data.db": "deep.a_data.db",
	} {
		if got[path] != name {
			t.Errorf("%s is %q, want %q", path, got[path], name)
		}
	}
	if len(got) != 9 {
		t.Errorf("%d databases: %v", len(got), got)
	}
	s := x.Hosts["h"].Sources["tenants.b.db"]
	if s.SQLite.Of != "tenants" || s.SQLite.MaxLock != policy.Duration(1e9) || s.Objectives.RPO != policy.Duration(2*3600e9) || p.Hosts["h"].Expanded {
		t.Errorf("%+v", s)
	}
	// What is there no more has the retention of the pattern, and is gone.
	s, err = x.Lookup("h", "tenants.gone.db")
	if err != nil || !x.Gone("h", s) || s.Objectives.RPO != policy.Duration(2*3600e9) {
		t.Error(s, err)
	}
	if s, err = p.Lookup("h", "tenants.gone.db"); err != nil || p.Gone("h", s) {
		t.Error("who knows no databases can't say that one is gone", err)
	}
	for _, name := range []string{"tenants", "nobody.x.db"} {
		if _, err := x.Lookup("h", name); err == nil {
			t.Errorf("%s is a source", name)
		}
	}
	// It is written as it was.
	text, err := x.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, again); diff != "" {
		t.Error(diff)
	}
	if owned := x.Hosts["h"].Owned(); !slices.Contains(owned, "/srv/t/b.db-wal") || !slices.Contains(owned, "/srv/d/a/data.db") {
		t.Errorf("%q", owned)
	}
}

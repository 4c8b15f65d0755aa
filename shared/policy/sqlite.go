package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// SQLite is a source of kind sqlite: one database file, or all that a pattern names.
type SQLite struct {
	Path    string   `json:"path,omitempty"`    // absolute, cleaned
	Glob    string   `json:"glob,omitempty"`    // a pattern as path.Match has it; each database is a source of its own
	MaxLock Duration `json:"max_lock,omitzero"` // longest that writers may wait, in rollback modes; 0: the agent's default

	// How a restored copy is proven: by quick_check instead of integrity_check, and by foreign_key_check unless that is false.
	QuickCheck      bool  `json:"quick_check,omitempty"`
	ForeignKeyCheck *bool `json:"foreign_key_check,omitempty"`

	Of string `json:"-"` // the source with the pattern of which this one was made; empty: none
}

const (
	// maxGlobName is the longest name of a source with a pattern: names of databases come behind it.
	maxGlobName = 40
	// maxName is the longest name of a source.
	maxName = 63
	// maxLock is the longest that a policy may let writers wait.
	maxLock = Duration(10 * 60 * 1e9)
)

func (d *decoder) sqlite(n ast.Node, s *SQLite) {
	d.mapping(
		n,
		field{"path", d.str(&s.Path, checkPath)},
		field{"glob", d.str(&s.Glob, checkGlob)},
		field{"max_lock", d.duration(&s.MaxLock, 1e6)},
		field{"quick_check", d.boolean(&s.QuickCheck)},
		field{"foreign_key_check", func(n ast.Node) { s.ForeignKeyCheck = new(bool); d.boolean(s.ForeignKeyCheck)(n) }},
	)
}

func checkGlob(s string) error {
	if err := checkPath(s); err != nil {
		return err
	}
	if _, err := path.Match(s, ""); err != nil {
		return fmt.Errorf("pattern %q: %w", shorten(s), err)
	}
	if !strings.ContainsAny(s, `*?[`) {
		return fmt.Errorf("pattern %q: names one file; say path", shorten(s))
	}
	return nil
}

// checkSQLite looks at what single values do not show.
func (d *decoder) checkSQLite(at string, s *SQLite) {
	if s.Path != "" && s.Glob != "" {
		d.failAt(at+".sqlite", "make a source of each", "a source has either path or glob")
	}
	if name := at[strings.LastIndex(at, ".sources.")+len(".sources."):]; s.Glob != "" && len(name) > maxGlobName {
		d.failAt(at, "", "a source with a glob has a name of at most %d characters: the names of databases come behind it", maxGlobName)
	}
	if s.MaxLock > maxLock {
		d.failAt(at+".sqlite.max_lock", "", "more than %s", maxLock)
	}
}

// setApart moves the sources that are patterns out of the sources: they are none themselves.
func (p *Policy) setApart() {
	for _, h := range p.Hosts {
		for name, s := range h.Sources {
			if s.SQLite == nil || s.SQLite.Glob == "" {
				continue
			}
			if h.Globs == nil {
				h.Globs = map[string]*Source{}
			}
			h.Globs[name] = s
			delete(h.Sources, name)
		}
	}
}

// whole is the policy as it is written: patterns among the sources, and not what was made of them.
func (p *Policy) whole() *Policy {
	out := *p
	out.Hosts = make(map[string]*Host, len(p.Hosts))
	for host, h := range p.Hosts {
		one := *h
		one.Sources = maps.Clone(h.Sources)
		maps.DeleteFunc(one.Sources, func(_ string, s *Source) bool { return s.SQLite != nil && s.SQLite.Of != "" })
		if one.Sources == nil {
			one.Sources = map[string]*Source{}
		}
		maps.Copy(one.Sources, h.Globs)
		out.Hosts[host] = &one
	}
	return &out
}

// Expand returns the policy with a source for each database that the patterns of a host name, as list finds them: absolute
// paths. What another source of the host names by its path is left to that one. Of the policy nothing is changed. The
// errors are those of list, and of databases that can't be made sources; all others are there nevertheless.
func (p *Policy) Expand(host string, list func(glob string) ([]string, error)) (*Policy, error) {
	h := p.Hosts[host]
	if h == nil || len(h.Globs) == 0 {
		return p, nil
	}
	out, one := *p, *h
	one.Sources = maps.Clone(h.Sources)
	if one.Sources == nil {
		one.Sources = map[string]*Source{}
	}
	taken := map[string]bool{}
	for _, s := range h.Sources {
		if s.SQLite != nil {
			taken[s.SQLite.Path] = true
		}
	}
	var errs []error
	for _, name := range sortedKeys(h.Globs) {
		glob := h.Globs[name]
		paths, err := list(glob.SQLite.Glob)
		if err != nil {
			errs = append(errs, fmt.Errorf("source %s: %w", name, err))
		}
		slices.Sort(paths)
		for _, file := range paths {
			if taken[file] {
				continue
			}
			taken[file] = true
			derived := databaseName(name, glob.SQLite.Glob, file)
			if one.Sources[derived] != nil {
				errs = append(errs, fmt.Errorf("source %s: the database %s is left out: there is a source %s already", name, file, derived))
				continue
			}
			one.Sources[derived] = glob.of(name, file)
		}
	}
	one.Expanded = true
	out.Hosts = maps.Clone(p.Hosts)
	out.Hosts[host] = &one
	return &out, errors.Join(errs...)
}

// of is the source of a database that the pattern names.
func (s *Source) of(name, file string) *Source {
	out := *s
	database := *s.SQLite
	database.Path, database.Glob, database.Of = file, "", name
	out.SQLite = &database
	return &out
}

// databaseName names the source of a database: the source with the pattern, a dot, and what of the path the pattern leaves
// open, with _ for each /. What would be no name, or not the only one of its kind, gets a part of its hash.
func databaseName(source, glob, file string) string {
	fixed := glob[:strings.IndexAny(glob, `*?[\`)]
	rest := strings.TrimPrefix(file, fixed[:strings.LastIndex(fixed, "/")+1])
	name := strings.ReplaceAll(rest, "/", "_")
	full := source + "." + name
	plain := !strings.Contains(rest, "/") || !strings.Contains(rest, "_")
	if plain && (snapshot.Source{Host: "x", Name: full}).Check() == nil {
		return full
	}
	sum := sha256.Sum256([]byte(rest))
	tail := "-" + hex.EncodeToString(sum[:4])
	safe := strings.Map(func(r rune) rune {
		if r < 128 && (snapshot.Source{Host: "x", Name: "x" + string(r)}).Check() == nil {
			return r
		}
		return '_'
	}, full)
	return safe[:min(len(safe), maxName-len(tail))] + tail
}

// Gone reports whether the source is that of a database which a pattern named and which is not on its host any more, as far as
// that is known.
func (p *Policy) Gone(host string, s *Source) bool {
	h := p.Hosts[host]
	return s.SQLite != nil && s.SQLite.Path == "" && h != nil && h.Expanded
}

// derived is the source that a pattern of the host makes of a database of this name, whether it is there or not. It has no
// path.
func (h *Host) derived(name string) *Source {
	for _, glob := range sortedKeys(h.Globs) {
		if strings.HasPrefix(name, glob+".") {
			return h.Globs[glob].of(glob, "")
		}
	}
	return nil
}

// Owned returns the paths on the host that sources of databases own and that files sources therefore leave out.
func (h *Host) Owned() []string {
	var paths []string
	for _, name := range sortedKeys(h.Sources) {
		if s := h.Sources[name]; s.SQLite != nil {
			// The write-ahead log and its index, or the rollback journal, belong to the database.
			for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
				paths = append(paths, s.SQLite.Path+suffix)
			}
		}
	}
	return paths
}

package files

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// selection decides which paths belong to a capture.
type selection struct {
	roots         []string // ascending, none inside another
	nested        []string // roots inside one of roots
	patterns      *Patterns
	owned         map[string]bool
	oneFileSystem bool
	cacheDirTag   bool
}

// databaseSuffixes are what SQLite keeps beside a database.
var databaseSuffixes = [...]string{"-wal", "-shm", "-journal"}

func newSelection(o Options) (*selection, error) {
	s := &selection{patterns: o.Patterns, owned: map[string]bool{}, oneFileSystem: o.OneFileSystem, cacheDirTag: o.CacheDirTag}
	var roots []string
	for _, root := range o.Roots {
		if !strings.HasPrefix(root, "/") {
			return nil, fmt.Errorf("root %q: want an absolute path", root)
		}
		clean := filepath.Clean(root)
		if err := snapshot.CheckPath(clean); err != nil {
			return nil, fmt.Errorf("root %q: %w", root, err)
		}
		if slices.Contains(roots, clean) {
			return nil, fmt.Errorf("root %q is given twice", clean)
		}
		roots = append(roots, clean)
	}
	if len(roots) == 0 {
		return nil, errors.New("no root to capture")
	}
	slices.SortFunc(roots, snapshot.ComparePaths)
	for _, root := range roots {
		// In this order a root follows at once what contains it.
		if n := len(s.roots); n > 0 && snapshot.Within(s.roots[n-1], root) {
			s.nested = append(s.nested, root)
			continue
		}
		s.roots = append(s.roots, root)
	}
	for _, path := range o.Owned {
		clean := filepath.Clean(path)
		s.own(clean)
		// The policy may name the database by another path than the one by which the walk meets it.
		if real, err := filepath.EvalSymlinks(clean); err == nil {
			s.own(real)
		}
	}
	return s, nil
}

func (s *selection) own(path string) {
	s.owned[path] = true
	for _, suffix := range databaseSuffixes {
		s.owned[path+suffix] = true
	}
}

// decision is what is to be done with a path below a root.
type decision uint8

const (
	leaveOut decision = iota
	take
	passThrough // take the directory only, to get to a root below it
	isRoot      // the path is itself a root
)

// selectsAll reports whether every path is taken, so that none needs to be asked for.
func (s *selection) selectsAll() bool {
	return s.patterns.empty() && len(s.owned) == 0 && len(s.nested) == 0
}

// decide judges one path whose directory was taken, or passed through.
func (s *selection) decide(path string, isDir, passing bool) decision {
	if s.owned[path] {
		return leaveOut
	}
	below := false
	for _, r := range s.nested {
		if r == path {
			return isRoot
		}
		below = below || snapshot.Within(path, r)
	}
	switch {
	case !passing && !s.patterns.excludes(path, isDir):
		return take
	case below && isDir:
		return passThrough
	}
	return leaveOut
}

// leadsToRoot reports whether there is a root below the directory.
func (s *selection) leadsToRoot(path string) bool {
	return slices.ContainsFunc(s.nested, func(r string) bool { return r != path && snapshot.Within(path, r) })
}

package restorer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// selection is one subtree or file to restore and its place.
type selection struct {
	path   string // in the snapshot
	anchor anchor // directory on this host that is opened by its name
	rel    string // below the anchor, slash-separated; empty: the anchor itself is the selected directory
	source string // path in the snapshot of the anchor itself; empty: it has none
}

// anchor is a directory that the user named; symlinks in it are followed, below it none are.
type anchor struct {
	place  string
	target bool // it is Options.Target: a shared directory keeps its metadata
}

// selectPaths turns options into selections in tree order, none within another.
func selectPaths(ctx context.Context, snap Snapshot, options Options) ([]selection, error) {
	root, err := snap.Root(ctx)
	if err != nil {
		return nil, err
	}
	paths, err := selectedPaths(root.Roots, options.Select)
	if err != nil {
		return nil, err
	}
	if err := checkMap(paths, options.Map); err != nil {
		return nil, err
	}
	var selections []selection
	for _, path := range paths {
		e, err := snap.Lookup(ctx, path)
		if errors.Is(err, repository.ErrNoPath) {
			return nil, fmt.Errorf("select %q: %w", path, errors.Join(ErrSelection, err))
		}
		if err != nil {
			return nil, fmt.Errorf("select %q: %w", path, err)
		}
		s, err := place(path, e.Type == snapshot.Directory, len(paths) == 1, root.Roots, options)
		if err != nil {
			return nil, err
		}
		selections = append(selections, s)
	}
	return selections, checkOverlap(selections, options.Delete)
}

// selectedPaths cleans the selection. A path above roots selects these.
func selectedPaths(roots, selected []string) ([]string, error) {
	var paths []string
	if len(selected) == 0 {
		paths = slices.Clone(roots)
	}
	for _, path := range selected {
		clean := filepath.Clean(path)
		if err := snapshot.CheckPath(clean); err != nil {
			return nil, fmt.Errorf("select %q: %w", path, errors.Join(ErrSelection, err))
		}
		found := false
		for _, root := range roots {
			switch {
			case snapshot.Within(root, clean):
				paths, found = append(paths, clean), true
			case snapshot.Within(clean, root):
				paths, found = append(paths, root), true
			}
		}
		if !found {
			return nil, fmt.Errorf("select %q: %w: its roots are %q", path, ErrSelection, roots)
		}
	}
	slices.SortFunc(paths, snapshot.ComparePaths)
	var outer []string
	for _, path := range paths {
		if len(outer) == 0 || !snapshot.Within(outer[len(outer)-1], path) {
			outer = append(outer, path)
		}
	}
	return outer, nil
}

func checkMap(paths []string, places map[string]string) error {
	for key, to := range places {
		if to == "" {
			return fmt.Errorf("map %q: no place given", key)
		}
		if !slices.ContainsFunc(paths, func(path string) bool { return snapshot.Within(filepath.Clean(key), path) }) {
			return fmt.Errorf("map %q: %w or not selected", key, ErrSelection)
		}
	}
	return nil
}

// place decides where one selected path goes.
func place(path string, isDir, only bool, roots []string, options Options) (selection, error) {
	s := selection{path: path}
	key, mapped := "", ""
	for k, to := range options.Map {
		if clean := filepath.Clean(k); snapshot.Within(clean, path) && len(clean) > len(key) {
			key, mapped = clean, to
		}
	}
	var err error
	switch {
	case key != "":
		err = s.exact(key, mapped, isDir)
	case options.Target != "":
		s.anchor, err = newAnchor(options.Target)
		s.anchor.target = true
		switch {
		case !only:
			s.rel, s.source = strings.Trim(path, "/"), "/"
		case isDir:
			s.source = path
		default:
			s.rel, s.source = baseName(path), snapshot.Parent(path)
		}
	default:
		root := ""
		for _, r := range roots {
			if snapshot.Within(r, path) && len(r) > len(root) {
				root = r
			}
		}
		err = s.exact(root, root, isDir)
	}
	return s, err
}

// exact puts the path key of the snapshot at place; s.path is key or lies below.
func (s *selection) exact(key, place string, isDir bool) error {
	var err error
	if s.path == key && !isDir {
		s.anchor, err = newAnchor(filepath.Dir(filepath.Clean(place)))
		s.rel, s.source = filepath.Base(filepath.Clean(place)), snapshot.Parent(key)
		if err == nil && (s.rel == "/" || s.rel == "." || s.rel == "..") {
			err = fmt.Errorf("restore %q to %s: %w", s.path, place, ErrNotDirectory)
		}
		return err
	}
	s.anchor, err = newAnchor(place)
	s.rel, s.source = strings.Trim(strings.TrimPrefix(s.path, key), "/"), key
	return err
}

func newAnchor(place string) (anchor, error) {
	abs, err := filepath.Abs(place)
	if err != nil {
		return anchor{}, fmt.Errorf("find %s: %w", place, err)
	}
	return anchor{place: abs}, nil
}

// checkOverlap refuses selections that would overwrite, or with Delete remove, each other.
func checkOverlap(selections []selection, deletes bool) error {
	at := func(s selection) string { return filepath.Join(s.anchor.place, s.rel) }
	for i, a := range selections {
		for _, b := range selections[i+1:] {
			x, y := at(a), at(b)
			if x == y || deletes && (snapshot.Within(x, y) || snapshot.Within(y, x)) {
				return fmt.Errorf("restore %q to %s: %q goes to %s, and one would overwrite the other", a.path, x, b.path, y)
			}
		}
	}
	return nil
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

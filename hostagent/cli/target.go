package cli

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/hostagent/source/files"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// targets says where on this host each path of a snapshot goes, by the rules of package restorer.
type targets struct {
	options  restorer.Options
	selected []string // outermost first, none within another; those without a place of their own
	single   bool     // one selected directory goes to Target itself
	file     bool     // one selected file goes into Target
}

// targetsOf resolves a selection. What can't be looked up is told by the restore.
func targetsOf(ctx context.Context, snap *repository.Snapshot, o restorer.Options) (*targets, error) {
	t := &targets{options: o}
	root, err := snap.Root(ctx)
	if err != nil {
		return nil, err
	}
	t.selected = outermost(root.Roots, o.Select)
	if len(t.selected) == 1 {
		if e, err := snap.Lookup(ctx, t.selected[0]); err == nil {
			t.single, t.file = e.Type == snapshot.Directory, e.Type != snapshot.Directory
		}
	}
	return t, nil
}

// outermost are the selected paths, or the roots below them, without those within another.
func outermost(roots, selected []string) []string {
	paths := slices.Clone(selected)
	if len(selected) == 0 {
		paths = slices.Clone(roots)
	}
	for _, p := range selected {
		for _, r := range roots {
			if p != r && snapshot.Within(p, r) {
				paths = append(paths, r)
			}
		}
	}
	paths = slices.DeleteFunc(paths, func(p string) bool {
		return !slices.ContainsFunc(roots, func(r string) bool { return snapshot.Within(r, p) })
	})
	slices.SortFunc(paths, snapshot.ComparePaths)
	var out []string
	for _, p := range paths {
		if n := len(out); n == 0 || !snapshot.Within(out[n-1], p) {
			out = append(out, p)
		}
	}
	return out
}

// place is where a path goes, or the path itself where it is none of the selected.
func (t *targets) place(path string) string {
	for _, above := range slices.AppendSeq(slices.Clone(t.selected), maps.Keys(t.options.Map)) {
		if snapshot.Within(filepath.Clean(above), path) {
			return t.of(path)
		}
	}
	return path
}

// of is where a path of the snapshot goes.
func (t *targets) of(path string) string {
	key, place := "", ""
	for k, to := range t.options.Map {
		if k = filepath.Clean(k); snapshot.Within(k, path) && len(k) > len(key) {
			key, place = k, to
		}
	}
	switch {
	case key != "":
		return filepath.Join(place, strings.TrimPrefix(path, key))
	case t.options.Target == "":
		return path
	case t.single:
		return filepath.Join(t.options.Target, strings.TrimPrefix(path, t.selected[0]))
	case t.file:
		return filepath.Join(t.options.Target, filepath.Base(path))
	}
	return filepath.Join(t.options.Target, path)
}

// unlisted are the directories of a selection whose names the backup could not list: the restore can not know what is
// missing in them.
func unlisted(ctx context.Context, snap *repository.Snapshot, selected []string) ([]string, error) {
	problems, err := snap.Problems(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range problems {
		path := string(p.Path)
		if p.Operation != "list" || !files.IsError(&p) ||
			!slices.ContainsFunc(selected, func(s string) bool { return snapshot.Within(s, path) }) {
			continue
		}
		e, err := snap.Lookup(ctx, path)
		if err == nil && e.Type == snapshot.Directory && e.Unreadable {
			out = append(out, path)
		}
	}
	return out, nil
}

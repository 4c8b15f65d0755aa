package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/btcdecoded/holdfast/hostagent/source/files"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// A snapshot's report says, beside what went wrong, what the backup was told to leave out, so that a restore with
// --delete leaves it alone also where there is no policy. These are the operations of such lines. They are no errors:
// the backup did what it was told.
const (
	leftPattern = "exclude"         // its path is patternPath and a pattern; in the order in which they apply
	leftCaches  = "exclude caches"  // directories with a CACHEDIR.TAG keep only that
	leftMount   = "one file system" // its path is the place of another file system
	leftSize    = "max file size"   // its text is the limit in bytes; each file that was over it is a problem of its own
)

// Paths of lines that are about the whole selection: no snapshot can have them. Patterns are bytes, which only the path
// of a problem keeps as they are.
const (
	selectionPath = "selection:"
	patternPath   = "pattern:"
)

// leftOut are the lines of a backup with these options. They stand before all other problems of a report, which cuts
// off what is too much.
func leftOut(o *files.Options, patterns []string) []snapshot.Problem {
	var out []snapshot.Problem
	line := func(operation, path, text string) {
		out = append(out, snapshot.Problem{Path: []byte(path), Operation: operation, Error: text})
	}
	for _, p := range patterns {
		if p != "" && !strings.HasPrefix(p, "#") {
			line(leftPattern, patternPath+p, "left out by a pattern")
		}
	}
	for _, path := range o.Owned {
		line(leftPattern, patternPath+literal(path), "a source of its own")
	}
	if o.CacheDirTag {
		line(leftCaches, selectionPath, "directories with a CACHEDIR.TAG")
	}
	if o.MaxFileSize > 0 {
		line(leftSize, selectionPath, strconv.FormatUint(o.MaxFileSize, 10))
	}
	if o.OneFileSystem {
		for _, place := range mountPoints(o.Roots) {
			line(leftMount, place, "another file system")
		}
	}
	return out
}

// mountPoints are the places below the roots where another file system is mounted. What can't be told is left out: a
// restore leaves mount points alone by itself, as long as something is mounted there.
func mountPoints(roots []string) []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	return parseMounts(f, roots)
}

// parseMounts reads proc_pid_mountinfo(5), of which the fifth field is the mount point.
func parseMounts(r io.Reader, roots []string) []string {
	var out []string
	seen := map[string]bool{}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		place := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		for _, root := range roots {
			root = filepath.Clean(root)
			if place != root && snapshot.Within(root, place) && !seen[place] {
				seen[place] = true
				out = append(out, place)
			}
		}
	}
	return out
}

// protection says what restore --delete must leave alone.
type protection struct {
	patterns []*files.Patterns // of the snapshot, of the policy: each by itself
	keep     *files.Patterns   // of the user
	roots    []string          // of the snapshot
	owned    map[string]bool
	caches   func(dir string) bool // nil: directories with a CACHEDIR.TAG were captured whole
}

func (p *protection) add(lines []string) error {
	patterns, err := files.ParsePatterns(lines)
	if err == nil {
		p.patterns = append(p.patterns, patterns)
	}
	return err
}

func (p *protection) covers(path string, isDir bool) bool {
	root := "/"
	for _, r := range p.roots {
		if snapshot.Within(r, path) {
			root = r
		}
	}
	for _, patterns := range p.patterns {
		if patterns.Match(root, path, isDir) {
			return true
		}
	}
	// What the user names is meant wherever it lies.
	return p.keep.Match("/", path, isDir) || p.owned[path] || p.caches != nil && p.caches(snapshot.Parent(path))
}

// protect collects what --delete must leave alone: what the backup was told to leave out, what backups of this source
// leave out by the policy of today, and what the user names. Problems of the backup the restorer knows by itself.
func (a *app) protect(ctx context.Context, snap *repository.Snapshot, keep []string) (*protection, error) {
	if m := snap.Manifest(); m.Unfinished {
		return nil, hinted{
			usagef("restore %s: --delete: the snapshot is unfinished, so that what it lacks is not what was gone", a.name(m.ID())),
			"leave --delete out, or finish it first: the next backup of the source goes on from it",
		}
	}
	root, err := snap.Root(ctx)
	if err != nil {
		return nil, err
	}
	p := &protection{owned: map[string]bool{}, roots: root.Roots}
	problems, err := snap.Problems(ctx)
	if err != nil {
		return nil, err
	}
	var recorded []string
	cached := false
	for _, left := range problems {
		switch left.Operation {
		case leftPattern:
			recorded = append(recorded, strings.TrimPrefix(string(left.Path), patternPath))
		case leftCaches:
			cached = true
		}
	}
	if err := p.add(recorded); err != nil {
		return nil, err
	}
	m := snap.Manifest()
	pol, err := a.loadPolicy()
	if err != nil {
		return nil, err
	}
	if pol != nil {
		if s, err := pol.Lookup(m.Host, m.Source); err == nil && s.Files != nil {
			if err := p.add(append(append([]string{}, s.Files.Exclude...), taken(s.Files.Include)...)); err != nil {
				return nil, err
			}
			for _, path := range pol.Hosts[m.Host].Owned() {
				p.owned[path] = true
			}
			cached = cached || s.Files.ExcludeCaches
		}
	}
	if p.keep, err = files.ParsePatterns(keep); err != nil {
		return nil, usageError{err}
	}
	if cached {
		p.caches = cacheDirectories(ctx, snap)
	}
	return p, nil
}

// cacheDirectories reports whether a directory of the snapshot has a CACHEDIR.TAG. What can't be read is taken for one:
// then something stays that could go.
func cacheDirectories(ctx context.Context, snap *repository.Snapshot) func(string) bool {
	var mu sync.Mutex
	known := map[string]bool{} // guarded by mu
	return func(dir string) bool {
		mu.Lock()
		defer mu.Unlock()
		is, ok := known[dir]
		if !ok {
			_, err := snap.Lookup(ctx, filepath.Join(dir, "CACHEDIR.TAG"))
			is = !errors.Is(err, repository.ErrNoPath)
			known[dir] = is
		}
		return is
	}
}

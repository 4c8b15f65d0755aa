package files

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// below captures and returns what was found below dir, relative to it.
func below(t *testing.T, dir string, o Options) ([]string, *Result) {
	t.Helper()
	s := newSession()
	for i := range o.Roots {
		o.Roots[i] = dir + o.Roots[i]
	}
	for i := range o.Owned {
		o.Owned[i] = dir + o.Owned[i]
	}
	r := captured(t, s, o)
	var out []string
	for _, p := range s.paths() {
		out = append(out, strings.TrimPrefix(p, dir))
	}
	files, size, err := Scan(t.Context(), o)
	if err != nil || files != r.Counts.Files || size != r.Counts.Bytes {
		t.Errorf("scan: %d files, %d bytes, %v; captured %+v", files, size, err, r.Counts)
	}
	return out, r
}

func patterns(t *testing.T, lines ...string) *Patterns {
	t.Helper()
	p, err := ParsePatterns(lines)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := tempDir(t)
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(dir+name, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, dir+name, name)
	}
	return dir
}

func TestSelection(t *testing.T) {
	tag := cacheSignature + "\n# made by a test\n"
	dir := tree(t, "/a/b/c/d", "/a/b/x", "/a/y", "/ab/z", "/cache/data/1", "/cache/keep/2", "/fake/3", "/file", "/a/b.gz", "/empty/")
	write(t, dir+"/cache/CACHEDIR.TAG", tag)
	write(t, dir+"/fake/CACHEDIR.TAG", "Signature: something else")
	for _, c := range []struct {
		name    string
		options Options
		want    []string
		roots   []string
	}{
		{"one root", Options{Roots: []string{"/a"}}, []string{"/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/b/x", "/a/b.gz", "/a/y"}, nil},
		{
			"several roots, not in order, without parents",
			Options{Roots: []string{"/file", "/ab", "/a/b/c/"}},
			[]string{"/a/b/c", "/a/b/c/d", "/ab", "/ab/z", "/file"},
			[]string{"/a/b/c", "/ab", "/file"},
		},
		{
			"nested roots",
			Options{Roots: []string{"/a/b/c", "/a", "/a/b"}},
			[]string{"/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/b/x", "/a/b.gz", "/a/y"},
			[]string{"/a"},
		},
		{
			"patterns",
			Options{Roots: []string{"/a"}, Patterns: patterns(t, "b/c/", "*.gz", "y")},
			[]string{"/a", "/a/b", "/a/b/x"},
			nil,
		},
		{
			"a root in what is left out",
			Options{Roots: []string{"/a", "/a/b/c"}, Patterns: patterns(t, "b")},
			[]string{"/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/b.gz", "/a/y"},
			nil,
		},
		{
			"a root is never left out",
			Options{Roots: []string{"/a", "/ab", "/a/b/c/d"}, Patterns: patterns(t, "a", "ab", "d", "b.gz")},
			[]string{"/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/b/x", "/a/y", "/ab", "/ab/z"},
			nil,
		},
		{
			"caches",
			Options{Roots: []string{"/cache", "/fake"}, CacheDirTag: true},
			[]string{"/cache", "/cache/CACHEDIR.TAG", "/cache/data", "/cache/data/1", "/cache/keep", "/cache/keep/2", "/fake", "/fake/3", "/fake/CACHEDIR.TAG"},
			nil,
		},
		{
			"caches below a root",
			Options{Roots: []string{"", "/cache/keep"}, CacheDirTag: true, Patterns: patterns(t, "a", "ab", "fake")},
			[]string{"", "/cache", "/cache/CACHEDIR.TAG", "/cache/keep", "/cache/keep/2", "/empty", "/file"},
			nil,
		},
		{
			"owned",
			Options{Roots: []string{"/a"}, Owned: []string{"/a/b", "/a/y", "/nowhere"}},
			[]string{"/a", "/a/b.gz"},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, r := below(t, dir, c.options)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if c.roots != nil {
				for i := range c.roots {
					c.roots[i] = dir + c.roots[i]
				}
				if diff := cmp.Diff(c.roots, r.Roots); diff != "" {
					t.Error(diff)
				}
			}
			if len(r.Problems) > 0 {
				t.Errorf("%+v", r.Problems)
			}
		})
	}
}

func TestBadRoots(t *testing.T) {
	dir := tree(t, "/a")
	for want, roots := range map[string][]string{
		"no root to capture":    nil,
		"want an absolute path": {"relative"},
		"is given twice":        {dir, dir + "/"},
		"zero byte":             {"/a\x00"},
		"no root could be read": {dir + "/nowhere", dir + "/nothing/x"},
	} {
		_, err := Capture(t.Context(), Options{Roots: roots}, newSession(), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", roots, err)
		}
	}
	s := newSession()
	r := captured(t, s, Options{Roots: []string{dir, dir + "-missing"}})
	if len(s.entries) != 2 || len(r.Problems) != 1 || string(r.Problems[0].Path) != dir+"-missing" {
		t.Errorf("%+v", r)
	}
}

func TestRootThatIsALink(t *testing.T) {
	dir := tree(t, "/real/file")
	if err := os.Symlink("real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	got, r := below(t, dir, Options{Roots: []string{"/link"}})
	if diff := cmp.Diff([]string{"/link"}, got); diff != "" || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error, "symbolic link") {
		t.Errorf("%s %+v", diff, r)
	}
	// Links on the way to a root are followed.
	got, r = below(t, dir, Options{Roots: []string{"/link/file"}})
	if diff := cmp.Diff([]string{"/link/file"}, got); diff != "" || len(r.Problems) > 0 {
		t.Errorf("%s %+v", diff, r)
	}
}

func TestMaxFileSize(t *testing.T) {
	dir := tree(t, "/1/", "/12", "/123456")
	got, r := below(t, dir, Options{Roots: []string{""}, MaxFileSize: 6})
	if diff := cmp.Diff([]string{"", "/1", "/12"}, got); diff != "" {
		t.Error(diff)
	}
	if len(r.Problems) != 1 || r.Problems[0].Operation != OperationSkip || r.Counts.Errors != 0 || IsError(&r.Problems[0]) {
		t.Errorf("%+v", r)
	}
}

func TestFileSystemRoot(t *testing.T) {
	sel, err := newSelection(Options{Roots: []string{"/"}, Patterns: patterns(t, "/*", "!/etc/", "/etc/*", "!/etc/passwd", "!/etc/group")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = newWalker(sel, realSystem(), "").run(t.Context(), func(f *found) error {
		got = append(got, f.path)
		return f.err
	})
	if diff := cmp.Diff([]string{"/", "/etc", "/etc/group", "/etc/passwd"}, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestOtherFileSystems(t *testing.T) {
	sel, err := newSelection(Options{Roots: []string{"/r", "/r/m/inner"}, OneFileSystem: true})
	if err != nil {
		t.Fatal(err)
	}
	l := &lister{sel: sel}
	n := &node{path: "/r", rootDevice: 1, dir: &dir{name: "/r"}}
	for name, c := range map[string]struct {
		device         uint64
		enter, passing bool
	}{"same": {1, true, false}, "other": {2, false, false}, "m": {2, true, true}} {
		m := l.below(n, &child{name: name, meta: meta{device: c.device}}, take)
		if (m != nil) != c.enter || m != nil && m.passing != c.passing {
			t.Errorf("%s: %+v", name, m)
		}
	}
	inner := l.below(&node{path: "/r/m", rootDevice: 1, dir: n.dir}, &child{name: "inner", meta: meta{device: 2}}, isRoot)
	if inner == nil || inner.rootDevice != 2 || inner.passing {
		t.Errorf("%+v", inner)
	}
}

func TestLiveSQLite(t *testing.T) {
	dir := tree(
		t, "/app/data.db", "/app/data.db-wal", "/app/data.db-shm", "/app/data.db-backup", "/app/other", "/app/text", "/app/text-wal",
		"/app/at rest.db", "/j/x.sqlite", "/j/x.sqlite-journal", "/j/orphan-wal",
	)
	for _, name := range []string{"/app/data.db", "/app/at rest.db", "/j/x.sqlite"} {
		write(t, dir+name, paged.SQLiteHeader+"and its pages")
	}
	live := []string{"/app/data.db", "/app/data.db-shm", "/app/data.db-wal", "/j/x.sqlite", "/j/x.sqlite-journal"}
	check := func(s *fakeSession, r *Result) {
		t.Helper()
		var got []string
		for _, e := range s.entries {
			if e.NotConsistent {
				got = append(got, strings.TrimPrefix(e.Path, dir))
			}
		}
		if diff := cmp.Diff(live, got); diff != "" {
			t.Error(diff)
		}
		if len(r.Problems) != 2 || r.Counts.NotConsistent != 5 || r.Counts.Errors != 0 ||
			string(r.Problems[0].Path) != dir+"/app/data.db" || r.Problems[1].Operation != OperationNotConsistent {
			t.Errorf("%+v", r)
		}
	}
	s := newSession()
	check(s, captured(t, s, Options{Roots: []string{dir}}))
	next := s.child(later())
	check(next, captured(t, next, Options{Roots: []string{dir}}))

	// Its log is left out: all the more.
	live = slices.DeleteFunc(live, func(p string) bool { return strings.HasSuffix(p, "-wal") })
	s = newSession()
	r := captured(t, s, Options{Roots: []string{dir}, Patterns: patterns(t, "*-wal")})
	if !s.entry(t, dir+"/app/data.db").NotConsistent || r.Counts.NotConsistent != 4 {
		t.Errorf("%+v", r)
	}

	// Owned by another source, under whatever name.
	link := filepath.Join(tempDir(t), "link")
	if err := os.Symlink(dir+"/app", link); err != nil {
		t.Fatal(err)
	}
	s = newSession()
	r = captured(t, s, Options{Roots: []string{dir + "/app"}, Owned: []string{link + "/data.db"}})
	want := []string{"", "/at rest.db", "/data.db-backup", "/other", "/text", "/text-wal"}
	for i := range want {
		want[i] = dir + "/app" + want[i]
	}
	if diff := cmp.Diff(want, s.paths()); diff != "" || len(r.Problems) > 0 {
		t.Errorf("%s %+v", diff, r.Problems)
	}
}

func TestLivePostgreSQL(t *testing.T) {
	files := []string{"/pg/PG_VERSION", "/pg/base/1/2", "/pg/base/1/PG_VERSION", "/pg/global/pg_control", "/pgx", "/other/PG_VERSION", "/other/postmaster.pid"}
	dir := tree(t, files...)
	got, r := below(t, dir, Options{Roots: []string{""}})
	if r.Counts.NotConsistent != 0 || len(got) != len(files)+6 {
		t.Errorf("stopped: %+v, %q", r, got)
	}
	write(t, dir+"/pg/postmaster.pid", "1\n")
	for _, root := range []string{dir, dir + "/pg"} {
		s := newSession()
		r = captured(t, s, Options{Roots: []string{root}})
		if r.Counts.NotConsistent != 5 || len(r.Problems) != 1 || string(r.Problems[0].Path) != dir+"/pg" {
			t.Errorf("running: %+v", r)
		}
		for _, e := range s.entries {
			if want := e.Type == snapshot.File && strings.HasPrefix(e.Path, dir+"/pg/"); want != e.NotConsistent {
				t.Errorf("%q: %v", e.Path, e.NotConsistent)
			}
		}
	}
	if got, r = below(t, dir, Options{Roots: []string{""}, Owned: []string{"/pg"}}); len(r.Problems) > 0 || slices.Contains(got, "/pg") {
		t.Errorf("owned: %+v, %q", r, got)
	}
}

func TestTablespace(t *testing.T) {
	dir := tree(t, "/space/PG_15_202209061/5/1234", "/space/PG_9.6_201608131/5/1234", "/space/PG_x_202209061/5", "/space/PG_15_2022/5", "/space/PG_VERSION")
	_, r := below(t, dir, Options{Roots: []string{""}})
	if r.Counts.NotConsistent != 2 || len(r.Problems) != 2 || string(r.Problems[0].Path) != dir+"/space/PG_15_202209061" {
		t.Errorf("%+v", r)
	}
}

func TestScanEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Scan(ctx, Options{Roots: []string{tree(t, "/a/b")}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

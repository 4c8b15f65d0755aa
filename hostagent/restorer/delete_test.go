package restorer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

func write(t testing.TB, dir string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func regular(t testing.TB, dir string) []string {
	t.Helper()
	nodes, err := trees.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return trees.Paths(nodes, unix.S_IFREG)
}

// TestWhatStaysKeepsItsMode has an ordinary user remove from directories that he owns and may not use.
func TestWhatStaysKeepsItsMode(t *testing.T) {
	for _, mode := range []os.FileMode{0o500, 0o300, 0} {
		dir := trees.TempDir(t)
		write(t, dir, "d/sub/gone", "d/sub/stays")
		for _, name := range []string{"d/sub", "d"} {
			if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
				t.Fatal(err)
			}
		}
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := newFake("/r")
		r := newRun(t.Context(), f, Options{Delete: true, Protect: func(path string, _ bool) bool { return path == "/r/d/sub/stays" }}, silent{})
		r.root = false
		if r.remove(fd, "d", "/r/d") || r.result.Failed > 0 {
			t.Errorf("mode %o: got %+v", mode, r.result)
		}
		j := &job{entry: f.file("/r/d", ""), name: "d"}
		if err := r.clearWay(fd, j); !errors.Is(err, errInTheWay) {
			t.Errorf("mode %o: got %v", mode, err)
		}
		_ = unix.Close(fd)
		for _, name := range []string{"d", "d/sub"} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: got %v, %v, want mode %o", name, info, err, mode)
			}
			if err := os.Chmod(filepath.Join(dir, name), 0o700); err != nil {
				t.Error(err)
			}
		}
		if got := regular(t, dir); !slices.Equal(got, []string{"d/sub/stays"}) {
			t.Errorf("mode %o: left are %q", mode, got)
		}
	}
}

func TestDelete(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"), f.dir("/r/sub"), f.file("/r/sub/a", "a"), f.dir("/r/sub/in"), f.file("/r/sub/in/b", "b"), f.file("/r/top", "t"))
	unknown := f.dir("/r/unknown")
	unknown.Unreadable = true
	f.add(unknown)
	f.problems = []snapshot.Problem{
		{Path: []byte("/r/vanished"), Operation: "read"},
		{Path: []byte("/r/sub/locked"), Operation: "list"},
		// These were captured.
		{Path: []byte("/r/sub"), Operation: "not consistent"},
		{Path: []byte("/r/db"), Operation: "read parent"},
	}
	extra := []string{"keep/file", "sub/extra", "sub/in/extra/deep/file", "sub/locked/file", "top extra", "unknown/file", "vanished", "db/data", "db/extra/x"}
	all := []string{"sub/a", "sub/in/b", "top"}
	cases := map[string]struct {
		options Options
		gone    []string
	}{
		"not asked for":          {Options{}, nil},
		"everything":             {Options{Delete: true}, []string{"keep/file", "sub/extra", "sub/in/extra/deep/file", "top extra", "db/data", "db/extra/x"}},
		"a subtree":              {Options{Delete: true, Select: []string{"/r/sub"}}, []string{"sub/extra", "sub/in/extra/deep/file"}},
		"an inner subtree":       {Options{Delete: true, Select: []string{"/r/sub/in"}}, []string{"sub/in/extra/deep/file"}},
		"one file":               {Options{Delete: true, Select: []string{"/r/sub/a"}}, nil},
		"dry run":                {Options{Delete: true, DryRun: true}, nil},
		"protected, kept places": {Options{Delete: true, Keep: []string{"T/keep"}, Protect: func(p string, _ bool) bool { return p == "/r/db/data" }}, []string{"sub/extra", "sub/in/extra/deep/file", "top extra", "db/extra/x"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			outside := victim(t)
			target := t.TempDir()
			write(t, target, append(slices.Clone(extra), all...)...)
			for _, at := range []string{"link", "sub/in/extra/link"} {
				if err := os.Symlink(outside, filepath.Join(target, at)); err != nil {
					t.Fatal(err)
				}
			}
			for i := range c.options.Keep {
				c.options.Keep[i] = replaceT(c.options.Keep[i], target)
			}
			c.options.Map = map[string]string{"/r": target}
			perfect(t, restore(t, f, c.options))
			want := slices.DeleteFunc(append(slices.Clone(extra), all...), func(p string) bool { return slices.Contains(c.gone, p) })
			slices.Sort(want)
			if got := regular(t, target); !slices.Equal(got, want) {
				t.Errorf("left %q\nwant %q", got, want)
			}
		})
	}
}

// TestDeleteDeep removes a tree deeper than descriptors stay open for, and longer than PATH_MAX.
func TestDeleteDeep(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"))
	target := trees.TempDir(t)
	at, err := unix.Open(target, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * deepRemoval {
		name := strings.Repeat("d", 100)
		if err := unix.Mkdirat(at, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := openDirAt(at, name)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(at)
		at = next
	}
	_ = unix.Close(at)
	result := restore(t, f, Options{Target: target, Delete: true})
	perfect(t, result)
	if result.Deleted != 3*deepRemoval {
		t.Errorf("got %+v", result)
	}
}

func TestDirectoryInTheWay(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"), f.file("/r/a", "a"), f.file("/r/b", "b"))
	target := t.TempDir()
	write(t, target, "a/file")
	if err := os.Mkdir(filepath.Join(target, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if result := restore(t, f, Options{Target: target}); result.Failed != 1 || result.Updated != 1 {
		t.Errorf("got %+v; want the full directory to stay and the empty one replaced", result)
	}
	if got := regular(t, target); !slices.Equal(got, []string{"a/file", "b"}) {
		t.Errorf("left %q", got)
	}
	perfect(t, restore(t, f, Options{Target: target, Delete: true}))
	if got := regular(t, target); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("left %q", got)
	}
}

// TestManyDirectories has more directories than stay open, deeper than that too.
func TestManyDirectories(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"))
	path := "/r"
	for range 2 * maxDirs {
		path += "/d"
		f.add(f.dir(path), f.file(path+"/f", "x"))
	}
	for i := range 2 * maxDirs {
		wide := "/r/w" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + strings.Repeat("y", i/50)
		f.entries = append(f.entries, f.dir(wide), f.file(wide+"/f", "y"))
	}
	f.add()
	target := trees.TempDir(t)
	perfect(t, restore(t, f, Options{Target: target}))
	again := restore(t, f, Options{Target: target, Verify: true, Delete: true})
	perfect(t, again)
	if again.Unchanged != uint64(len(f.entries)) {
		t.Errorf("%d of %d unchanged", again.Unchanged, len(f.entries))
	}
}

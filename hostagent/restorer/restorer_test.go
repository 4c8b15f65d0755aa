package restorer

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/test/trees"
)

// snapshotOf makes a random tree and captures it.
func snapshotOf(t testing.TB, seed uint64, options trees.Options) (f *fake, dir string) {
	t.Helper()
	dir = trees.TempDir(t)
	trees.Make(t, dir, seed, options)
	f = newFake("/srv/data")
	f.capture(t, "/srv/data", dir)
	return f, dir
}

func TestRestoreEqualsWhatWasCaptured(t *testing.T) {
	for seed := range uint64(6) {
		f, dir := snapshotOf(t, seed, trees.Options{Deep: seed == 0, MaxFile: 1 << 20})
		target := filepath.Join(trees.TempDir(t), "made", "on the way")
		result := restore(t, f, Options{Target: target})
		perfect(t, result)
		equal(t, dir, target)
		noTemps(t, target)

		again := restore(t, f, Options{Target: target})
		perfect(t, again)
		if again.Created+again.Updated+again.Metadata+again.Written > 0 {
			t.Errorf("seed %d: a second restore did something: %+v", seed, again)
		}
		equal(t, dir, target)

		verified := restore(t, f, Options{Target: target, Verify: true})
		if verified.Updated+verified.Written > 0 {
			t.Errorf("seed %d: comparing content found differences: %+v", seed, verified)
		}
	}
}

// TestRestoreOverAnotherTree restores over a tree with equal names and other things under them.
func TestRestoreOverAnotherTree(t *testing.T) {
	for seed := range uint64(6) {
		f, dir := snapshotOf(t, seed, trees.Options{})
		target := trees.TempDir(t)
		trees.Make(t, target, seed, trees.Options{})
		victim := trees.TempDir(t)
		trees.Make(t, victim, seed, trees.Options{Plain: true, Entries: 10})
		untouched, err := trees.Read(victim)
		if err != nil {
			t.Fatal(err)
		}
		disturb(t, target, victim, seed)
		before, err := trees.Read(target)
		if err != nil {
			t.Fatal(err)
		}
		dry := restore(t, f, Options{Target: target, Delete: true, DryRun: true})
		after, err := trees.Read(target)
		if err != nil {
			t.Fatal(err)
		}
		if diffs := trees.CompareNodes(before, after); len(diffs) > 0 {
			t.Fatalf("seed %d: the dry run changed %q", seed, diffs)
		}
		result := restore(t, f, Options{Target: target, Delete: true})
		perfect(t, result)
		equal(t, dir, target)
		noTemps(t, target)
		now, err := trees.Read(victim)
		if err != nil {
			t.Fatal(err)
		}
		if diffs := trees.CompareNodes(untouched, now); len(diffs) > 0 {
			t.Fatalf("seed %d: what symlinks lead to was changed: %q", seed, diffs)
		}
		if dry.Created != result.Created || dry.Deleted != result.Deleted {
			t.Errorf("seed %d: the dry run promised %+v, done was %+v", seed, dry, result)
		}
	}
}

// disturb changes a tree at random places. Symlinks that it makes lead to victim.
func disturb(t *testing.T, dir, victim string, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 99))
	nodes, err := trees.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			t.Fatal(err)
		}
	}
	for _, n := range nodes[1:] {
		if len(filepath.Base(n.Path)) > 200 || n.Type() == unix.S_IFSOCK {
			continue // no room for a suffix; sockets are not restored
		}
		path := filepath.Join(dir, n.Path)
		// What was replaced above must not be followed.
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err != nil || real != filepath.Dir(path) {
			continue
		}
		must(os.Chmod(filepath.Dir(path), 0o700))
		switch rng.IntN(12) {
		case 0:
			must(trees.Remove(path))
		case 1: // another type
			must(trees.Remove(path))
			must(os.Symlink(victim, path))
		case 2:
			must(trees.Remove(path))
			must(os.MkdirAll(filepath.Join(path, "sub", "dir"), 0o755))
		case 3:
			must(trees.Remove(path))
			must(os.WriteFile(path, []byte("other"), 0o600))
		case 4:
			must(os.WriteFile(path+" extra", []byte("extra"), 0o600))
		case 5:
			if n.Type() == unix.S_IFREG {
				must(os.Chmod(path, 0o755))
				must(os.Truncate(path, n.Size/2))
			}
		case 6:
			if n.Type() == unix.S_IFREG && n.Size > 0 { // same size, other content
				must(os.Chmod(path, 0o644))
				file, err := os.OpenFile(path, os.O_WRONLY, 0)
				must(err)
				if err == nil {
					_, err = file.WriteAt([]byte("#"), n.Size/2)
					must(err)
					must(file.Close())
				}
			}
		case 7:
			must(unix.Lutimes(path, make([]unix.Timeval, 2)))
		case 8:
			if n.Type() == unix.S_IFREG {
				must(os.Link(path, path+" extra link"))
			}
		}
	}
}

func TestPlaces(t *testing.T) {
	f := newFake("/etc", "/opt/app")
	f.add(
		f.dir("/etc"), f.file("/etc/hosts", "hosts"), f.dir("/etc/ssh"), f.file("/etc/ssh/config", "ssh"),
		f.dir("/opt/app"), f.file("/opt/app/run", "run"),
	)
	cases := map[string]struct {
		options Options
		want    []string // below T
	}{
		"several roots":        {Options{Target: "T"}, []string{"etc/hosts", "etc/ssh/config", "opt/app/run"}},
		"one root":             {Options{Target: "T", Select: []string{"/etc"}}, []string{"hosts", "ssh/config"}},
		"a subtree":            {Options{Target: "T", Select: []string{"/etc/ssh/"}}, []string{"config"}},
		"a file":               {Options{Target: "T", Select: []string{"/etc/ssh/config"}}, []string{"config"}},
		"two files":            {Options{Target: "T", Select: []string{"/etc/hosts", "/opt/app/run"}}, []string{"etc/hosts", "opt/app/run"}},
		"two into a new place": {Options{Target: "T/new", Select: []string{"/etc/hosts", "/etc/ssh/config"}}, []string{"new/etc/hosts", "new/etc/ssh/config"}},
		"within another":       {Options{Target: "T", Select: []string{"/etc", "/etc/ssh"}}, []string{"hosts", "ssh/config"}},
		"above a root":         {Options{Target: "T", Select: []string{"/opt"}}, []string{"run"}},
		"mapped roots":         {Options{Map: map[string]string{"/etc": "T/a", "/opt/app": "T/b"}}, []string{"a/hosts", "a/ssh/config", "b/run"}},
		"one mapped":           {Options{Target: "T/rest", Map: map[string]string{"/etc": "T/a"}}, []string{"a/hosts", "a/ssh/config", "rest/opt/app/run"}},
		"a subtree of mapped":  {Options{Select: []string{"/etc/ssh"}, Map: map[string]string{"/etc": "T/a"}}, []string{"a/ssh/config"}},
		"a mapped file":        {Options{Select: []string{"/etc/hosts"}, Map: map[string]string{"/etc/hosts": "T/name"}}, []string{"name"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.options.Target = replaceT(c.options.Target, dir)
			for key, place := range c.options.Map {
				c.options.Map[key] = replaceT(place, dir)
			}
			perfect(t, restore(t, f, c.options))
			nodes, err := trees.Read(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := trees.Paths(nodes, unix.S_IFREG); !equalStrings(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func replaceT(place, dir string) string {
	if place == "" {
		return ""
	}
	return dir + place[1:]
}

func equalStrings(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestSelectionErrors(t *testing.T) {
	f := newFake("/etc")
	f.add(f.dir("/etc"), f.file("/etc/hosts", "hosts"))
	for name, o := range map[string]Options{
		"no such path":  {Select: []string{"/etc/nothing"}},
		"no such root":  {Select: []string{"/var"}},
		"relative":      {Select: []string{"etc"}},
		"dots":          {Select: []string{"/etc/../../var"}},
		"map elsewhere": {Map: map[string]string{"/var": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			o.Target = filepath.Join(t.TempDir(), "new")
			if _, err := Restore(context.Background(), f, o, nil); !errors.Is(err, ErrSelection) {
				t.Errorf("got %v, want ErrSelection", err)
			}
			if _, err := os.Lstat(o.Target); err == nil {
				t.Error("the target was made")
			}
		})
	}
}

// TestOriginalPlace restores a root and a subtree to where they were.
func TestOriginalPlace(t *testing.T) {
	dir := trees.TempDir(t)
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	trees.Make(t, home, 3, trees.Options{Plain: true, Entries: 30})
	f := newFake(home)
	f.capture(t, home, home)
	copied := filepath.Join(dir, "copy")
	perfect(t, restore(t, f, Options{Target: copied}))
	equal(t, home, copied)
	if err := trees.Remove(home); err != nil {
		t.Fatal(err)
	}
	perfect(t, restore(t, f, Options{}))
	equal(t, copied, home)
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(home, "file")); err != nil {
		t.Fatal(err)
	}
	result := restore(t, f, Options{Select: []string{home + "/file"}})
	perfect(t, result)
	if result.Files != 1 || result.Created != 1 {
		t.Errorf("got %+v, want one file", result)
	}
}

func TestOnlyDifferingContentIsWritten(t *testing.T) {
	f := newFake("/r")
	content := make([]byte, 300<<10)
	for i := range content {
		content[i] = byte(i >> 10)
	}
	f.add(f.dir("/r"), f.file("/r/big", string(content)), f.file("/r/other", "unchanged"))
	target := t.TempDir()
	perfect(t, restore(t, f, Options{Target: target}))
	path := filepath.Join(target, "big")
	content[70<<10] = '#'
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	f.fetched = 0
	result := restore(t, f, Options{Target: target})
	perfect(t, result)
	if f.fetched != 1 || result.Updated != 1 || result.Reused != 300<<10-64<<10 {
		t.Errorf("fetched %d chunks; %+v; want one chunk and the rest from the file that was there", f.fetched, result)
	}
	f.fetched = 0
	if err := unix.Utimes(path, make([]unix.Timeval, 2)); err != nil {
		t.Fatal(err)
	}
	result = restore(t, f, Options{Target: target})
	if f.fetched != 0 || result.Metadata != 1 || result.Updated != 0 {
		t.Errorf("fetched %d chunks; %+v; want only the mtime set", f.fetched, result)
	}
}

// TestInheritedACL restores into a directory whose default ACL new files get.
func TestInheritedACL(t *testing.T) {
	f, dir := snapshotOf(t, 8, trees.Options{Entries: 20})
	target := trees.TempDir(t)
	sub := filepath.Join(target, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	acl := []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 57, 48, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255}
	if err := unix.Setxattr(sub, "system.posix_acl_default", acl, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	perfect(t, restore(t, f, Options{Target: sub}))
	equal(t, dir, sub)
}

// TestUnusableDirectory has an ordinary user restore into directories that he owns and may not use.
func TestUnusableDirectory(t *testing.T) {
	f := newFake("/r")
	top, sub := f.dir("/r"), f.dir("/r/sub")
	top.Mode, sub.Mode = 0o500, 0
	f.add(top, sub, f.file("/r/sub/f", "x"), f.file("/r/f", "x"))
	target := filepath.Join(trees.TempDir(t), "target")
	perfect(t, restore(t, f, Options{Target: target}))
	if err := os.Chmod(filepath.Join(target, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "sub", "f"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(target, "sub"), 0); err != nil {
		t.Fatal(err)
	}
	if result := restore(t, f, Options{Target: target}); result.Failed > 0 || result.Updated != 1 {
		t.Errorf("got %+v, want one update", result)
	}
	if info, err := os.Stat(filepath.Join(target, "sub")); err != nil || info.Mode().Perm() != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestByName uses ids of this host for names of the snapshot.
func TestByName(t *testing.T) {
	o := newOwners(true)
	f := newFake()
	e := f.dir("/r")
	e.UID, e.GID, e.User, e.Group = 4711, 4711, "root", "no such group on any host"
	if uid, gid, unknown := o.ids(e); uid != 0 || gid != 4711 || !unknown {
		t.Errorf("got %d, %d, %v", uid, gid, unknown)
	}
	o.byName = false
	if uid, gid, unknown := o.ids(e); uid != 4711 || gid != 4711 || unknown {
		t.Errorf("got %d, %d, %v", uid, gid, unknown)
	}
}

// TestDirectoriesAboveTheSelection checks that they have their mode before anything is put into them: after a kill the next
// run takes them for somebody else's.
func TestDirectoriesAboveTheSelection(t *testing.T) {
	f := newFake("/srv")
	x := f.dir("/srv/x")
	x.Mode = 0o750
	f.add(f.dir("/srv"), x, f.file("/srv/x/one", "one"), f.file("/srv/x/two", "two"))
	target := trees.TempDir(t)
	var mode os.FileMode
	o := Options{Target: target, Select: []string{"/srv/x/one", "/srv/x/two"}, fault: func(_, path string) error {
		if info, err := os.Stat(filepath.Join(target, "srv/x")); err == nil && path == "/srv/x/one" {
			mode = info.Mode().Perm()
		}
		return nil
	}}
	perfect(t, restore(t, f, o))
	if mode != 0o750 {
		t.Errorf("while the restore runs its mode is %o", mode)
	}
}

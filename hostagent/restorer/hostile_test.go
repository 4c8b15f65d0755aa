package restorer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// victim makes a directory with a file in it and fails the test if it differs at the end.
func victim(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := trees.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		after, err := trees.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		if diffs := trees.CompareNodes(before, after); len(diffs) > 0 {
			t.Errorf("outside of the target: %q", diffs)
		}
	})
	return dir
}

// TestHostileTrees restores trees that no backup makes.
func TestHostileTrees(t *testing.T) {
	for name, build := range map[string]func(f *fake, outside string){
		"dot dot": func(f *fake, outside string) {
			f.entries = append(f.entries, f.file("/r/..", "x"), f.file("/r/../precious", "x"), f.dir("/r/."))
		},
		"a zero byte":       func(f *fake, _ string) { f.entries = append(f.entries, f.file("/r/a\x00b", "x")) },
		"no name":           func(f *fake, _ string) { f.entries = append(f.entries, f.file("/r/", "x")) },
		"without directory": func(f *fake, _ string) { f.add(f.file("/r/missing/precious", "x")) },
		"file as directory": func(f *fake, _ string) { f.add(f.file("/r/a", "x"), f.file("/r/a/precious", "x")) },
		"through a symlink": func(f *fake, outside string) { f.add(f.symlink("/r/a", outside), f.file("/r/a/precious", "x")) },
		"symlink, then dir": func(f *fake, outside string) {
			f.add(f.symlink("/r/a", outside), f.dir("/r/a"), f.file("/r/a/precious", "x"))
		},
		"symlink, then file": func(f *fake, outside string) {
			f.add(f.symlink("/r/precious", outside+"/precious"), f.file("/r/precious", "x"))
		},
		"link to a symlink": func(f *fake, outside string) {
			first, second := f.symlink("/r/a", outside+"/precious"), f.file("/r/b", "x")
			first.Linked, second.Linked, second.Inode = true, true, first.Inode
			f.add(first, second)
		},
		"too much content": func(f *fake, _ string) {
			e := f.file("/r/a", "content")
			e.Size = 3
			f.add(e)
		},
		"extent past its chunk": func(f *fake, _ string) {
			e := f.file("/r/a", "content")
			e.Extents[0].Offset = 5
			f.add(e)
		},
		"huge hole": func(f *fake, _ string) {
			e := f.file("/r/a", "")
			e.Size, e.Extents = 1<<63, []snapshot.Extent{{Hole: true, Length: 1 << 63}}
			f.add(e)
		},
		"unknown type": func(f *fake, _ string) {
			e := f.dir("/r/a")
			e.Type = 'z'
			f.add(e)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake("/r")
			f.add(f.dir("/r"))
			outside := victim(t)
			build(f, outside)
			target := filepath.Join(t.TempDir(), "target")
			for range 2 { // also over what the first time left
				result, err := Restore(context.Background(), f, Options{Target: target, Delete: true}, nil)
				if err != nil {
					t.Fatalf("restore: %v", err)
				}
				if wants := !strings.HasPrefix(name, "symlink, ") && name != "link to a symlink"; wants && result.Failed == 0 {
					t.Errorf("nothing was reported: %+v", result)
				}
			}
			noTemps(t, target)
		})
	}
}

// TestSymlinksInTheWay has a target full of symlinks that lead out of it.
func TestSymlinksInTheWay(t *testing.T) {
	outside := victim(t)
	f := newFake("/r")
	f.add(f.dir("/r"), f.dir("/r/dir"), f.file("/r/dir/precious", "x"), f.file("/r/file", "x"), f.dir("/r/deep"), f.dir("/r/deep/er"), f.file("/r/deep/er/f", "x"))
	target := t.TempDir()
	for _, link := range [][2]string{{outside, "dir"}, {outside + "/precious", "file"}, {outside, "deep"}, {outside, "extra"}} {
		if err := os.Symlink(link[0], filepath.Join(target, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	result := restore(t, f, Options{Target: target, Delete: true})
	perfect(t, result)
	if result.Deleted != 1 || result.Updated != 3 {
		t.Errorf("got %+v", result)
	}
	if info, err := os.Lstat(filepath.Join(target, "dir")); err != nil || !info.IsDir() {
		t.Errorf("dir is %v, %v", info, err)
	}
}

// TestSymlinkAboveTheSelection is an error: replacing it would take away more than was selected.
func TestSymlinkAboveTheSelection(t *testing.T) {
	outside := victim(t)
	root := t.TempDir()
	f := newFake(root)
	f.add(f.dir(root), f.dir(root+"/a"), f.file(root+"/a/precious", "x"))
	if err := os.Symlink(outside, root+"/a"); err != nil {
		t.Fatal(err)
	}
	_, err := Restore(context.Background(), f, Options{Select: []string{root + "/a/precious"}}, nil)
	if !errors.Is(err, ErrNotDirectory) {
		t.Errorf("got %v, want ErrNotDirectory", err)
	}
}

// TestRaces has another process that replaces what the restore works on, at each step that changes something, by symlinks
// out of the target.
func TestRaces(t *testing.T) {
	for _, step := range []string{"mkdir", "create", "write", "metadata", "rename", "link", "remove", "unlink"} {
		t.Run(step, func(t *testing.T) {
			outside := victim(t)
			f := newFake("/r")
			first, second := f.file("/r/d/one", "one"), f.file("/r/d/two", "one")
			first.Linked, second.Linked, second.Inode = true, true, first.Inode
			f.add(f.dir("/r"), f.dir("/r/d"), f.dir("/r/d/e"), f.file("/r/d/e/precious", "x"), f.file("/r/d/precious", "x"), f.symlink("/r/d/link", "x"), first, second)
			target := filepath.Join(t.TempDir(), "target")
			for _, dir := range []string{"d/gone/sub", "d/link"} {
				if err := os.MkdirAll(filepath.Join(target, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			var mu sync.Mutex // or the attacker would meet his own symlinks
			hook := func(operation, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				if operation == step {
					swap(target, outside)
				}
				return nil
			}
			// Whether it succeeds depends on what the other process did; victim checks what counts.
			_, err := Restore(context.Background(), f, Options{Target: target, Delete: true, fault: hook}, nil)
			var place *PlaceError
			if err != nil && !errors.As(err, &place) {
				t.Errorf("restore: %v", err)
			}
		})
	}
}

// swap replaces everything below dir that can be replaced by symlinks to outside, as a fast attacker would.
func swap(dir, outside string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			swap(path, outside)
		}
		goal := outside
		if !e.IsDir() {
			goal = filepath.Join(outside, "precious")
		}
		if os.Rename(path, path+".away") == nil && !strings.HasSuffix(path, ".away") {
			_ = os.Symlink(goal, path) // it may be back already
		}
	}
}

// TestForeignHardLink has a file of somebody else linked into the target, with the size and mtime of the snapshot's: it must
// not get the snapshot's owner and mode.
func TestForeignHardLink(t *testing.T) {
	for _, linked := range []bool{false, true} {
		dir := t.TempDir()
		outside, target := filepath.Join(dir, "outside"), filepath.Join(dir, "target")
		if err := os.WriteFile(outside, []byte("same"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(outside, filepath.Join(target, "f")); err != nil {
			t.Fatal(err)
		}
		f := newFake("/r")
		e := f.file("/r/f", "same")
		e.Mode, e.Linked = 0o666, linked
		f.add(f.dir("/r"), e)
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, outside, []unix.Timespec{{}, {Sec: e.MTime.Sec, Nsec: int64(e.MTime.Nsec)}}, 0); err != nil {
			t.Fatal(err)
		}
		perfect(t, restore(t, f, Options{Target: target}))
		if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("linked %v: the other name's mode is %v, %v", linked, info.Mode(), err)
		}
	}
}

func TestPrivilegesNeedTheirOwner(t *testing.T) {
	if os.Geteuid() == 0 {
		r := newRun(context.Background(), newFake(), Options{}, silent{})
		if !r.root {
			t.Error("root is not recognised")
		}
		return // root can give files away
	}
	f := newFake("/r")
	e := f.file("/r/su", "x")
	e.UID, e.Mode = 0, 0o4755
	f.add(f.dir("/r"), e)
	target := t.TempDir()
	result := restore(t, f, Options{Target: target})
	perfect(t, result)
	if info, err := os.Stat(filepath.Join(target, "su")); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, %v; want no set-uid bit", info.Mode(), err)
	}
	if len(result.Warnings) != 2 {
		t.Errorf("warnings %v, want owner and set-uid", result.Warnings)
	}
}

package restorer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// manyNames is a snapshot of files that have a short and a long name each, in three directories.
func manyNames(files int) *fake {
	f := newFake("/r")
	entries := []*snapshot.Entry{f.dir("/r"), f.dir("/r/a"), f.dir("/r/b"), f.dir("/r/c")}
	for i := range files {
		for d, name := range []string{"%d", strings.Repeat("n", 200) + "%d", "other-%d"} {
			e := f.file(fmt.Sprintf("/r/%c/"+name, 'a'+d, i), fmt.Sprint("content of ", i))
			e.Linked, e.Inode = true, uint64(5000+i)
			if i%2 > 0 && d == 0 {
				continue // its first name is a long one
			}
			entries = append(entries, e)
		}
	}
	f.add(entries...)
	return f
}

func wantNames(t *testing.T, target string, files int) {
	t.Helper()
	for i := range files {
		var first, last unix.Stat_t
		if err := unix.Lstat(filepath.Join(target, "b", strings.Repeat("n", 200)+fmt.Sprint(i)), &first); err != nil {
			t.Fatal(err)
		}
		if err := unix.Lstat(filepath.Join(target, "c", fmt.Sprint("other-", i)), &last); err != nil {
			t.Fatal(err)
		}
		if inodeOf(&first) != inodeOf(&last) || first.Nlink != uint64(3-i%2) {
			t.Fatalf("file %d has %d names, and is inode %v and %v", i, first.Nlink, inodeOf(&first), inodeOf(&last))
		}
	}
	wantContent(t, filepath.Join(target, "c", "other-7"), "content of 7")
}

// TestManyNames restores more files of several names than are in memory, with a place to remember them and without one.
func TestManyNames(t *testing.T) {
	const files = 3000
	f := manyNames(files)
	for name, temp := range map[string]string{"on disk": t.TempDir(), "in memory": filepath.Join(t.TempDir(), "nowhere")} {
		t.Run(name, func(t *testing.T) {
			target := t.TempDir()
			result := restore(t, f, Options{Target: target, Temp: temp})
			perfect(t, result)
			if want := uint64(files + files/2); result.Links != want {
				t.Errorf("%d links instead of %d", result.Links, want)
			}
			wantNames(t, target, files)
			// Once more: all stays, and a name that has become a file of its own is linked again.
			apart := filepath.Join(target, "c", "other-7")
			if err := os.Remove(apart); err != nil {
				t.Fatal(err)
			}
			write(t, target, "c/other-7")
			result = restore(t, f, Options{Target: target, Temp: temp})
			if perfect(t, result); result.Updated+result.Created != 1 {
				t.Errorf("%+v", result)
			}
			wantNames(t, target, files)
		})
	}
}

// TestForgottenNames restores where it can't be told whether a name is one of a file that is there: it becomes a file of
// its own, and the result says so.
func TestForgottenNames(t *testing.T) {
	f := manyNames(3)
	target := t.TempDir()
	result := restore(t, f, Options{Target: target, fault: func(operation, path string) error {
		if operation == "join" && path == "/r/a/0" {
			return unix.EIO
		}
		return nil
	}})
	if result.Failed != 1 || !strings.Contains(fmt.Sprint(result.Problems), "one file with another name") {
		t.Errorf("%+v", result)
	}
	wantContent(t, filepath.Join(target, "a/0"), "content of 0")
}

// TestSettledGroups asserts what a file of several names costs.
func TestSettledGroups(t *testing.T) {
	const files = 200_000
	s := newSettledGroups(t.TempDir())
	defer s.close()
	dirs := []*directory{{name: "a"}, {name: "b"}}
	key := func(i int) groupKey { return groupKey{1, uint64(i), 2, snapshot.File} }
	name := func(i int) string { return fmt.Sprint(strings.Repeat("x", i%longName/2), i) }
	for i := range files {
		if !s.add(key(i), &group{dir: dirs[i%2], name: name(i), id: inode{2, uint64(i)}}) {
			t.Fatal("a group was not kept")
		}
		if !s.claim(inode{3, uint64(i)}) {
			t.Fatal("a file that nobody claimed is claimed")
		}
	}
	for i := range files {
		x := s.find(key(i))
		if x == nil || !x.settled || x.dir != dirs[i%2] || x.name != name(i) || x.id != (inode{2, uint64(i)}) {
			t.Fatalf("file %d is %+v", i, x)
		}
		if s.claim(inode{3, uint64(i)}) {
			t.Fatal("a file was claimed twice")
		}
	}
	if x := s.find(key(files)); x != nil || s.damaged() {
		t.Errorf("a file that is not there is %+v", x)
	}
	memory := 0
	for _, table := range []interface{ Usage() (int, int) }{s.groups, s.rests, s.claimed} {
		_, n := table.Usage()
		memory += n
	}
	if memory > 10<<20 { // most of it are blocks that are not full, of which there are never more
		t.Errorf("%d files take %d bytes", files, memory)
	}
	if s.add(key(files), &group{dir: dirs[0], name: strings.Repeat("x", longName+1)}) {
		t.Error("a name that is too long was kept")
	}
}

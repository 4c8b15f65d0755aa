package files

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// later is a time of capture long after every change of a test.
func later() time.Time { return time.Now().Add(time.Hour) }

// tempDir is a directory that can be removed whatever modes the test leaves in it.
func tempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		_ = os.Chmod(dir, 0o700)
		if r, err := os.OpenRoot(dir); err == nil {
			makeRemovable(r)
		}
	})
	return dir
}

// makeRemovable works on trees of any depth.
func makeRemovable(r *os.Root) {
	defer r.Close()
	list, _ := fs.ReadDir(r.FS(), ".")
	for _, d := range list {
		if !d.IsDir() {
			continue
		}
		_ = r.Chmod(d.Name(), 0o700)
		if below, err := r.OpenRoot(d.Name()); err == nil {
			makeRemovable(below)
		}
	}
}

func write(t testing.TB, path string, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// bytesOf returns n bytes that do not compress.
func bytesOf(seed uint64, n int) string {
	rng := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, rng.Uint64())
	}
	return string(b[:n])
}

// tick waits until what is changed from now on has other times than what was changed before: the clock of a file system may
// stand still for some milliseconds.
func tick(t testing.TB) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tick")
	now := func() (st unix.Stat_t) {
		write(t, path, "")
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	for before := now(); now().Ctim == before.Ctim; {
		time.Sleep(time.Millisecond)
	}
}

func TestOrderOfWalkIsOrderOfTrees(t *testing.T) {
	dir := tempDir(t)
	for _, name := range []string{"a/x", "a.b", "a-", "a/y/z", "a!", "a0", "A", "a/y.", "a/y-/z", "ab", "\xff", "~", "a\x01"} {
		write(t, filepath.Join(dir, name), name)
	}
	s := newSession()
	captured(t, s, Options{Roots: []string{dir}}) // the session refuses another order
	want := []string{dir}
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		want = append(want, path)
		return nil
	})
	want = slices.Compact(want)
	slices.SortFunc(want, snapshot.ComparePaths)
	if diff := cmp.Diff(want, s.paths()); diff != "" {
		t.Error(diff)
	}
}

// compareTree compares what was captured with what is there.
func compareTree(t *testing.T, s *fakeSession, dir string) {
	t.Helper()
	nodes, err := trees.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) != len(s.entries) {
		t.Errorf("%d entries, want %d", len(s.entries), len(nodes))
	}
	byPath := map[string]*snapshot.Entry{}
	for _, e := range s.entries {
		byPath[e.Path] = e
	}
	for i := range nodes {
		n := &nodes[i]
		path := dir
		if n.Path != "." {
			path = dir + "/" + n.Path
		}
		e := byPath[path]
		if e == nil {
			t.Errorf("%q: missing", path)
			continue
		}
		want, got := describeNode(n), describeEntry(t, s, e)
		if n.Path == "." {
			want.Xattrs, got.Xattrs = nil, nil // the reader of the test does not see those of the top
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", n.Path, diff)
		}
	}
}

type description struct {
	Mode, UID, GID        uint32
	Type                  byte
	MTime, CTime          snapshot.Time
	Device, Inode         uint64
	Linked                bool
	Size                  int64
	Target, Hash, Device2 string
	Segments              []trees.Segment
	Xattrs                map[string]string
}

func describeNode(n *trees.Node) description {
	kinds := map[uint32]byte{
		unix.S_IFREG: 'f', unix.S_IFDIR: 'd', unix.S_IFLNK: 'l', unix.S_IFIFO: 'p', unix.S_IFSOCK: 's', unix.S_IFCHR: 'c', unix.S_IFBLK: 'b',
	}
	d := description{
		Mode: n.Mode & 0o7777, UID: n.UID, GID: n.GID, Type: kinds[n.Type()],
		MTime: timeOf(n.MTime), CTime: timeOf(n.CTime), Device: n.Device, Inode: n.Inode,
		Linked: n.Links > 1 && n.Type() != unix.S_IFDIR, Target: n.Target, Xattrs: n.Xattrs,
	}
	switch n.Type() {
	case unix.S_IFREG:
		d.Size, d.Segments, d.Hash = n.Size, n.Segments, fmt.Sprintf("%x", n.Hash)
	case unix.S_IFCHR, unix.S_IFBLK:
		d.Device2 = fmt.Sprint(unix.Major(n.Rdev), unix.Minor(n.Rdev))
	}
	if len(d.Xattrs) == 0 {
		d.Xattrs = nil
	}
	if len(d.Segments) == 0 {
		d.Segments = nil
	}
	return d
}

func describeEntry(t *testing.T, s *fakeSession, e *snapshot.Entry) description {
	d := description{
		Mode: e.Mode, UID: e.UID, GID: e.GID, Type: byte(e.Type), MTime: e.MTime, CTime: e.CTime,
		Device: e.Device, Inode: e.Inode, Linked: e.Linked, Target: e.Target, Size: int64(e.Size),
	}
	switch e.Type {
	case snapshot.File:
		d.Hash = fmt.Sprintf("%x", sha256.Sum256(s.content(t, e)))
		at := int64(0)
		for _, x := range s.extents(t, e) {
			if n := len(d.Segments); !x.Hole && n > 0 && d.Segments[n-1].Offset+d.Segments[n-1].Length == at {
				d.Segments[n-1].Length += int64(x.Length)
			} else if !x.Hole {
				d.Segments = append(d.Segments, trees.Segment{Offset: at, Length: int64(x.Length)})
			}
			at += int64(x.Length)
		}
	case snapshot.CharDevice, snapshot.Device:
		d.Device2 = fmt.Sprint(e.Major, e.Minor)
	}
	for _, x := range e.Xattrs {
		if d.Xattrs == nil {
			d.Xattrs = map[string]string{}
		}
		d.Xattrs[x.Name] = string(x.Value)
	}
	return d
}

func TestRandomTrees(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			dir := tempDir(t)
			trees.Make(t, dir, seed, trees.Options{Deep: seed%2 == 0, MaxFile: 1 << 20})
			s := newSession()
			r := captured(t, s, Options{Roots: []string{dir}})
			compareTree(t, s, dir)
			if len(r.Problems) > 0 {
				t.Errorf("problems: %+v", r.Problems)
			}
			// The next capture takes everything over without opening a file.
			next := s.child(later())
			sys := realSystem()
			open := sys.openat
			sys.openat = func(dirFD int, name string, flags int) (int, error) {
				if flags&unix.O_DIRECTORY == 0 {
					t.Errorf("%q was opened", name)
				}
				return open(dirFD, name, flags)
			}
			r = captureSystem(t, next, Options{Roots: []string{dir}}, sys)
			if diff := cmp.Diff(s.entries, next.entries); diff != "" {
				t.Error(diff)
			}
			if c := r.Counts; c.NewFiles+c.ChangedFiles+c.ReadBytes != 0 || next.added != 0 {
				t.Errorf("unchanged, but %+v, %d bytes added", c, next.added)
			}
			// A capture that trusts nothing reads everything and stores nothing.
			again := s.child(time.Unix(0, 0))
			r = captured(t, again, Options{Roots: []string{dir}})
			if diff := cmp.Diff(s.entries, again.entries); diff != "" {
				t.Error(diff)
			}
			if again.added != 0 || r.Counts.ChangedFiles != 0 || r.Counts.NewFiles != 0 {
				t.Errorf("read again: %+v, %d bytes added", r.Counts, again.added)
			}
		})
	}
}

func TestLargeFiles(t *testing.T) {
	dir := tempDir(t)
	for i, size := range []int{
		smallFile, smallFile + 1, 1 << 20, 4<<20 - 1, snapshot.MapSpan - 1, snapshot.MapSpan, snapshot.MapSpan + 1, 2*snapshot.MapSpan + 12345,
	} {
		write(t, fmt.Sprintf("%s/%02d", dir, i), bytesOf(uint64(i), size))
	}
	// Data at many places, one of them over the border of two maps.
	f, err := os.Create(dir + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < 40<<20; at += 3 << 20 {
		if _, err := f.WriteAt([]byte(bytesOf(uint64(at), 100_000)), at+(8<<20)-50_000); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(100<<20 + 1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := newSession()
	r := captured(t, s, Options{Roots: []string{dir}})
	compareTree(t, s, dir)
	if r.Counts.Files != 9 || r.Counts.NewFiles != 9 || len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
	if e := s.entry(t, dir+"/07"); len(e.Maps) != 3 {
		t.Errorf("%d maps", len(e.Maps))
	}
	// An insertion at the beginning of a large file costs few chunks.
	content, _ := os.ReadFile(dir + "/07")
	write(t, dir+"/07", "inserted"+string(content))
	next := s.child(later())
	r = captured(t, next, Options{Roots: []string{dir}})
	compareTree(t, next, dir)
	if r.Counts.ChangedFiles != 1 || next.added > 6<<20 {
		t.Errorf("%+v, %d bytes added", r.Counts, next.added)
	}
}

func TestSmallFilesShareChunks(t *testing.T) {
	dir := tempDir(t)
	for i := range 1000 {
		write(t, fmt.Sprintf("%s/%d/%d", dir, i%7, i), bytesOf(uint64(i%800), 100+i%800*10))
	}
	s := newSession()
	captured(t, s, Options{Roots: []string{dir}})
	compareTree(t, s, dir)
	if len(s.chunks) > 30 {
		t.Errorf("%d chunks", len(s.chunks))
	}
	write(t, dir+"/3/3", "changed")
	write(t, dir+"/6/new", bytesOf(17, 270)) // as file 17
	next := s.child(later())
	r := captured(t, next, Options{Roots: []string{dir}})
	compareTree(t, next, dir)
	if next.added != len("changed") || r.Counts.NewFiles != 1 || r.Counts.ChangedFiles != 1 {
		t.Errorf("%d bytes added, %+v", next.added, r.Counts)
	}
}

// TestBundlesFindTheirPlaceAgain edits one file and expects the bundles after it to be as before.
func TestBundlesFindTheirPlaceAgain(t *testing.T) {
	dir := tempDir(t)
	for i := range 400 {
		write(t, fmt.Sprintf("%s/%04d", dir, i), bytesOf(uint64(i), 30_000))
	}
	s := newSession()
	captured(t, s, Options{Roots: []string{dir}})
	total := s.added
	write(t, dir+"/0030", "changed")
	next := s.child(time.Time{})
	next.parent, next.known = nil, map[snapshot.FileID][]snapshot.Extent{}
	captured(t, next, Options{Roots: []string{dir}})
	if next.added > total/3 {
		t.Errorf("%d of %d bytes added", next.added, total)
	}
}

func TestFewChangesAmongMany(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/0/f", "")
	for i := range windowWeight + 500 {
		if err := os.Symlink("x", fmt.Sprintf("%s/0/%d", dir, i)); err != nil {
			t.Fatal(err)
		}
	}
	s := newSession()
	captured(t, s, Options{Roots: []string{dir}})
	write(t, dir+"/0/first", "1")
	next := s.child(later())
	captured(t, next, Options{Roots: []string{dir}})
	if e := next.entry(t, dir+"/0/first"); string(next.content(t, e)) != "1" {
		t.Error("the file is not there")
	}
}

func TestChangesAreSeen(t *testing.T) {
	dir := tempDir(t)
	edits := map[string]func(path string) error{
		"content": func(p string) error { return os.WriteFile(p, []byte("CONTENT"), 0o600) },
		"same size and mtime": func(p string) error {
			st, err := os.Stat(p)
			if err == nil {
				err = os.WriteFile(p, []byte("Content"), 0o600)
			}
			if err != nil {
				return err
			}
			return os.Chtimes(p, st.ModTime(), st.ModTime())
		},
		"mode":  func(p string) error { return os.Chmod(p, 0o640) },
		"mtime": func(p string) error { return os.Chtimes(p, time.Unix(1, 2), time.Unix(3, 4)) },
		"replaced": func(p string) error {
			if err := os.WriteFile(p+".new", []byte("content"), 0o600); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		},
		"type": func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Symlink("x", p)
		},
		"gone": os.Remove,
		"link": func(p string) error { return os.Link(p, p+" too") },
	}
	for name := range edits {
		write(t, filepath.Join(dir, name), "content")
	}
	write(t, dir+"/untouched", "content")
	s := newSession()
	captured(t, s, Options{Roots: []string{dir}})
	tick(t)
	for name, edit := range edits {
		if err := edit(filepath.Join(dir, name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	next := s.child(later())
	captured(t, next, Options{Roots: []string{dir}})
	compareTree(t, next, dir)
}

func TestRecentChangesAreReadAgain(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/f", "content")
	s := newSession()
	captured(t, s, Options{Roots: []string{dir}})
	for _, c := range []struct {
		after time.Duration // from the change to the capture
		read  uint64
	}{{-time.Second, 7}, {0, 7}, {1900 * time.Millisecond, 7}, {2100 * time.Millisecond, 0}} {
		e := s.entry(t, dir+"/f")
		next := s.child(time.Unix(e.CTime.Sec, int64(e.CTime.Nsec)).Add(c.after))
		r := captured(t, next, Options{Roots: []string{dir}})
		if r.Counts.ReadBytes != c.read || r.Counts.ChangedFiles != 0 {
			t.Errorf("captured %v after the change: %+v", c.after, r.Counts)
		}
	}
}

func TestManyNamesInOneDirectory(t *testing.T) {
	dir := tempDir(t)
	for i := range 3*blockSize + 7 {
		write(t, fmt.Sprintf("%s/%d", dir, i), "")
	}
	for i := range 50 {
		write(t, fmt.Sprintf("%s/%d.d/file", dir, i*40), fmt.Sprint(i))
	}
	s := newSession()
	captured(t, s, Options{Roots: []string{dir}})
	compareTree(t, s, dir)
}

func TestDeepTreeWithFewOpenDirectories(t *testing.T) {
	dir := tempDir(t)
	path := dir
	fd, err := unix.Open(dir, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 700 {
		for _, name := range []string{"a", "z"} {
			f, err := unix.Openat(fd, name, unix.O_CREAT|unix.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = unix.Write(f, []byte(name))
			unix.Close(f)
		}
		if err := unix.Mkdirat(fd, "middle", 0o700); err != nil {
			t.Fatal(err)
		}
		below, err := unix.Openat(fd, "middle", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd, path = below, path+"/middle"
	}
	unix.Close(fd)
	s := newSession()
	r := captured(t, s, Options{Roots: []string{dir}})
	if r.Counts.Files != 1400 || r.Counts.Directories != 701 || len(r.Problems) > 0 {
		t.Errorf("%+v", r)
	}
	if e := s.entries[len(s.entries)-1]; !strings.HasSuffix(e.Path, "/z") || string(s.content(t, e)) != "z" {
		t.Errorf("last entry %q", e.Path)
	}
	if n := len(path); n < 4096 {
		t.Fatalf("the tree is only %d bytes deep", n)
	}
}

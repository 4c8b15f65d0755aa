package restorer

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// fake is a snapshot in memory. Unlike a real one it holds whatever a test puts into it.
type fake struct {
	roots    []string
	entries  []*snapshot.Entry
	chunks   map[snapshot.Hash][]byte
	maps     map[snapshot.Hash][]snapshot.Extent
	damaged  map[snapshot.Hash]bool
	problems []snapshot.Problem
	keys     *seal.Keys
	down     error // what the store answers

	mu      sync.Mutex
	fetched int // chunks, guarded by mu
}

func newFake(roots ...string) *fake {
	return &fake{
		roots: roots, chunks: map[snapshot.Hash][]byte{}, maps: map[snapshot.Hash][]snapshot.Extent{},
		damaged: map[snapshot.Hash]bool{}, keys: seal.NewKeys(seal.DataKey{1}, seal.Context{}),
	}
}

func (f *fake) Keys() *seal.Keys { return f.keys }

func (f *fake) Root(context.Context) (*snapshot.RootTable, error) {
	return &snapshot.RootTable{Roots: f.roots}, nil
}

// Counts are those of the entries, as a manifest has them.
func (f *fake) Counts() (c snapshot.Counts) {
	for _, e := range f.entries {
		switch e.Type {
		case snapshot.File:
			c.Files, c.Bytes = c.Files+1, c.Bytes+e.Size
		case snapshot.Directory:
			c.Directories++
		default:
			c.Others++
		}
	}
	return c
}

func (f *fake) Problems(context.Context) ([]snapshot.Problem, error) { return f.problems, nil }

func (f *fake) Entries(_ context.Context, from string) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		at := sort.Search(len(f.entries), func(i int) bool { return snapshot.ComparePaths(f.entries[i].Path, from) >= 0 })
		for _, e := range f.entries[at:] {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (f *fake) Lookup(ctx context.Context, path string) (*snapshot.Entry, error) {
	for e := range f.Entries(ctx, path) {
		if e.Path == path {
			return e, nil
		}
		break
	}
	return nil, fmt.Errorf("%w: %q", repository.ErrNoPath, path)
}

func (f *fake) Extents(_ context.Context, e *snapshot.Entry, fn func(snapshot.Extent) error) error {
	list := slices.Clone(e.Extents)
	for _, m := range e.Maps {
		if f.damaged[m.Ref.ID] {
			return fmt.Errorf("read the map of %q: %w", e.Path, &repository.DamageError{Key: "pack"})
		}
		list = append(list, f.maps[m.Ref.ID]...)
	}
	for _, x := range list {
		if err := fn(x); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Chunks(ctx context.Context, refs []repository.KindRef, fn func(int, []byte, error) error) error {
	if f.down != nil {
		return f.down
	}
	errs := make(chan error, 3)
	for w := range 3 {
		go func() {
			for i := w; i < len(refs); i += 3 {
				var err error
				plain, ok := f.chunks[refs[i].ID]
				switch {
				case ctx.Err() != nil:
					err = ctx.Err()
				case !ok || f.damaged[refs[i].ID]:
					err = fn(i, nil, &repository.DamageError{Key: "pack", Pack: 1, Err: snapshot.ErrFormat})
				default:
					err = fn(i, slices.Clone(plain), nil)
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	f.mu.Lock()
	f.fetched += len(refs)
	f.mu.Unlock()
	var err error
	for range 3 {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

func (f *fake) chunk(plain []byte) snapshot.Ref {
	id := f.keys.ChunkID(snapshot.Content, plain)
	f.chunks[id] = slices.Clone(plain)
	return snapshot.Ref{Pack: 1, Sealed: uint32(len(plain)), Plain: uint32(len(plain)), ID: id}
}

// content makes extents of data, without holes, in chunks of 64 KiB.
func (f *fake) content(data []byte) []snapshot.Extent {
	var list []snapshot.Extent
	for chunk := range slices.Chunk(data, 64<<10) {
		list = append(list, snapshot.Extent{Ref: f.chunk(chunk), Length: uint64(len(chunk))})
	}
	return list
}

// add adds entries and keeps the order of trees.
func (f *fake) add(entries ...*snapshot.Entry) {
	f.entries = append(f.entries, entries...)
	slices.SortStableFunc(f.entries, func(a, b *snapshot.Entry) int { return snapshot.ComparePaths(a.Path, b.Path) })
}

// dir and file make entries owned by the user of the test.
func (f *fake) dir(path string) *snapshot.Entry {
	return &snapshot.Entry{
		Path: path, Type: snapshot.Directory, Mode: 0o755, UID: uint32(unix.Geteuid()), GID: uint32(unix.Getegid()),
		MTime: snapshot.Time{Sec: 1_600_000_000, Nsec: 1}, Device: 1, Inode: uint64(len(f.entries)) + 1000,
	}
}

func (f *fake) file(path, content string) *snapshot.Entry {
	e := f.dir(path)
	e.Type, e.Mode, e.Size, e.Extents = snapshot.File, 0o644, uint64(len(content)), f.content([]byte(content))
	return e
}

func (f *fake) symlink(path, target string) *snapshot.Entry {
	e := f.dir(path)
	e.Type, e.Mode, e.Target = snapshot.Symlink, 0o777, target
	return e
}

// capture adds the tree at dir as the root.
func (f *fake) capture(t testing.TB, root, dir string) {
	t.Helper()
	nodes, err := trees.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		e := f.node(t, dir, &nodes[i])
		e.Path = filepath.Join(root, nodes[i].Path)
		f.entries = append(f.entries, e)
	}
	f.add()
}

var kinds = map[uint32]snapshot.Type{
	unix.S_IFREG: snapshot.File, unix.S_IFDIR: snapshot.Directory, unix.S_IFLNK: snapshot.Symlink, unix.S_IFIFO: snapshot.FIFO,
	unix.S_IFSOCK: snapshot.Socket, unix.S_IFCHR: snapshot.CharDevice, unix.S_IFBLK: snapshot.Device,
}

func (f *fake) node(t testing.TB, dir string, n *trees.Node) *snapshot.Entry {
	t.Helper()
	e := &snapshot.Entry{
		Type: kinds[n.Type()], Mode: n.Mode & 0o7777, UID: n.UID, GID: n.GID, Device: n.Device, Inode: n.Inode, Target: n.Target,
		MTime: snapshot.Time{Sec: n.MTime.Sec, Nsec: uint32(n.MTime.Nsec)}, Major: unix.Major(n.Rdev), Minor: unix.Minor(n.Rdev),
		Linked: n.Links > 1 && n.Type() != unix.S_IFDIR,
	}
	for name, value := range n.Xattrs {
		e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: name, Value: []byte(value)})
	}
	if e.Type != snapshot.File {
		return e
	}
	file, err := trees.Open(dir, n.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	e.Size = uint64(n.Size)
	var at int64
	hole := func(to int64) {
		if to > at {
			e.Extents = append(e.Extents, snapshot.Extent{Hole: true, Length: uint64(to - at)})
		}
	}
	for _, s := range n.Segments {
		hole(s.Offset)
		at = min(s.Offset+s.Length, n.Size)
		data := make([]byte, at-s.Offset)
		if _, err := file.ReadAt(data, s.Offset); err != nil {
			t.Fatal(err)
		}
		e.Extents = append(e.Extents, f.content(data)...)
	}
	hole(n.Size)
	return f.reshape(e)
}

// reshape makes use of all that the format has: big files get maps, some small ones share a chunk and have a file id.
func (f *fake) reshape(e *snapshot.Entry) *snapshot.Entry {
	switch {
	case len(e.Extents) > 3:
		for list := range slices.Chunk(e.Extents, 2) {
			m := snapshot.MapRef{Ref: snapshot.Ref{ID: f.keys.ChunkID(snapshot.Map, binary.BigEndian.AppendUint64(nil, uint64(len(f.maps))))}}
			for _, x := range list {
				m.Length += x.Length
				if !x.Hole {
					m.Packs = []snapshot.Range{{First: 1, Last: 1}}
				}
			}
			f.maps[m.Ref.ID] = list
			e.Maps = append(e.Maps, m)
		}
		e.Extents = nil
	case len(e.Extents) == 1 && !e.Extents[0].Hole && e.Size%2 == 0:
		plain := f.chunks[e.Extents[0].Ref.ID]
		e.HasFileID, e.FileID = true, f.keys.FileID(plain)
		ref := f.chunk([]byte("before" + string(plain) + "after"))
		e.Extents = []snapshot.Extent{{Ref: ref, Offset: 6, Length: e.Size}}
	}
	return e
}

// restore runs a restore that must not fail as a whole.
func restore(t testing.TB, f *fake, o Options) *Result {
	t.Helper()
	result, err := Restore(context.Background(), f, o, nil)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	return result
}

// perfect fails the test if something could not be restored.
func perfect(t testing.TB, r *Result) {
	t.Helper()
	for _, p := range r.Problems {
		t.Errorf("%q: %s: %v", p.Path, p.Operation, p.Err)
	}
	if r.Failed > 0 {
		t.Fatalf("%d failed", r.Failed)
	}
}

func equal(t testing.TB, want, got string) {
	t.Helper()
	if diffs := trees.Compare(want, got); len(diffs) > 0 {
		t.Fatalf("%d differences:\n%s", len(diffs), strings.Join(diffs[:min(len(diffs), 20)], "\n"))
	}
}

// noTemps fails the test if temporary files or marks are left in a tree.
func noTemps(t testing.TB, dir string) {
	t.Helper()
	nodes, err := trees.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if strings.HasPrefix(filepath.Base(n.Path), ".holdfast") {
			t.Errorf("left behind: %q", n.Path)
		}
	}
}

package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTreeRoundTrip(t *testing.T) {
	want := sampleEntries()
	for _, e := range want {
		if err := e.Check(); err != nil {
			t.Fatal(err)
		}
	}
	b := encodeTree(want)
	got, err := decodeTree(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if !bytes.Equal(encodeTree(got), b) {
		t.Fatal("what parses does not re-encode to the same bytes")
	}
}

// TestTreeTruncated cuts a tree chunk at every place: none of the halves may pass, except at the ends of records.
func TestTreeTruncated(t *testing.T) {
	b := encodeTree(sampleEntries())
	ends := map[int]bool{0: true}
	for r := (reader{b: b}); r.left() > 0; {
		r.str()
		ends[r.off] = true
	}
	for n := range b {
		_, err := decodeTree(b[:n])
		if ends[n] != (err == nil) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Fatalf("cut at %d: %v is no ErrFormat", n, err)
		}
	}
}

// TestRefusedEntries checks that what Check refuses, readers refuse too.
func TestRefusedEntries(t *testing.T) {
	file := func(e *Entry) { *e = *sampleEntries()[2] }
	maps := func(e *Entry) { *e = *sampleEntries()[4] }
	for name, change := range map[string]func(*Entry){
		"relative path":           func(e *Entry) { e.Path = "a" },
		"path with dots":          func(e *Entry) { e.Path = "/a/../b" },
		"path with a zero byte":   func(e *Entry) { e.Path = "/a\x00" },
		"long path":               func(e *Entry) { e.Path = "/" + strings.Repeat("x", MaxPath) },
		"type":                    func(e *Entry) { e.Type = 'z' },
		"no type":                 func(e *Entry) { e.Type = 0 },
		"mode":                    func(e *Entry) { e.Mode = 0o10644 },
		"mtime":                   func(e *Entry) { e.MTime.Nsec = 1e9 },
		"ctime":                   func(e *Entry) { e.CTime.Nsec = 1e9 },
		"long target":             func(e *Entry) { e.Type, e.Target = Symlink, strings.Repeat("x", MaxPath+1) },
		"target with a zero byte": func(e *Entry) { e.Type, e.Target = Symlink, "a\x00b" },
		"linked directory":        func(e *Entry) { e.Linked = true },
		"xattr without a name":    func(e *Entry) { e.Xattrs = []Xattr{{"", nil}} },
		"xattr with a zero byte":  func(e *Entry) { e.Xattrs = []Xattr{{"a\x00", nil}} },
		"xattrs twice":            func(e *Entry) { e.Xattrs = []Xattr{{"a", nil}, {"a", nil}} },
		"xattrs out of order":     func(e *Entry) { e.Xattrs = []Xattr{{"b", nil}, {"a", nil}} },
		"file too short":          func(e *Entry) { file(e); e.Size-- },
		"file too long":           func(e *Entry) { file(e); e.Size++ },
		"content of the unreadable": func(e *Entry) {
			file(e)
			e.Unreadable = true
		},
		"file id of the unreadable": func(e *Entry) {
			file(e)
			e.Unreadable, e.Size, e.Extents = true, 0, nil
		},
		"extent past its chunk":   func(e *Entry) { file(e); e.Extents[0].Offset++ },
		"pack 2³²":                func(e *Entry) { file(e); e.Extents[0].Ref.Pack = 1 << 32 },
		"range to 2³²":            func(e *Entry) { maps(e); e.Maps[0].Packs = []Range{{2, 1 << 32}} },
		"pack 0":                  func(e *Entry) { file(e); e.Extents[0].Ref.Pack = 0 },
		"ref into the header":     func(e *Entry) { file(e); e.Extents[0].Ref.Offset = PackHeaderSize - 1 },
		"ref past the pack":       func(e *Entry) { file(e); e.Extents[0].Ref.Offset = MaxPack - 1 },
		"empty chunk":             func(e *Entry) { file(e); e.Extents[0].Ref.Plain = 0 },
		"large chunk":             func(e *Entry) { file(e); e.Extents[0].Ref.Plain = MaxChunk + 1 },
		"chunk grown by sealing":  func(e *Entry) { file(e); e.Extents[0].Ref.Sealed = 100_000 + Overhead + 1 },
		"chunk without a body":    func(e *Entry) { file(e); e.Extents[0].Ref.Sealed = Overhead },
		"small file with a map":   func(e *Entry) { maps(e); e.Size = 7; e.Maps = e.Maps[2:] },
		"large file with extents": func(e *Entry) { maps(e); e.Maps = nil; e.Extents = []Extent{{Hole: true, Length: e.Size}} },
		"huge file":               func(e *Entry) { maps(e); e.Size = 1 << 63 },
		"maps too short":          func(e *Entry) { maps(e); e.Maps = e.Maps[:2] },
		"maps too long":           func(e *Entry) { maps(e); e.Maps = append(e.Maps, e.Maps[2]) },
		"maps of unequal spans":   func(e *Entry) { maps(e); e.Maps[0].Length, e.Maps[1].Length = MapSpan+1, MapSpan-1 },
		"empty map":               func(e *Entry) { maps(e); e.Maps[0].Length = 0 },
		"range from 0":            func(e *Entry) { maps(e); e.Maps[0].Packs = []Range{{0, 1}} },
		"touching ranges":         func(e *Entry) { maps(e); e.Maps[0].Packs = []Range{{1, 1}, {2, 2}} },
		"overlapping ranges":      func(e *Entry) { maps(e); e.Maps[0].Packs = []Range{{1, 5}, {3, 7}} },
		"range past the end":      func(e *Entry) { maps(e); e.Maps[0].Packs = []Range{{2, 1<<64 - 1}, {1, 1}} },
	} {
		e := Entry{Path: "/dir", Type: Directory}
		change(&e)
		if err := e.Check(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Check: %v", name, err)
		}
		if _, err := decodeTree(AppendEntry(nil, "", &e)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: DecodeTree: %v", name, err)
		}
	}
}

func TestTreeOrder(t *testing.T) {
	for _, paths := range [][2]string{{"/b", "/a"}, {"/a", "/a"}, {"/a/b", "/a"}, {"/a", "/"}, {"/a b", "/a/b"}} {
		b := encodeTree([]*Entry{{Path: paths[0], Type: Directory}, {Path: paths[1], Type: Directory}})
		if _, err := decodeTree(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", paths, err)
		}
	}
}

// TestTreePrefix refuses a prefix that is not the longest: the same entry would have two encodings.
func TestTreePrefix(t *testing.T) {
	first, second := &Entry{Path: "/ab", Type: Directory}, &Entry{Path: "/ac", Type: Directory}
	b := AppendEntry(nil, "", first)
	if _, err := decodeTree(AppendEntry(bytes.Clone(b), "/a", second)); err != nil {
		t.Error(err)
	}
	for _, prev := range []string{"", "/"} {
		if _, err := decodeTree(AppendEntry(bytes.Clone(b), prev, second)); !errors.Is(err, ErrFormat) {
			t.Errorf("prefix %q: %v", prev, err)
		}
	}
}

// TestTreeKeeps checks that entries do not share memory with the chunk, whose buffer is used again.
func TestTreeKeeps(t *testing.T) {
	b := encodeTree(sampleEntries())
	got, err := decodeTree(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if diff := cmp.Diff(sampleEntries(), got); diff != "" {
		t.Fatal(diff)
	}
}

func TestTreeStops(t *testing.T) {
	stop := errors.New("enough")
	n := 0
	err := DecodeTree(encodeTree(sampleEntries()), func(*Entry) error {
		n++
		return stop
	})
	if n != 1 || err != stop { //nolint:errorlint // exactly this error
		t.Fatal(n, err)
	}
}

func TestPacks(t *testing.T) {
	var got []Range
	for _, i := range []int{3, 4} {
		sampleEntries()[i].Packs(func(r Range) { got = append(got, r) })
	}
	want := []Range{{2, 2}, {3, 3}, {4, 4}, {1, 1}, {3, 9}, {5, 5}, {6, 6}, {200, 200}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// benchmarkTree is a chunk like those of a real tree: small files of one extent.
func benchmarkTree() []*Entry {
	var entries []*Entry
	for i := range 2000 {
		e := *sampleEntries()[2]
		e.Path = fmt.Sprintf("/usr/share/doc/package-%03d/file-%04d", i/20, i)
		e.User, e.Group = [2]string{"root", "ada"}[i%2], "users"
		entries = append(entries, &e)
	}
	return entries
}

func BenchmarkAppendEntry(b *testing.B) {
	entries := benchmarkTree()
	dst := make([]byte, 0, 1<<20)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; i >= len(entries) {
			i, dst = 1, dst[:0]
		}
		dst = AppendEntry(dst, entries[i-1].Path, entries[i])
	}
}

func BenchmarkDecodeTree(b *testing.B) {
	entries := benchmarkTree()
	plain := encodeTree(entries)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := DecodeTree(plain, func(*Entry) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/entry")
}

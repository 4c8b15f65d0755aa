package snapshot

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// recode decodes bytes and encodes what they held again.
type recode func([]byte) ([]byte, error)

func recodeTree(b []byte) ([]byte, error) {
	entries, err := decodeTree(b)
	for _, e := range entries {
		if err := e.Check(); err != nil {
			return nil, fmt.Errorf("decodes, and does not pass Check: %s", err) //nolint:errorlint // not an ErrFormat
		}
	}
	return encodeTree(entries), err
}

func recodeMap(b []byte) ([]byte, error) {
	extents, err := DecodeMap(b)
	return EncodeMap(extents), err
}

func recodeRoot(b []byte) ([]byte, error) {
	root, err := DecodeRoot(b)
	if err != nil {
		return nil, err
	}
	return EncodeRoot(root), nil
}

func recodeList(b []byte) ([]byte, error) {
	packs, err := DecodeList(b)
	return EncodeList(packs), err
}

func recodeIndex(b []byte) ([]byte, error) {
	entries, err := DecodeIndex(b)
	return EncodeIndex(entries), err
}

func sampleExtents() []Extent {
	return []Extent{
		{Hole: true, Length: 1 << 20},
		{Ref: sampleRef(0), Offset: 10, Length: 20},
		{Ref: sampleRef(0), Offset: 40, Length: 99_960},
		{Hole: true, Length: 1},
		{Ref: sampleRef(200), Length: 1},
	}
}

func sampleRoot() *RootTable {
	return &RootTable{
		Roots:  []string{"/srv/data", "/etc", "/"},
		Chunks: []TreeChunk{{First: "/", Ref: sampleRef(7)}, {First: "/etc/passwd", Ref: sampleRef(8)}},
	}
}

func samplePacks() []PackInfo {
	return []PackInfo{
		{Number: 1, ID: Hash{1}, Salt: [32]byte{2}, Size: MinPack},
		{Number: 2, ID: Hash{3}, Salt: [32]byte{4}, Size: PackTarget},
		{Number: 4_000_000_000, ID: Hash{5}, Salt: [32]byte{6}, Size: MaxPack},
	}
}

func sampleIndex() []IndexEntry {
	return []IndexEntry{
		{Kind: Content, ID: Hash{1}, Sealed: MaxChunk + Overhead, Plain: MaxChunk},
		{Kind: Map, ID: Hash{2}, Sealed: 18, Plain: 1},
		{Kind: Tree, ID: Hash{3}, Sealed: 200, Plain: 70_000},
		{Kind: Root, ID: Hash{4}, Sealed: 300, Plain: 300},
		{Kind: Report, ID: Hash{5}, Sealed: 300, Plain: 283},
	}
}

// formats are all binary formats of the package, each with a sample.
func formats() map[string]struct {
	sample []byte
	recode recode
} {
	return map[string]struct {
		sample []byte
		recode recode
	}{
		"tree":  {encodeTree(sampleEntries()), recodeTree},
		"map":   {EncodeMap(sampleExtents()), recodeMap},
		"root":  {EncodeRoot(sampleRoot()), recodeRoot},
		"list":  {EncodeList(samplePacks()), recodeList},
		"index": {EncodeIndex(sampleIndex()), recodeIndex},
	}
}

// TestGolden pins the bytes: a repository written by an older version must read, and write, the same.
func TestGolden(t *testing.T) {
	for name, f := range formats() {
		path := filepath.Join("testdata", name+".hex")
		if *update {
			if err := os.WriteFile(path, []byte(hexLines(f.sample)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), hexLines(f.sample)); diff != "" {
			t.Errorf("%s (-golden +now):\n%s", name, diff)
		}
		golden, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := f.recode(golden); err != nil || !bytes.Equal(again, golden) {
			t.Errorf("%s: golden bytes do not decode to what encodes to them: %v", name, err)
		}
	}
}

func hexLines(b []byte) string {
	var text strings.Builder
	for len(b) > 0 {
		n := min(len(b), 32)
		text.WriteString(hex.EncodeToString(b[:n]) + "\n")
		b = b[n:]
	}
	return text.String()
}

// TestFlipped flips every bit of every sample: what still decodes must encode to the very same bytes, so that no two
// encodings mean the same.
func TestFlipped(t *testing.T) {
	for name, f := range formats() {
		sample := f.sample
		if name == "tree" {
			entries := sampleEntries()
			sample = encodeTree(entries[:len(entries)-1]) // without the long path, for speed
		}
		for i := range sample {
			for bit := range 8 {
				b := bytes.Clone(sample)
				b[i] ^= 1 << bit
				again, err := f.recode(b)
				if err == nil && !bytes.Equal(again, b) {
					t.Fatalf("%s: byte %d, bit %d: decodes, and encodes to other bytes", name, i, bit)
				}
				if err != nil && !errors.Is(err, ErrFormat) {
					t.Fatalf("%s: byte %d, bit %d: %v is no ErrFormat", name, i, bit, err)
				}
			}
		}
	}
}

// TestTrailing and truncation: no format may be longer or shorter than it says.
func TestTrailing(t *testing.T) {
	for name, f := range formats() {
		if _, err := f.recode(append(bytes.Clone(f.sample), 0)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
		if name == "tree" {
			continue // TestTreeTruncated
		}
		for n := range f.sample {
			if _, err := f.recode(f.sample[:n]); !errors.Is(err, ErrFormat) {
				t.Errorf("%s cut at %d: %v", name, n, err)
			}
		}
	}
}

// TestBombs gives every decoder counts that its input cannot hold: it must refuse them without reserving memory for them.
func TestBombs(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}
	for name, f := range formats() {
		b := append(bytes.Clone(huge), make([]byte, 100)...)
		if name == "list" {
			b = append([]byte(listHeader), b...)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := f.recode(b)
		runtime.ReadMemStats(&after)
		if reserved := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrFormat) || reserved > 64<<10 {
			t.Errorf("%s: %v, %d bytes reserved", name, err, reserved)
		}
	}
}

func fuzz(f *testing.F, name string) {
	format := formats()[name]
	if name == "tree" { // short seeds: the fuzzer spends its time on minimising long ones
		entries := sampleEntries()
		for i, e := range entries[1 : len(entries)-1] {
			f.Add(encodeTree([]*Entry{e}))
			f.Add(encodeTree(entries[i : i+2]))
		}
	} else {
		f.Add(format.sample)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := format.recode(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v is no ErrFormat", err)
			}
			return
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("decodes, and encodes to other bytes:\n%x\n%x", b, again)
		}
	})
}

func FuzzTree(f *testing.F)  { fuzz(f, "tree") }
func FuzzMap(f *testing.F)   { fuzz(f, "map") }
func FuzzRoot(f *testing.F)  { fuzz(f, "root") }
func FuzzList(f *testing.F)  { fuzz(f, "list") }
func FuzzIndex(f *testing.F) { fuzz(f, "index") }

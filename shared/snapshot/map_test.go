package snapshot

import (
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMapRoundTrip(t *testing.T) {
	got, err := DecodeMap(EncodeMap(sampleExtents()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleExtents(), got); diff != "" {
		t.Fatal(diff)
	}
	if n, err := CheckExtents(got); err != nil || n != 1<<20+20+99_960+1+1 {
		t.Fatal(n, err)
	}
	if got, err := DecodeMap(EncodeMap(nil)); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
}

// TestMapJoins checks that holes in a row are written as one, whoever found them one by one.
func TestMapJoins(t *testing.T) {
	data := Extent{Ref: sampleRef(1), Length: 5}
	hole := func(n uint64) Extent { return Extent{Hole: true, Length: n} }
	got, err := DecodeMap(EncodeMap([]Extent{hole(0), data, hole(1), hole(2), {}, hole(3), data, {}, data, hole(0)}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Extent{data, hole(6), data, data}, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestMapRefuses(t *testing.T) {
	hole := []byte{0, 9}
	for name, b := range map[string][]byte{
		"hole after hole": append(append([]byte{2}, hole...), hole...),
		"empty hole":      {1, 0, 0},
		"extent kind":     {1, 2, 9},
		"huge hole":       {1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"long number":     {1, 0, 0x89, 0x00},
		"empty":           {},
	} {
		if got, err := DecodeMap(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := CheckExtents([]Extent{{Hole: true, Length: math.MaxInt64}, {Hole: true, Length: 1}}); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

// TestLargeFiles checks that the entry of the largest file still fits in a tree chunk.
func TestLargeFiles(t *testing.T) {
	for size, want := range map[uint64]uint64{
		0: MapSpan, MapSpan: MapSpan, 512 << 30: MapSpan, 512<<30 + 1: 2 * MapSpan, 1 << 40: 2 * MapSpan, math.MaxInt64: 1 << 47,
	} {
		if got := SpanFor(size); got != want {
			t.Errorf("span for %d: %d, want %d", size, got, want)
		}
	}
	const size = uint64(math.MaxInt64)
	e := Entry{Path: "/sparse", Type: File, Size: size}
	for rest := size; rest > 0; {
		n := min(rest, SpanFor(size))
		ref := Ref{Pack: 1 << 30, Offset: MaxPack - 100_000, Sealed: 99_000, Plain: 100_000}
		e.Maps = append(e.Maps, MapRef{Ref: ref, Length: n, Packs: []Range{{1 << 30, 1 << 31}}})
		rest -= n
	}
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
	b := AppendEntry(nil, "", &e)
	if len(b) > MaxChunk/2 {
		t.Fatalf("%d maps take %d bytes", len(e.Maps), len(b))
	}
	got, err := decodeTree(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&e, got[0]) { // cmp takes seconds for so many maps
		t.Fatal("decodes to another entry")
	}
}

package snapshot

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestListRoundTrip(t *testing.T) {
	got, err := DecodeList(EncodeList(samplePacks()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(samplePacks(), got); diff != "" {
		t.Fatal(diff)
	}
}

func TestListRefuses(t *testing.T) {
	for name, packs := range map[string][]PackInfo{
		"number 0":     {{Number: 0, Size: 100}},
		"same number":  {{Number: 1, Size: 100}, {Number: 1, Size: 100}},
		"out of order": {{Number: 2, Size: 100}, {Number: 1, Size: 100}},
		"wrapped":      {{Number: math.MaxUint64, Size: 100}, {Number: 3, Size: 100}},
		"high number":  {{Number: MaxPackNumber + 1, Size: 100}},
		"small pack":   {{Number: 1, Size: MinPack - 1}},
		"large pack":   {{Number: 1, Size: MaxPack + 1}},
	} {
		if _, err := DecodeList(EncodeList(packs)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIndexRoundTrip(t *testing.T) {
	b := EncodeIndex(sampleIndex())
	got, err := DecodeIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleIndex(), got); diff != "" {
		t.Fatal(diff)
	}
	if len(b) > MaxIndex(len(got)) {
		t.Fatalf("%d bytes, over MaxIndex", len(b))
	}
}

func TestIndexRefuses(t *testing.T) {
	large := IndexEntry{Kind: Content, Sealed: MaxChunk + Overhead, Plain: MaxChunk}
	for name, entries := range map[string][]IndexEntry{
		"kind":      {{Kind: 'z', Sealed: 20, Plain: 20}},
		"itself":    {{Kind: Index, Sealed: 20, Plain: 20}},
		"empty":     {{Kind: Content, Sealed: 20}},
		"unsealed":  {{Kind: Content, Sealed: Overhead, Plain: 20}},
		"grown":     {{Kind: Content, Sealed: 20 + Overhead + 1, Plain: 20}},
		"over pack": {large, large, large, large},
	} {
		if _, err := DecodeIndex(EncodeIndex(entries)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPackFrame(t *testing.T) {
	salt := [32]byte{1, 31: 2}
	b := AppendPackHeader(nil, salt)
	if got, err := ParsePackHeader(b); err != nil || got != salt || len(b) != PackHeaderSize {
		t.Fatal(got, err)
	}
	b = append(b, make([]byte, 100)...) // chunks and index
	b = AppendPackFooter(b, 30)
	offset, length, err := ParsePackFooter(b[len(b)-PackFooterSize:], uint64(len(b)))
	if err != nil || offset != PackHeaderSize+70 || length != 30 {
		t.Fatal(offset, length, err)
	}
	for _, n := range []int{0, Overhead, 101, math.MaxUint32} {
		bad := AppendPackFooter(b[:PackHeaderSize+100:PackHeaderSize+100], n)
		if _, _, err := ParsePackFooter(bad, uint64(len(bad))); !errors.Is(err, ErrFormat) {
			t.Errorf("index of %d bytes: %v", n, err)
		}
	}
	if _, _, err := ParsePackFooter(b[1:][:PackFooterSize-1], 100); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if _, err := ParsePackHeader(b[1:]); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func TestRootRoundTrip(t *testing.T) {
	got, err := DecodeRoot(EncodeRoot(sampleRoot()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleRoot(), got); diff != "" {
		t.Fatal(diff)
	}
}

func TestRootRefuses(t *testing.T) {
	for name, root := range map[string]*RootTable{
		"relative root":       {Roots: []string{"etc"}},
		"root with dots":      {Roots: []string{"/etc/.."}},
		"chunks out of order": {Chunks: []TreeChunk{{First: "/b", Ref: sampleRef(1)}, {First: "/a", Ref: sampleRef(2)}}},
		"chunk twice":         {Chunks: []TreeChunk{{First: "/b", Ref: sampleRef(1)}, {First: "/b", Ref: sampleRef(2)}}},
		"chunk in pack 0":     {Chunks: []TreeChunk{{First: "/b"}}},
	} {
		if _, err := DecodeRoot(EncodeRoot(root)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

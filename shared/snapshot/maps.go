package snapshot

import (
	"encoding/binary"
	"fmt"
)

// maxMaps is how many maps a file should have at most; see [SpanFor].
const maxMaps = 1 << 16

// SpanFor returns how many bytes of a file of the given size one map covers: [MapSpan], and for files over 512 GiB so
// many times twice as much that 65,536 maps suffice. Thus the entry of the largest file still fits in a tree chunk.
func SpanFor(size uint64) uint64 {
	span := uint64(MapSpan)
	for size > span*maxMaps {
		span *= 2
	}
	return span
}

// EncodeMap returns the plain bytes of a map chunk. Holes that follow each other become one, empty extents are left out;
// otherwise the extents must pass [CheckExtents], as every decoder refuses those that do not.
func EncodeMap(extents []Extent) []byte {
	return appendExtents(make([]byte, 0, 8+len(extents)*52), extents)
}

// DecodeMap returns the extents of a map chunk.
func DecodeMap(plain []byte) ([]Extent, error) {
	if len(plain) > MaxChunk {
		return nil, fmt.Errorf("decode map: %w: %d bytes, over the limit of a chunk", ErrFormat, len(plain))
	}
	r := reader{b: plain}
	list, _ := r.extents(nil)
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("decode map: %w", err)
	}
	return list, nil
}

// minMapRef is the size of the shortest map ref in bytes.
const minMapRef = minRef + 2

func appendMapRef(dst []byte, m *MapRef) []byte {
	dst = appendRef(dst, &m.Ref)
	dst = binary.AppendUvarint(dst, m.Length)
	dst = binary.AppendUvarint(dst, uint64(len(m.Packs)))
	end := uint64(0)
	for _, p := range m.Packs {
		dst = binary.AppendUvarint(dst, p.First-end)
		dst = binary.AppendUvarint(dst, p.Last-p.First)
		end = p.Last
	}
	return dst
}

func (r *reader) mapRef(m *MapRef) {
	r.ref(&m.Ref)
	m.Length = r.uvarint()
	n := r.count("pack ranges", 2)
	if n == 0 || r.err != nil {
		return
	}
	m.Packs = make([]Range, 0, n)
	end, least := uint64(0), uint64(1)
	for range n {
		distance, more := r.uvarint(), r.uvarint()
		first := end + distance
		last := first + more
		if r.err == nil && (distance < least || first < end || last < first || last > MaxPackNumber) {
			r.fail("range of packs %d+%d after pack %d", distance, more, end)
		}
		if r.err != nil {
			return
		}
		m.Packs = append(m.Packs, Range{First: first, Last: last})
		end, least = last, 2
	}
}

func (m *MapRef) check() error {
	if err := m.Ref.Check(); err != nil {
		return err
	}
	return checkRanges(m.Packs)
}

// checkRanges checks that ranges ascend, begin at 1 or later and do not touch.
func checkRanges(ranges []Range) error {
	end := uint64(0)
	for i, p := range ranges {
		least := end + 2
		if i == 0 {
			least = 1
		}
		if p.First < least || p.Last < p.First || p.Last > MaxPackNumber {
			return fmt.Errorf("%w: range of packs %d–%d after pack %d", ErrFormat, p.First, p.Last, end)
		}
		end = p.Last
	}
	return nil
}

// checkMaps checks that the maps cover size bytes: each the same multiple of MapSpan, the last one the rest.
func checkMaps(maps []MapRef, size uint64) error {
	span := maps[0].Length
	if len(maps) == 1 {
		span = (size + MapSpan - 1) / MapSpan * MapSpan
	}
	rest := size
	for i := range maps {
		want := min(span, rest)
		if maps[i].Length != want || want == 0 {
			return fmt.Errorf("%w: map %d of %d covers %d bytes where %d are due", ErrFormat, i+1, len(maps), maps[i].Length, want)
		}
		rest -= want
	}
	if rest != 0 || span == 0 || span%MapSpan != 0 {
		return fmt.Errorf("%w: %d maps of %d bytes for a file of %d bytes", ErrFormat, len(maps), span, size)
	}
	return nil
}

// Package paged stores database files page by page, so that of what the parent holds only the changed pages are stored:
// it compares the keyed hashes of a region's pages with those that the session knows of the parent's, and lays out old
// and new pages as extents.
//
// Begin with [New]; give the [Writer] regions, then call [Writer.Finish]. A region may be given again before that, whole
// ([Writer.Region]) or in part ([Writer.Patch]): what was stored of it first is then what it is compared with, so that
// nothing is stored twice. [PageSize] tells database files by how they begin.
package paged

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// MinSize is the smallest file, in bytes, that is worth being stored by pages; below, all of it is little.
	MinSize = 256 << 10
	// MaxParts is how many chunks a region may be made of before it is stored whole again: each is another place to read
	// from in a restore, and keeps what else is in it alive.
	MaxParts = 32
	// chunkSize is the most that changed pages take in one chunk.
	chunkSize = 1 << 20

	// SQLiteHeader begins every SQLite database: https://www.sqlite.org/fileformat2.html, "Magic Header String".
	SQLiteHeader = "SQLite format 3\x00"

	// PostgresPage is the size of PostgreSQL's pages in bytes.
	PostgresPage = 8 << 10
)

// Session is what a writer needs of the session; repository.Session is one. Its methods are called from several
// goroutines.
type Session interface {
	// PageID is the keyed hash of a page.
	PageID(content []byte) snapshot.FileID
	// Chunk stores a chunk unless it is there. It blocks while the store lags, and keeps nothing of plain.
	Chunk(ctx context.Context, kind snapshot.Kind, plain []byte) (snapshot.Ref, error)
	// Pages returns the hashes (PageID) of the pages of a region of a file, if they are known for exactly these extents.
	Pages(path string, region int, extents []snapshot.Extent) (hashes []byte, ok bool)
	// LearnPages says what the hashes of a region's pages are.
	LearnPages(path string, region int, extents []snapshot.Extent, hashes []byte)
	// ParentMap returns the extents of a map of the parent, or of this session.
	ParentMap(ctx context.Context, m snapshot.MapRef) ([]snapshot.Extent, error)
}

// Content is memory that a caller has lent: jobs hold it until what is in it is stored.
type Content interface {
	Hold()
	Release()
}

// PageSize tells the page size in bytes of a database file by its first 100 bytes and its size; 0 if it is none, or too
// small to matter.
// SQLite: https://www.sqlite.org/fileformat2.html. PostgreSQL: src/include/storage/bufpage.h, layout version 4.
func PageSize(head []byte, size uint64) uint64 {
	if size < MinSize || len(head) < 100 {
		return 0
	}
	if string(head[:len(SQLiteHeader)]) == SQLiteHeader {
		n := uint64(binary.BigEndian.Uint16(head[16:]))
		if n == 1 {
			n = 64 << 10
		}
		if n >= 512 && n&(n-1) == 0 {
			return n
		}
		return 0
	}
	lower, upper := binary.LittleEndian.Uint16(head[12:]), binary.LittleEndian.Uint16(head[14:])
	special, version := binary.LittleEndian.Uint16(head[16:]), binary.LittleEndian.Uint16(head[18:])
	if version == PostgresPage|4 && lower >= 24 && lower <= upper && upper <= special && special <= PostgresPage && size%PostgresPage == 0 {
		return PostgresPage
	}
	return 0
}

// Parts counts the chunks that extents lead to.
func Parts(extents []snapshot.Extent) int {
	seen := map[snapshot.Hash]struct{}{}
	for i := range extents {
		if !extents[i].Hole {
			seen[extents[i].Ref.ID] = struct{}{}
		}
	}
	return len(seen)
}

// PackRanges returns the packs that extents use: ascending ranges that do not touch.
func PackRanges(extents []snapshot.Extent) []snapshot.Range {
	numbers := make([]uint64, 0, len(extents))
	for i := range extents {
		if !extents[i].Hole {
			numbers = append(numbers, extents[i].Ref.Pack)
		}
	}
	slices.Sort(numbers)
	var ranges []snapshot.Range
	for _, n := range slices.Compact(numbers) {
		if k := len(ranges) - 1; k >= 0 && ranges[k].Last+1 == n {
			ranges[k].Last = n
			continue
		}
		ranges = append(ranges, snapshot.Range{First: n, Last: n})
	}
	return ranges
}

// appendPart appends length bytes of what from stands for, beginning at offset, and joins what is joined.
func appendPart(to, from []snapshot.Extent, offset, length uint64) []snapshot.Extent {
	for i := range from {
		x := from[i]
		if offset >= x.Length {
			offset -= x.Length
			continue
		}
		x.Length = min(x.Length-offset, length)
		if !x.Hole {
			x.Offset += uint32(offset)
		}
		offset = 0
		length -= x.Length
		if n := len(to); n > 0 && adjoins(&to[n-1], &x) {
			to[n-1].Length += x.Length
		} else {
			to = append(to, x)
		}
		if length == 0 {
			break
		}
	}
	return to
}

// adjoins reports whether b goes on where a ends.
func adjoins(a, b *snapshot.Extent) bool {
	if a.Hole || b.Hole {
		return a.Hole && b.Hole
	}
	return a.Ref == b.Ref && uint64(a.Offset)+a.Length == uint64(b.Offset)
}

func lengthOf(extents []snapshot.Extent) uint64 {
	n := uint64(0)
	for i := range extents {
		n += extents[i].Length
	}
	return n
}

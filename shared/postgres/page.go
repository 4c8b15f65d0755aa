package postgres

import (
	"encoding/binary"
	"fmt"
)

const (
	// BlockSize is the usual size of pages, of relations and of WAL, in bytes.
	BlockSize = 8192
	// RelationSegment is the usual size of the files of a relation, in pages: 1 GiB.
	RelationSegment = 131072
)

// PageHeader is the header of a page of a relation.
type PageHeader struct {
	LSN      LSN    // of the last change that was logged
	Checksum uint16 // 0 where there are none
	Flags    uint16
	Lower    uint16 // offset of the free space
	Upper    uint16 // its end
	Special  uint16 // offset of what the access method keeps
	Size     int    // of the page, in bytes
	Version  int    // of the layout
}

// ParsePage parses the header of a page, which is at least 24 bytes long.
func ParsePage(page []byte) PageHeader {
	le := binary.LittleEndian
	size := le.Uint16(page[18:])
	return PageHeader{
		LSN:      LSN(le.Uint32(page))<<32 | LSN(le.Uint32(page[4:])),
		Checksum: le.Uint16(page[8:]), Flags: le.Uint16(page[10:]), Lower: le.Uint16(page[12:]), Upper: le.Uint16(page[14:]),
		Special: le.Uint16(page[16:]), Size: int(size & 0xFF00), Version: int(size & 0xFF),
	}
}

// New reports whether the page was allocated and never used: PostgreSQL gives it no checksum. Its bytes are zeros, unless
// it is damaged.
func (h PageHeader) New() bool { return h.Upper == 0 }

// ChecksumError says that a page is not what was written.
type ChecksumError struct {
	Block            uint32 // within the relation's fork
	Stored, Computed uint16
}

func (e *ChecksumError) Error() string {
	if e.Stored == 0 && e.Computed == 0 {
		return fmt.Sprintf("block %d: it says that it was never used, and is not empty", e.Block)
	}
	return fmt.Sprintf("block %d: its checksum is %04X, it should be %04X", e.Block, e.Stored, e.Computed)
}

// CheckPage checks a page of a relation of a cluster with checksums. block counts over all files of the relation's fork.
// A page that was changed since start, where a backup began, may be torn and says nothing: WAL has it whole; start 0
// checks all. An error is a *ChecksumError.
func CheckPage(page []byte, block uint32, start LSN) error {
	h := ParsePage(page)
	if h.New() {
		for _, b := range page {
			if b != 0 {
				return &ChecksumError{Block: block}
			}
		}
		return nil
	}
	if start != 0 && h.LSN >= start {
		return nil
	}
	if got := Checksum(page, block); got != h.Checksum {
		return &ChecksumError{Block: block, Stored: h.Checksum, Computed: got}
	}
	return nil
}

// sums is how many sums a checksum has, that are computed side by side: one row of a page is as many words.
const sums = 32

// offsets begin the sums; from checksum_impl.h.
var offsets = [sums]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

func mix(sum, value uint32) uint32 {
	const prime = 16777619
	t := sum ^ value
	return t*prime ^ t>>17
}

// Checksum computes the checksum of a page as PostgreSQL does; what stands in the page as its checksum is not looked at.
// A page is a multiple of 128 bytes long. block counts over all files of the relation's fork. The result is never 0.
func Checksum(page []byte, block uint32) uint16 {
	result := block
	// Eight sums at a time stay in registers.
	for column := 0; column < sums; column += 8 {
		result ^= checksumColumns(page, column)
	}
	return uint16(result%65535) + 1
}

// checksumColumns computes eight of the sums of a page and folds them.
func checksumColumns(page []byte, column int) uint32 {
	const row = 4 * sums
	o := offsets[column : column+8 : column+8]
	s0, s1, s2, s3, s4, s5, s6, s7 := o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]
	le := binary.LittleEndian
	at := 0
	if column == 0 && len(page) >= row {
		// The word that holds the checksum counts without it.
		b := page[:32:32]
		s0, s1 = mix(s0, le.Uint32(b)), mix(s1, le.Uint32(b[4:]))
		s2, s3 = mix(s2, le.Uint32(b[8:])&^0xFFFF), mix(s3, le.Uint32(b[12:]))
		s4, s5 = mix(s4, le.Uint32(b[16:])), mix(s5, le.Uint32(b[20:]))
		s6, s7 = mix(s6, le.Uint32(b[24:])), mix(s7, le.Uint32(b[28:]))
		at = row
	}
	for at += 4 * column; at+32 <= len(page); at += row {
		b := page[at : at+32 : at+32]
		s0, s1 = mix(s0, le.Uint32(b)), mix(s1, le.Uint32(b[4:]))
		s2, s3 = mix(s2, le.Uint32(b[8:])), mix(s3, le.Uint32(b[12:]))
		s4, s5 = mix(s4, le.Uint32(b[16:])), mix(s5, le.Uint32(b[20:]))
		s6, s7 = mix(s6, le.Uint32(b[24:])), mix(s7, le.Uint32(b[28:]))
	}
	for range 2 {
		s0, s1, s2, s3 = mix(s0, 0), mix(s1, 0), mix(s2, 0), mix(s3, 0)
		s4, s5, s6, s7 = mix(s4, 0), mix(s5, 0), mix(s6, 0), mix(s7, 0)
	}
	return s0 ^ s1 ^ s2 ^ s3 ^ s4 ^ s5 ^ s6 ^ s7
}

package snapshot

import (
	"encoding/binary"
	"fmt"
)

// The fixed parts of a pack: "HFPACK01", salt, sealed chunks, sealed index, length of the sealed index, "HFPACKIX".
const (
	PackHeaderSize = 8 + 32
	PackFooterSize = 4 + 8
	MinPack        = PackHeaderSize + (1 + Overhead) + PackFooterSize // bytes of a pack with an empty index

	packHeader = "HFPACK01"
	packFooter = "HFPACKIX"
	listHeader = "HFLIST01"
)

// AppendPackHeader appends what a pack begins with.
func AppendPackHeader(dst []byte, salt [32]byte) []byte {
	return append(append(dst, packHeader...), salt[:]...)
}

// ParsePackHeader returns the salt of the pack that begins with b.
func ParsePackHeader(b []byte) (salt [32]byte, err error) {
	if len(b) < PackHeaderSize || string(b[:8]) != packHeader {
		return salt, fmt.Errorf("pack header: %w", ErrFormat)
	}
	copy(salt[:], b[8:])
	return salt, nil
}

// AppendPackFooter appends what a pack ends with; indexLen is the length of the sealed index in bytes.
func AppendPackFooter(dst []byte, indexLen int) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(indexLen)), packFooter...)
}

// ParsePackFooter takes the last bytes of a pack of size bytes (at least [PackFooterSize] of them) and returns the offset
// and the length of the sealed index.
func ParsePackFooter(tail []byte, size uint64) (offset, length uint32, err error) {
	if len(tail) < PackFooterSize || size < MinPack || size > MaxPack {
		return 0, 0, fmt.Errorf("pack footer: %w: pack of %d bytes", ErrFormat, size)
	}
	tail = tail[len(tail)-PackFooterSize:]
	length = binary.BigEndian.Uint32(tail)
	if string(tail[4:]) != packFooter {
		return 0, 0, fmt.Errorf("pack footer: %w", ErrFormat)
	}
	room := size - PackHeaderSize - PackFooterSize
	if length <= Overhead || uint64(length) > room {
		return 0, 0, fmt.Errorf("pack footer: %w: index of %d bytes in a pack of %d", ErrFormat, length, size)
	}
	return uint32(size - PackFooterSize - uint64(length)), length, nil
}

// PackInfo is one line of a pack list.
type PackInfo struct {
	Number uint64 // within the chain, from 1
	ID     Hash   // SHA-256 of the pack's bytes
	Salt   [32]byte
	Size   uint64 // bytes
}

// minPackInfo is the size of the shortest line of a pack list in bytes.
const minPackInfo = 1 + 32 + 32 + 1

// EncodeList returns the bytes of a pack list. The packs must ascend by number.
func EncodeList(packs []PackInfo) []byte {
	dst := append(make([]byte, 0, 16+len(packs)*70), listHeader...)
	dst = binary.AppendUvarint(dst, uint64(len(packs)))
	last := uint64(0)
	for i := range packs {
		p := &packs[i]
		dst = binary.AppendUvarint(dst, p.Number-last)
		dst = append(dst, p.ID[:]...)
		dst = append(dst, p.Salt[:]...)
		dst = binary.AppendUvarint(dst, p.Size)
		last = p.Number
	}
	return dst
}

// DecodeList parses a pack list.
func DecodeList(b []byte) ([]PackInfo, error) {
	if len(b) < len(listHeader) || string(b[:len(listHeader)]) != listHeader {
		return nil, fmt.Errorf("decode pack list: %w: no %s", ErrFormat, listHeader)
	}
	r := reader{b: b[len(listHeader):]}
	n := r.count("packs", minPackInfo)
	packs := make([]PackInfo, 0, n)
	last := uint64(0)
	for range n {
		distance := r.uvarint()
		p := PackInfo{Number: last + distance, ID: r.hash()}
		copy(p.Salt[:], r.bytes(uint64(len(p.Salt))))
		p.Size = r.uvarint()
		switch {
		case r.err != nil:
		case distance == 0 || p.Number < last || p.Number > MaxPackNumber:
			r.fail("pack %d+%d", last, distance)
		case p.Size < MinPack || p.Size > MaxPack:
			r.fail("pack %d of %d bytes", p.Number, p.Size)
		}
		if r.err != nil {
			break
		}
		packs = append(packs, p)
		last = p.Number
	}
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("decode pack list: %w", err)
	}
	return packs, nil
}

// IndexEntry is one line of a pack's index. Chunks lie one after the other from offset [PackHeaderSize], in this order.
type IndexEntry struct {
	Kind   Kind
	ID     Hash
	Sealed uint32 // bytes in the pack, with the tag
	Plain  uint32 // bytes of the chunk itself
}

// minIndexEntry is the size of the shortest line of an index in bytes.
const minIndexEntry = 1 + 32 + 1 + 1

// MaxIndex is an upper limit for the plain bytes of the index of a pack with n chunks.
func MaxIndex(n int) int { return binary.MaxVarintLen32 + n*(minIndexEntry+2*(4-1)) }

// EncodeIndex returns the plain bytes of a pack's index.
func EncodeIndex(entries []IndexEntry) []byte {
	dst := make([]byte, 0, MaxIndex(len(entries)))
	dst = binary.AppendUvarint(dst, uint64(len(entries)))
	for i := range entries {
		e := &entries[i]
		dst = append(append(dst, byte(e.Kind)), e.ID[:]...)
		dst = binary.AppendUvarint(dst, uint64(e.Sealed))
		dst = binary.AppendUvarint(dst, uint64(e.Plain))
	}
	return dst
}

// DecodeIndex parses the index of a pack.
func DecodeIndex(plain []byte) ([]IndexEntry, error) {
	r := reader{b: plain}
	n := r.count("chunks", minIndexEntry)
	if n > MaxPackChunks {
		r.fail("%d chunks in a pack", n)
		n = 0
	}
	entries := make([]IndexEntry, 0, n)
	end := uint64(PackHeaderSize)
	for range n {
		e := IndexEntry{Kind: Kind(r.byte()), ID: r.hash(), Sealed: r.uint32("sealed length"), Plain: r.uint32("plain length")}
		if r.err == nil {
			r.checkIndexEntry(&e, end)
		}
		if r.err != nil {
			break
		}
		entries = append(entries, e)
		end += uint64(e.Sealed)
	}
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("decode pack index: %w", err)
	}
	return entries, nil
}

func (r *reader) checkIndexEntry(e *IndexEntry, offset uint64) {
	switch e.Kind {
	case Content, Map, Tree, Root, Report, Log:
	default:
		r.fail("chunk of kind %q", byte(e.Kind))
		return
	}
	if err := checkLengths(e.Sealed, e.Plain); err != nil {
		r.refuse(err)
		return
	}
	if offset+uint64(e.Sealed) > MaxPack-PackFooterSize {
		r.fail("chunk at %d, over the limit of a pack", offset)
	}
}

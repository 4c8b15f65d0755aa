package sqlite

import (
	"encoding/binary"
	"fmt"
)

const (
	// WALHeaderSize is the length of the head of a write-ahead log, in bytes. Frames follow without a space.
	WALHeaderSize = 32
	// FrameHeaderSize is the length of what stands before the page in each frame, in bytes.
	FrameHeaderSize = 24

	walMagic   = 0x377f0682 // the last bit tells the byte order of checksums
	walVersion = 3007000
)

// Salt marks the frames of one generation of a log. At a reset the first word grows by one and the second is drawn anew;
// sometimes both are.
type Salt [2]uint32

// Checksum is SQLite's running checksum.
type Checksum [2]uint32

// Add continues the checksum over data, whose length must be a multiple of eight. bigEndian is the order in which words
// are read, which the log's header names.
func (s Checksum) Add(data []byte, bigEndian bool) Checksum {
	a, b := s[0], s[1]
	if bigEndian {
		for ; len(data) >= 8; data = data[8:] {
			a += binary.BigEndian.Uint32(data) + b
			b += binary.BigEndian.Uint32(data[4:]) + a
		}
	} else {
		for ; len(data) >= 8; data = data[8:] {
			a += binary.LittleEndian.Uint32(data) + b
			b += binary.LittleEndian.Uint32(data[4:]) + a
		}
	}
	return Checksum{a, b}
}

// WALHeader is the head of a write-ahead log.
type WALHeader struct {
	BigEndian bool   // byte order of the words that are summed
	PageSize  uint32 // bytes
	Sequence  uint32 // counts resets, not reliably
	Salt      Salt
	Checksum  Checksum // over what stands before it; the frames' checksums go on from it
}

// ParseWALHeader reads the first [WALHeaderSize] bytes of a log. A file that is shorter, or whose header does not match
// its checksum, has no frame that counts: [ErrDamaged]. [ErrNotDatabase] is for a version or a magic that is not known.
func ParseWALHeader(b []byte) (WALHeader, error) {
	if len(b) < WALHeaderSize {
		return WALHeader{}, fmt.Errorf("write-ahead log of %d bytes: %w", len(b), ErrDamaged)
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	h := WALHeader{
		BigEndian: u32(0)&1 == 1,
		PageSize:  u32(8),
		Sequence:  u32(12),
		Salt:      Salt{u32(16), u32(20)},
		Checksum:  Checksum{u32(24), u32(28)},
	}
	switch {
	case u32(0)&^1 != walMagic:
		return WALHeader{}, fmt.Errorf("write-ahead log that begins with %08x: %w", u32(0), ErrNotDatabase)
	case h.Checksum != Checksum{}.Add(b[:24], h.BigEndian):
		return WALHeader{}, fmt.Errorf("checksum of the write-ahead log's header: %w", ErrDamaged)
	case u32(4) != walVersion:
		return WALHeader{}, fmt.Errorf("write-ahead log of version %d: %w", u32(4), ErrNotDatabase)
	case !ValidPageSize(h.PageSize):
		return WALHeader{}, fmt.Errorf("page size %d in the write-ahead log: %w", h.PageSize, ErrDamaged)
	}
	return h, nil
}

// Append encodes the header behind b; the checksum is computed.
func (h WALHeader) Append(b []byte) []byte {
	at := len(b)
	magic := uint32(walMagic)
	if h.BigEndian {
		magic |= 1
	}
	for _, v := range []uint32{magic, walVersion, h.PageSize, h.Sequence, h.Salt[0], h.Salt[1]} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	sum := Checksum{}.Add(b[at:], h.BigEndian)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, sum[0]), sum[1])
}

// Chain begins the chain of the log's frames.
func (h WALHeader) Chain() Chain { return Chain{BigEndian: h.BigEndian, Salt: h.Salt, Sum: h.Checksum} }

// FrameOffset is the byte at which frame number n (from 1) begins in a log.
func FrameOffset(n, pageSize uint32) int64 {
	return WALHeaderSize + int64(n-1)*int64(FrameHeaderSize+pageSize)
}

// Frames is how many whole frames a log of size bytes can hold.
func Frames(size int64, pageSize uint32) uint32 {
	if size <= WALHeaderSize {
		return 0
	}
	return uint32(min((size-WALHeaderSize)/int64(FrameHeaderSize+pageSize), 1<<32-1))
}

// Frame is what stands before a page in a log.
type Frame struct {
	Page   uint32 // number of the page, from 1
	Commit uint32 // of the last frame of a transaction: the size of the database in pages after it; else 0
	Salt   Salt
	Sum    Checksum // running, up to here
}

// ParseFrame reads the first [FrameHeaderSize] bytes of a frame without checking anything. It panics on fewer.
func ParseFrame(b []byte) Frame {
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	return Frame{Page: u32(0), Commit: u32(4), Salt: Salt{u32(8), u32(12)}, Sum: Checksum{u32(16), u32(20)}}
}

// Chain is a place in a log: which frame comes next can be told from any other bytes by it.
type Chain struct {
	BigEndian bool
	Salt      Salt
	Sum       Checksum
}

// Next reads a whole frame, header and page. If it continues the chain the chain moves on and ok is true. It is false at
// the log's end: at a torn frame, one that an earlier generation left, or one that was never written.
func (c *Chain) Next(frame []byte) (f Frame, ok bool) {
	if len(frame) <= FrameHeaderSize || (len(frame)-FrameHeaderSize)%8 != 0 {
		return Frame{}, false
	}
	f = ParseFrame(frame)
	if f.Salt != c.Salt || f.Page == 0 {
		return f, false
	}
	sum := c.Sum.Add(frame[:8], c.BigEndian).Add(frame[FrameHeaderSize:], c.BigEndian)
	if sum != f.Sum {
		return f, false
	}
	c.Sum = sum
	return f, true
}

// Append encodes a frame that continues the chain behind b, and moves the chain on.
func (c *Chain) Append(b []byte, page, commit uint32, data []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, page), commit)
	c.Sum = c.Sum.Add(b[at:], c.BigEndian).Add(data, c.BigEndian)
	for _, v := range []uint32{c.Salt[0], c.Salt[1], c.Sum[0], c.Sum[1]} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, data...)
}

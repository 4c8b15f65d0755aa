package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// IndexSize is how much of a wal-index (the -shm file) [ParseIndex] reads, in bytes: the header twice and what checkpoints
// keep behind.
const IndexSize = 136

// IndexDMS is the byte of the -shm file that each process with an open connection holds a shared lock on. The process that
// finds nobody there empties the file and recovers the index from the log.
const IndexDMS = 128

const indexCopy = 48

// ErrUnsettled tells that a wal-index has no header that can be believed now: somebody is about to write it, or nobody has
// yet. Look again.
var ErrUnsettled = errors.New("the wal-index is being written or was never")

// Index is the head of a wal-index: what the processes that use a log agree on.
type Index struct {
	Change     uint32 // grows by one with each commit; a reset of the log leaves it, a recovery sets it to 0
	BigEndian  bool   // byte order of the log's checksums
	PageSize   uint32 // bytes; 0 if there was no frame yet
	MaxFrame   uint32 // the last frame that counts; those behind are of no committed transaction
	Pages      uint32 // size of the database in pages
	Frame      Checksum
	Salt       Salt
	Backfilled uint32 // frames that are in the database file; not covered by the header's checksum
}

// ParseIndex reads the first [IndexSize] bytes of a -shm file of this machine: words are in its own byte order. Errors
// are [ErrUnsettled] and, for a version that is not known, [ErrNotDatabase].
func ParseIndex(b []byte) (Index, error) { return parseIndex(b, binary.NativeEndian) }

func parseIndex(b []byte, order binary.ByteOrder) (Index, error) {
	if len(b) < IndexSize {
		return Index{}, ErrUnsettled
	}
	u32 := func(at int) uint32 { return order.Uint32(b[at:]) }
	// The writer stores the second copy first: if both are the same, neither is half of an older one.
	if string(b[:indexCopy]) != string(b[indexCopy:2*indexCopy]) || b[12] == 0 {
		return Index{}, ErrUnsettled
	}
	big := order.Uint16([]byte{0, 1}) == 1
	if (Checksum{u32(40), u32(44)}) != (Checksum{}.Add(b[:40], big)) {
		return Index{}, ErrUnsettled
	}
	if u32(0) != walVersion {
		return Index{}, fmt.Errorf("wal-index of version %d: %w", u32(0), ErrNotDatabase)
	}
	size := uint32(order.Uint16(b[14:]))
	return Index{
		Change:    u32(8),
		BigEndian: b[13] != 0,
		PageSize:  size&0xfe00 | size&1<<16,
		MaxFrame:  u32(16),
		Pages:     u32(20),
		Frame:     Checksum{u32(24), u32(28)},
		// Copied from the log as bytes, whose order is the same on every machine.
		Salt:       Salt{binary.BigEndian.Uint32(b[32:]), binary.BigEndian.Uint32(b[36:])},
		Backfilled: u32(96),
	}, nil
}

// Append encodes a wal-index's head behind b, for this machine.
func (x Index) Append(b []byte) []byte {
	var h [IndexSize]byte
	put := binary.NativeEndian.PutUint32
	put(h[0:], walVersion)
	put(h[8:], x.Change)
	h[12] = 1
	if x.BigEndian {
		h[13] = 1
	}
	binary.NativeEndian.PutUint16(h[14:], uint16(x.PageSize&0xfe00|x.PageSize>>16))
	put(h[16:], x.MaxFrame)
	put(h[20:], x.Pages)
	put(h[24:], x.Frame[0])
	put(h[28:], x.Frame[1])
	binary.BigEndian.PutUint32(h[32:], x.Salt[0])
	binary.BigEndian.PutUint32(h[36:], x.Salt[1])
	sum := Checksum{}.Add(h[:40], binary.NativeEndian.Uint16([]byte{0, 1}) == 1)
	put(h[40:], sum[0])
	put(h[44:], sum[1])
	copy(h[indexCopy:], h[:indexCopy])
	put(h[96:], x.Backfilled)
	return append(b, h[:]...)
}

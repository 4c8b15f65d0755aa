package postgres

import (
	"encoding/binary"
	"fmt"
)

// Origin is what all WAL of a timeline has in common.
type Origin struct {
	System      uint64 // system identifier; 0: not known, it is not compared
	Timeline    uint32 // pages may be of it, or of an older one that it came from
	SegmentSize uint32 // bytes
	PageSize    uint32 // of WAL, bytes; 0: [BlockSize]
}

func (o Origin) pageSize() LSN {
	if o.PageSize == 0 {
		return BlockSize
	}
	return LSN(o.PageSize)
}

// WALError says where WAL is not what the server wrote, or where it ends.
type WALError struct {
	At      LSN // of the page or the record
	Problem string
	// Empty says that there are zeros where a record should begin: nothing was written there yet.
	Empty bool
}

func (e *WALError) Error() string { return fmt.Sprintf("WAL at %s: %s", e.At, e.Problem) }

// Headers of pages of WAL: a long one stands at the beginning of each segment.
const (
	walHeader     = 24
	walLongHeader = 40

	flagContinues   = 1 // the page begins with the rest of a record
	flagLong        = 2
	flagOverwritten = 8 // the record before the page was never finished
	knownFlags      = 15
)

// walPage is the header of a page of WAL.
type walPage struct {
	magic, flags uint16
	timeline     uint32
	address      LSN
	rest         uint32 // bytes of the record that goes on from the page before
	system       uint64 // of a long header, as what follows
	segmentSize  uint32
	pageSize     uint32
}

// headerSize is how long the header of the page that begins at an LSN is.
func (o Origin) headerSize(page LSN) int {
	if page%LSN(o.SegmentSize) == 0 {
		return walLongHeader
	}
	return walHeader
}

// parse parses the header of the page that begins at an LSN, and checks that it belongs there.
func (o Origin) parse(page LSN, b []byte) (walPage, error) {
	le := binary.LittleEndian
	p := walPage{magic: le.Uint16(b), flags: le.Uint16(b[2:]), timeline: le.Uint32(b[4:]), address: LSN(le.Uint64(b[8:])), rest: le.Uint32(b[16:])}
	fail := func(format string, args ...any) (walPage, error) {
		return p, &WALError{At: page, Problem: fmt.Sprintf(format, args...)}
	}
	long := len(b) == walLongHeader
	switch {
	case p.magic>>8 != 0xD1:
		return fail("no page begins here: its first bytes are %04X", p.magic)
	case p.address != page:
		return fail("the page is of %s", p.address)
	case p.flags&^knownFlags != 0, (p.flags&flagLong != 0) != long, p.flags&flagContinues != 0 && (p.rest == 0 || p.flags&flagOverwritten != 0):
		return fail("the page's flags are %X, with %d bytes of a record", p.flags, p.rest)
	case p.timeline == 0 || p.timeline > o.Timeline:
		return fail("the page is of timeline %d, not %d", p.timeline, o.Timeline)
	}
	if !long {
		return p, nil
	}
	p.system, p.segmentSize, p.pageSize = le.Uint64(b[24:]), le.Uint32(b[32:]), le.Uint32(b[36:])
	switch {
	case o.System != 0 && p.system != o.System:
		return fail("it is of another cluster: of system %d, not %d", p.system, o.System)
	case p.segmentSize != o.SegmentSize || LSN(p.pageSize) != o.pageSize():
		return fail("segments are of %d bytes there and pages of %d, not %d and %d", p.segmentSize, p.pageSize, o.SegmentSize, o.pageSize())
	}
	return p, nil
}

// Check checks the headers of the pages that begin in b, which starts at an LSN: that they stand where they belong, and are
// of this system and timeline. It is cheap: nothing else is read. Pages of zeros are good: they follow a switch of
// segments. An error is a *WALError.
func (o Origin) Check(start LSN, b []byte) error {
	size := o.pageSize()
	for page := (start + size - 1) / size * size; ; page += size {
		at := int(page - start) //nolint:gosec // within b, or not far behind it
		header := o.headerSize(page)
		if at+header > len(b) {
			return nil
		}
		if _, err := o.parse(page, b[at:at+header]); err != nil && !zeros(b[at:min(len(b), at+int(size))]) { //nolint:gosec // sizes of pages
			return err
		}
	}
}

func zeros(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

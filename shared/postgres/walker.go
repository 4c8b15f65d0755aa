package postgres

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	recordHeader = 24
	recordAlign  = 8
	// xlogManager is the resource manager that has the record of a switch of segments, walSwitch.
	xlogManager = 0
	walSwitch   = 0x40
)

// Walker follows WAL record by record, as recovery does: pages must stand where they belong, each record must have the
// CRC of its bytes and name the one before it. What it finds wrong, or the end of what was written, is a *WALError that
// sticks.
//
// Bytes come in any pieces, from the beginning of a page on, and are not kept: memory is bounded, whatever the size of
// records.
type Walker struct {
	origin Origin
	at     LSN // of the next byte
	err    error

	head     [walLongHeader]byte // the header of the page, as far as it is here
	headSize int                 // how long it is; 0: the page's header is over
	headHave int

	synced bool // records are followed; before, the rest of one is passed over
	skip   LSN  // nothing counts before it
	zeros  bool // up to skip all are zeros: after a switch

	record   LSN // where the record begins; 0: between two
	header   [recordHeader]byte
	have     int    // bytes of header
	rest     uint32 // bytes of the record that are still to come
	crc      uint32
	previous LSN // the record before; 0: not known
	end      LSN
	timeline uint32 // of the last page

	see  func(Event) // nil: nobody observes
	body []byte      // of the record that is observed, as far as it is here
}

// NewWalker returns a walker of the WAL that starts at an LSN, the beginning of a page. It sets in with the first record
// that begins there or later.
func NewWalker(o Origin, start LSN) *Walker {
	w := &Walker{origin: o, at: start}
	if err := CheckSegmentSize(o.SegmentSize); err != nil {
		w.err = err
	} else if start%o.pageSize() != 0 {
		w.err = &WALError{At: start, Problem: "no page begins here"}
	}
	return w
}

// Next is where the next byte belongs.
func (w *Walker) Next() LSN { return w.at }

// End is where the last record that is whole and good ends: the next one begins there, or behind the header of the page.
// 0: there was none yet.
func (w *Walker) End() LSN { return w.end }

// Last is where the last record begins that is whole and good; 0: there was none yet.
func (w *Walker) Last() LSN { return w.previous }

// Timeline is that of the newest page; 0: there was none yet.
func (w *Walker) Timeline() uint32 { return w.timeline }

// Write takes the next bytes. n is how many were good; an error is a *WALError.
func (w *Walker) Write(b []byte) (n int, err error) {
	total := len(b)
	for len(b) > 0 && w.err == nil {
		var k int
		if w.at%w.origin.pageSize() == 0 && w.headSize == 0 {
			w.headSize, w.headHave = w.origin.headerSize(w.at), 0
		}
		if w.headSize > 0 {
			k = copy(w.head[w.headHave:w.headSize], b)
			w.headHave += k
			if w.headHave == w.headSize {
				w.err = w.page()
				w.headSize = 0
			}
		} else {
			left := w.origin.pageSize() - w.at%w.origin.pageSize()
			k, w.err = w.payload(b[:min(LSN(len(b)), left)])
		}
		if w.err == nil {
			w.at += LSN(k) //nolint:gosec // not negative
			b = b[k:]
		}
	}
	return total - len(b), w.err
}

func (w *Walker) fail(at LSN, format string, args ...any) error {
	return &WALError{At: at, Problem: fmt.Sprintf(format, args...)}
}

// page takes the header of a page whose last byte is at hand.
func (w *Walker) page() error {
	page := w.at - w.at%w.origin.pageSize()
	b := w.head[:w.headSize]
	if w.skip > page && w.zeros && zeros(b) {
		return nil
	}
	p, err := w.origin.parse(page, b)
	if err != nil {
		if w.record == 0 && zeros(b) {
			return &WALError{At: page, Problem: "nothing was written here yet", Empty: true}
		}
		return err
	}
	if p.timeline < w.timeline {
		return w.fail(page, "the page is of timeline %d, behind one of timeline %d", p.timeline, w.timeline)
	}
	w.timeline = p.timeline
	start := page + LSN(w.headSize) //nolint:gosec // 24 or 40
	continues := p.flags&flagContinues != 0
	if !w.synced {
		return w.enter(start, p)
	}
	switch {
	case w.skip > page:
		return nil
	case p.flags&flagOverwritten != 0:
		w.record, w.body = 0, w.body[:0] // a crash cut it off, and what follows says so
	case w.record == 0 && continues:
		return w.fail(page, "a record goes on here that never began")
	case w.record != 0 && !continues:
		return w.fail(page, "the record at %s does not go on here", w.record)
	case w.record != 0 && w.left() != p.rest:
		return w.fail(page, "the record at %s goes on here with %d bytes, it has %d more", w.record, p.rest, w.left())
	}
	return nil
}

// enter finds the first record: behind the rest of one that began earlier.
func (w *Walker) enter(start LSN, p walPage) error {
	if p.flags&flagContinues == 0 {
		w.synced = true
		return nil
	}
	room := w.origin.pageSize() - start%w.origin.pageSize()
	if LSN(p.rest) < room {
		w.synced = true
		w.skip = align(start + LSN(p.rest))
		return nil
	}
	w.skip = start + room // the next page tells
	return nil
}

// left is how many bytes of the record are still to come.
func (w *Walker) left() uint32 {
	if w.have < recordHeader {
		total := uint32(0)
		if w.have >= 4 {
			total = binary.LittleEndian.Uint32(w.header[:])
		}
		return total - uint32(w.have) //nolint:gosec // below 24
	}
	return w.rest
}

func align(l LSN) LSN { return (l + recordAlign - 1) &^ (recordAlign - 1) }

// payload takes bytes of a page behind its header, and returns how many it has taken.
func (w *Walker) payload(b []byte) (int, error) {
	switch {
	case w.skip > w.at:
		b = b[:min(LSN(len(b)), w.skip-w.at)]
		if w.zeros && !zeros(b) {
			return 0, w.fail(w.at, "there is something between a switch and the end of the segment")
		}
		return len(b), nil
	case w.have < recordHeader || w.record == 0:
		return w.takeHeader(b)
	}
	b = b[:min(len(b), int(w.rest))]
	w.crc = crc32.Update(w.crc, castagnoli, b)
	w.collect(b)
	w.rest -= uint32(len(b)) //nolint:gosec // at most rest
	if w.rest == 0 {
		return len(b), w.whole(w.at + LSN(len(b)))
	}
	return len(b), nil
}

// takeHeader takes bytes of a record's header, which may go on on the next page.
func (w *Walker) takeHeader(b []byte) (int, error) {
	if w.record == 0 {
		w.record, w.have, w.skip, w.zeros = w.at, 0, 0, false
	}
	n := copy(w.header[w.have:], b)
	before := w.have
	w.have += n
	le := binary.LittleEndian
	if before < 4 && w.have >= 4 {
		switch total := le.Uint32(w.header[:]); {
		case total == 0:
			return 0, &WALError{At: w.record, Problem: "no record begins here: nothing was written yet", Empty: true}
		case total < recordHeader:
			return 0, w.fail(w.record, "a record of %d bytes", total)
		}
	}
	if w.have < recordHeader {
		return n, nil
	}
	if previous := LSN(le.Uint64(w.header[8:])); previous >= w.record || w.previous != 0 && previous != w.previous {
		return 0, w.fail(w.record, "the record says that it follows one at %s, not %s", previous, w.previous)
	}
	w.rest, w.crc = le.Uint32(w.header[:])-recordHeader, 0
	if w.rest == 0 {
		return n, w.whole(w.at + LSN(n)) //nolint:gosec // not negative
	}
	return n, nil
}

// whole checks a record that ends at an LSN, and goes on behind it.
func (w *Walker) whole(end LSN) error {
	const crcOffset = 20
	if got := crc32.Update(w.crc, castagnoli, w.header[:crcOffset]); got != binary.LittleEndian.Uint32(w.header[crcOffset:]) {
		return w.fail(w.record, "the CRC of the record does not fit")
	}
	w.observe()
	w.previous, w.record, w.have = w.record, 0, 0
	w.end = align(end)
	w.skip, w.zeros = w.end, false
	if w.header[17] == xlogManager && w.header[16]&0xF0 == walSwitch {
		// The rest of the segment is empty.
		size := LSN(w.origin.SegmentSize)
		if over := w.end % size; over != 0 {
			w.end += size - over
		}
		w.skip, w.zeros = w.end, true
	}
	return nil
}

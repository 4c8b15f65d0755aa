package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// JournalHeaderSize is the length of the fields that begin a segment of a rollback journal, in bytes. Records follow
	// at the end of the sector.
	JournalHeaderSize = 28

	journalMagic = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
	// superTail ends a journal that names a super-journal: length and checksum of the name, and the magic.
	superTail = 4 + 4 + 8
	maxSuper  = 4 << 10
	maxSector = 64 << 10
	allRest   = 0xffffffff
)

// ErrNoJournal tells that a file has no journal's header: it is empty, was zeroed (journal_mode=PERSIST) or never synced.
// Nothing is to be rolled back by it.
var ErrNoJournal = errors.New("no rollback journal")

// JournalHeader begins each segment of a rollback journal.
type JournalHeader struct {
	Records    uint32 // in the segment; 0 if they were never synced, 2³²−1 for all that follows
	Nonce      uint32 // the records' checksums begin with it
	Pages      uint32 // size of the database in pages before the transaction
	SectorSize uint32 // bytes: headers begin at multiples of it
	PageSize   uint32 // bytes
}

// ParseJournalHeader reads the first [JournalHeaderSize] bytes of a segment. Errors are [ErrNoJournal] and [ErrDamaged].
func ParseJournalHeader(b []byte) (JournalHeader, error) {
	if len(b) < JournalHeaderSize || string(b[:8]) != journalMagic {
		return JournalHeader{}, ErrNoJournal
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	h := JournalHeader{Records: u32(8), Nonce: u32(12), Pages: u32(16), SectorSize: u32(20), PageSize: u32(24)}
	if h.SectorSize < 32 || h.SectorSize > maxSector || h.SectorSize&(h.SectorSize-1) != 0 || !ValidPageSize(h.PageSize) {
		return h, fmt.Errorf("rollback journal with sectors of %d and pages of %d bytes: %w", h.SectorSize, h.PageSize, ErrDamaged)
	}
	return h, nil
}

// Append encodes the header behind b.
func (h JournalHeader) Append(b []byte) []byte {
	b = append(b, journalMagic...)
	for _, v := range []uint32{h.Records, h.Nonce, h.Pages, h.SectorSize, h.PageSize} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// PageChecksum is the checksum behind a record: of every two hundredth byte, counted from the page's end.
func (h JournalHeader) PageChecksum(page []byte) uint32 {
	sum := h.Nonce
	for i := len(page) - 200; i > 0; i -= 200 {
		sum += uint32(page[i])
	}
	return sum
}

// Journal is what a rollback journal holds.
type Journal struct {
	JournalHeader        // of the first segment
	Restored      int    // records that count
	Segments      int    // headers that were met
	Super         string // path of the super-journal of a transaction over several databases, or empty
}

// ReadJournal reads a journal of size bytes as SQLite does when it rolls a hot one back, and calls original for each page
// that it would restore, in that order; data is good until original returns. The database is to be cut, or was grown, to
// Journal.Pages pages. It ends without an error at a torn record or segment, as SQLite does: what follows was never synced,
// so the database was not yet touched by it. Errors are [ErrNoJournal], those of r and those of original.
//
// Whether a journal is hot at all is [Hot]'s answer.
func ReadJournal(r io.ReaderAt, size int64, original func(number uint32, data []byte) error) (Journal, error) {
	var j Journal
	head := make([]byte, JournalHeaderSize)
	if err := readAt(r, head, 0, size); err != nil {
		return j, err
	}
	first, err := ParseJournalHeader(head)
	if errors.Is(err, ErrDamaged) {
		return j, fmt.Errorf("%w: %w", ErrNoJournal, err) // SQLite takes it for the end of the journal
	} else if err != nil {
		return j, err
	}
	j.JournalHeader = first
	if j.Super, err = superJournal(r, size); err != nil {
		return j, err
	}
	s := segments{r: r, size: size, j: &j, record: make([]byte, 4+first.PageSize+4), original: original}
	for at := int64(0); ; {
		h := first
		if at > 0 {
			if err := readAt(r, head, at, size); errors.Is(err, ErrNoJournal) {
				return j, nil
			} else if err != nil {
				return j, err
			}
			if h, err = parseSegment(head, first); err != nil {
				return j, nil //nolint:nilerr // the end
			}
		}
		j.Segments++
		next, more, err := s.play(h, at+int64(first.SectorSize))
		if err != nil || !more {
			return j, err
		}
		sector := int64(first.SectorSize)
		at = (next + sector - 1) / sector * sector
	}
}

// parseSegment reads a later header, whose sizes SQLite does not look at.
func parseSegment(head []byte, first JournalHeader) (JournalHeader, error) {
	h, err := ParseJournalHeader(head)
	if errors.Is(err, ErrNoJournal) {
		return h, err
	}
	h.SectorSize, h.PageSize = first.SectorSize, first.PageSize
	return h, nil
}

// segments replays one segment after the other.
type segments struct {
	r        io.ReaderAt
	size     int64
	j        *Journal
	record   []byte
	original func(number uint32, data []byte) error
}

// play replays the records of a segment, which begin at the byte at. more is false at the journal's end.
func (s *segments) play(h JournalHeader, at int64) (next int64, more bool, err error) {
	count := int64(h.Records)
	if h.Records == allRest {
		count = max(0, (s.size-at)/int64(len(s.record)))
	}
	for range count {
		if err := readAt(s.r, s.record, at, s.size); errors.Is(err, ErrNoJournal) {
			return at, false, nil
		} else if err != nil {
			return at, false, err
		}
		at += int64(len(s.record))
		number := binary.BigEndian.Uint32(s.record)
		if number == 0 || number == LockPage(h.PageSize) {
			return at, false, nil
		}
		data := s.record[4 : 4+h.PageSize]
		if number > s.j.Pages {
			continue // goes with the pages that are cut off
		}
		if binary.BigEndian.Uint32(s.record[4+h.PageSize:]) != h.PageChecksum(data) {
			return at, false, nil
		}
		s.j.Restored++
		if err := s.original(number, data); err != nil {
			return at, false, err
		}
	}
	return at, true, nil
}

// superJournal reads the name at a journal's end, if there is one that can be believed.
func superJournal(r io.ReaderAt, size int64) (string, error) {
	tail := make([]byte, superTail)
	if err := readAt(r, tail, size-superTail, size); errors.Is(err, ErrNoJournal) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	length := int64(binary.BigEndian.Uint32(tail))
	if string(tail[8:]) != journalMagic || length == 0 || length >= maxSuper || length > size-superTail {
		return "", nil
	}
	name := make([]byte, length)
	if err := readAt(r, name, size-superTail-length, size); err != nil {
		return "", err
	}
	var signed, unsigned uint32 // what a char is depends on the processor that wrote
	for _, c := range name {
		signed += uint32(int32(int8(c)))
		unsigned += uint32(c)
	}
	if sum := binary.BigEndian.Uint32(tail[4:]); sum != signed && sum != unsigned || bytes.IndexByte(name, 0) >= 0 {
		return "", nil
	}
	return string(name), nil
}

// readAt fills b from the byte at on; [ErrNoJournal] if the file is too short.
func readAt(r io.ReaderAt, b []byte, at, size int64) error {
	if at < 0 || at+int64(len(b)) > size {
		return ErrNoJournal
	}
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return ErrNoJournal
	}
	return fmt.Errorf("read the rollback journal: %w", err)
}

// JournalFacts are what decides whether a journal is hot.
type JournalFacts struct {
	Size         int64 // of the journal, in bytes
	FirstByte    byte  // of the journal
	DatabaseSize int64 // bytes
	Reserved     bool  // some process holds the RESERVED lock, or a stronger one: its transaction is still on its way
	Super        bool  // the journal names a super-journal …
	SuperExists  bool  // … and that exists
}

// Hot reports whether a journal is left of a transaction that never ended, so that who opens the database next rolls it
// back, and the file alone is not consistent. A journal that is not hot is of no account.
func Hot(f JournalFacts) bool {
	switch {
	case f.Size == 0 || f.FirstByte == 0: // truncated, or zeroed by journal_mode=PERSIST
		return false
	case f.Reserved:
		return false
	case f.DatabaseSize == 0: // SQLite deletes such a journal
		return false
	case f.Super && !f.SuperExists: // that transaction was committed everywhere
		return false
	}
	return true
}

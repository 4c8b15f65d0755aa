package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// HeaderSize is the length of the header at the beginning of a database, in bytes.
	HeaderSize = 100
	// Magic begins each database.
	Magic = "SQLite format 3\x00"

	minPage = 512
	maxPage = 64 << 10
)

// Where a database file is locked, as byte offsets. The page that they lie in is never used ([Header.LockPage]).
const (
	PendingByte  = 1 << 30 // one byte: a writer waits, no new reader may come
	ReservedByte = PendingByte + 1
	SharedFirst  = PendingByte + 2
	SharedSize   = 510
)

var (
	// ErrNotDatabase tells that the bytes are no database that this package knows.
	ErrNotDatabase = errors.New("not a SQLite database")
	// ErrDamaged tells that the bytes begin as they should and go on as they must not.
	ErrDamaged = errors.New("damaged")
)

// Encoding is how a database stores text.
type Encoding uint32

// Encodings. A database without a table has none yet.
const (
	NoEncoding Encoding = iota
	UTF8
	UTF16LE
	UTF16BE
)

// Vacuum is what happens to pages that become free.
type Vacuum uint8

// Ways to vacuum.
const (
	VacuumNone Vacuum = iota
	VacuumFull
	VacuumIncremental
)

// Header is the head of a database. In WAL mode what the file says may be older than what the log says; only the page
// size, the versions and the encoding are certain then.
type Header struct {
	PageSize         uint32 // bytes: a power of two, 512 … 65536
	WriteVersion     uint8  // 1 rollback journal, 2 write-ahead log
	ReadVersion      uint8
	Reserved         uint8  // bytes at the end of each page for extensions (encryption, checksums)
	Change           uint32 // file change counter: grows with each transaction of a rollback mode
	Pages            uint32 // as the header has it; of use only if PagesKnown
	PagesKnown       bool
	FreePages        uint32
	SchemaCookie     uint32
	Encoding         Encoding
	Vacuum           Vacuum
	UserVersion      uint32
	ApplicationID    uint32
	VersionValidFor  uint32
	LibraryVersion   uint32 // of the library that wrote last, as 3040001
	firstPageLooksOK bool
}

// WAL reports whether the database is in WAL mode.
func (h Header) WAL() bool { return h.WriteVersion == 2 && h.ReadVersion == 2 }

// LockPage is the number of the page that holds the lock bytes: it has no content, whatever the file has there. Only
// databases over 1 GiB have it.
func (h Header) LockPage() uint32 { return LockPage(h.PageSize) }

// LockPage is [Header.LockPage] for a page size in bytes.
func LockPage(pageSize uint32) uint32 { return PendingByte/pageSize + 1 }

// ValidPageSize reports whether pages may have that many bytes.
func ValidPageSize(n uint32) bool { return n >= minPage && n <= maxPage && n&(n-1) == 0 }

// ParseHeader reads the first bytes of a database; more than [HeaderSize] do no harm and let it see more. Errors are
// [ErrNotDatabase] and [ErrDamaged].
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize || string(b[:len(Magic)]) != Magic {
		return Header{}, ErrNotDatabase
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	h := Header{
		PageSize:        uint32(binary.BigEndian.Uint16(b[16:])),
		WriteVersion:    b[18],
		ReadVersion:     b[19],
		Reserved:        b[20],
		Change:          u32(24),
		Pages:           u32(28),
		FreePages:       u32(36),
		SchemaCookie:    u32(40),
		Encoding:        Encoding(u32(56)),
		UserVersion:     u32(60),
		ApplicationID:   u32(68),
		VersionValidFor: u32(92),
		LibraryVersion:  u32(96),
	}
	if h.PageSize == 1 {
		h.PageSize = maxPage
	}
	// Libraries before 3.7.0 do not keep the number of pages, and leave the other field alone: that tells.
	h.PagesKnown = h.Pages != 0 && h.Change == h.VersionValidFor
	if u32(52) != 0 {
		h.Vacuum = VacuumFull
		if u32(64) != 0 {
			h.Vacuum = VacuumIncremental
		}
	}
	// Page 1 is the root of the schema: a table's leaf or inner node. SQLCipher can leave the header readable.
	h.firstPageLooksOK = len(b) == HeaderSize || b[HeaderSize] == 0x0d || b[HeaderSize] == 0x05 || b[HeaderSize] == 0
	return h, h.check(b)
}

func (h Header) check(b []byte) error {
	switch {
	case !ValidPageSize(h.PageSize):
		return fmt.Errorf("page size %d in the header: %w", h.PageSize, ErrDamaged)
	case h.PageSize-uint32(h.Reserved) < 480:
		return fmt.Errorf("%d of %d bytes of a page are reserved: %w", h.Reserved, h.PageSize, ErrDamaged)
	case b[21] != 64 || b[22] != 32 || b[23] != 32:
		return fmt.Errorf("payload fractions %d, %d, %d in the header: %w", b[21], b[22], b[23], ErrDamaged)
	case h.WriteVersion == 0 || h.ReadVersion == 0:
		return fmt.Errorf("format version 0 in the header: %w", ErrDamaged)
	case h.Encoding > UTF16BE:
		return fmt.Errorf("text encoding %d in the header: %w", h.Encoding, ErrDamaged)
	}
	return nil
}

// Identity says what a file is by its beginning.
type Identity int

// What a file may be.
const (
	Database    Identity = iota // a database
	Empty                       // no byte: SQLite takes it for a database without a table
	Encrypted                   // nothing but noise, or a readable header over pages that are noise
	Foreign                     // something else
	Broken                      // a database whose header is damaged
	Unsupported                 // a database of a version that this package does not know
)

// Identify says what a file is. head is its beginning, best a whole page; size the length of the file in bytes.
// Whether something is encrypted can't be known, only that it has no header and no pattern.
func Identify(head []byte, size int64) Identity {
	if size == 0 {
		return Empty
	}
	h, err := ParseHeader(head)
	switch {
	case errors.Is(err, ErrNotDatabase):
		if size >= minPage && size%minPage == 0 && noise(head) {
			return Encrypted
		}
		return Foreign
	case h.ReadVersion > 2:
		return Unsupported
	case !h.firstPageLooksOK && noise(head[HeaderSize:]):
		return Encrypted
	case err != nil:
		return Broken
	}
	return Database
}

// noise reports whether bytes are as evenly spread as those of a good cipher, by a chi-squared test that random bytes
// pass in all but about one of 10⁹ cases and that text, code and images fail by far.
func noise(b []byte) bool {
	if len(b) < 256 {
		return false
	}
	var counts [256]int
	for _, c := range b {
		counts[c]++
	}
	expected := float64(len(b)) / 256
	sum := 0.0
	for _, n := range counts {
		sum += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	return sum < 255+6*22.6 // mean and standard deviations of 255 degrees of freedom
}

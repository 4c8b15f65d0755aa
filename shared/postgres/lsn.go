package postgres

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a log sequence number: a place in the write-ahead log, in bytes from its beginning. 0 is no place.
type LSN uint64

// The sizes of WAL segments that PostgreSQL allows, in bytes.
const (
	MinSegmentSize     = 1 << 20
	MaxSegmentSize     = 1 << 30
	DefaultSegmentSize = 16 << 20
)

// ParseLSN parses what PostgreSQL prints: two hexadecimal numbers, "16/B374D848".
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, malformed("LSN %q", brief(s))
	}
	h, err := hex32(high)
	if err != nil {
		return 0, malformed("LSN %q", brief(s))
	}
	l, err := hex32(low)
	if err != nil {
		return 0, malformed("LSN %q", brief(s))
	}
	return LSN(h)<<32 | LSN(l), nil
}

// hex32 parses 1 to 8 hexadecimal digits and nothing else: strconv takes signs and underscores, too.
func hex32(s string) (uint32, error) {
	if len(s) == 0 || len(s) > 8 || strings.Trim(s, "0123456789abcdefABCDEF") != "" {
		return 0, strconv.ErrSyntax
	}
	v, err := strconv.ParseUint(s, 16, 32)
	return uint32(v), err
}

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) } //nolint:gosec // both halves

// MarshalText gives the LSN as PostgreSQL prints it.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is [ParseLSN] of what [LSN.String] gives, and of nothing else, so that it can be written again.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	if err == nil && v.String() != string(b) {
		err = malformed("LSN %q", brief(string(b)))
	}
	if err != nil {
		return err
	}
	*l = v
	return nil
}

// CheckSegmentSize reports a size of WAL segments, in bytes, that no cluster has.
func CheckSegmentSize(size uint32) error {
	if size < MinSegmentSize || size > MaxSegmentSize || size&(size-1) != 0 {
		return malformed("WAL segments of %d bytes", size)
	}
	return nil
}

// SegmentStart is where the WAL segment begins that holds the byte at l.
func (l LSN) SegmentStart(size uint32) LSN { return l - l%LSN(size) }

// SegmentEnd is where the WAL segment ends that holds the byte at l: the next one begins there.
func (l LSN) SegmentEnd(size uint32) LSN { return l.SegmentStart(size) + LSN(size) }

// Package postgres knows the bytes of PostgreSQL: log sequence numbers and the names of WAL files, pages and their
// checksums, pg_control, timeline histories, backup manifests, labels, and write-ahead log. It does no I/O and starts
// nothing.
//
// It reads what servers of the major versions 13 to 18 write, on little-endian machines with 8-byte alignment (amd64,
// arm64 and others like them). Where a layout differs between versions it is told from the bytes. What PostgreSQL writes
// is described in its sources, src/include/access/xlog_internal.h, xlogrecord.h, storage/bufpage.h, storage/checksum_impl.h,
// catalog/pg_control.h and backend/backup.
//
// Timelines are uint32, as in PostgreSQL; sizes of WAL segments are in bytes. Every parser is strict, is fuzzed, and
// returns an error that wraps [ErrFormat] for what no server writes.
package postgres

import (
	"errors"
	"fmt"
)

// ErrFormat says that bytes are not what PostgreSQL writes.
var ErrFormat = errors.New("not as PostgreSQL writes it")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// brief cuts text from outside to what fits into an error.
func brief(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

package postgres

import (
	"fmt"
	"strings"
)

// NameKind is what a file in pg_wal is.
type NameKind int

// The kinds of names that PostgreSQL asks restore_command for, or gives to archive_command.
const (
	Segment       NameKind = iota + 1 // 000000010000000000000002
	Partial                           // 000000010000000000000002.partial: the last one of a timeline that was left
	History                           // 00000002.history
	BackupHistory                     // 000000010000000000000002.00000028.backup
)

func (k NameKind) String() string {
	switch k {
	case Segment:
		return "WAL segment"
	case Partial:
		return "partial WAL segment"
	case History:
		return "timeline history"
	case BackupHistory:
		return "backup history"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Name is the name of a file in pg_wal, taken apart.
type Name struct {
	Kind     NameKind
	Timeline uint32
	Start    LSN // where the segment begins; not of History
	Backup   LSN // where the backup began; of BackupHistory only
}

// SegmentName is the name of the WAL segment of a timeline that holds the byte at an LSN.
func SegmentName(timeline uint32, at LSN, size uint32) string {
	number := uint64(at) / uint64(size)
	perID := uint64(1<<32) / uint64(size)
	return fmt.Sprintf("%08X%08X%08X", timeline, number/perID, number%perID)
}

// HistoryName is the name of a timeline's history file.
func HistoryName(timeline uint32) string { return fmt.Sprintf("%08X.history", timeline) }

// String is the name as it was, where it is of a segment or a history.
func (n Name) String(size uint32) string {
	switch n.Kind {
	case History:
		return HistoryName(n.Timeline)
	case Partial:
		return SegmentName(n.Timeline, n.Start, size) + ".partial"
	case BackupHistory:
		return fmt.Sprintf("%s.%08X.backup", SegmentName(n.Timeline, n.Start, size), uint64(n.Backup-n.Start))
	}
	return SegmentName(n.Timeline, n.Start, size)
}

// ParseName parses the name of a file in pg_wal, whose segments are of the size. A name is without directories. An error
// wraps ErrFormat: it is another file's.
func ParseName(name string, size uint32) (Name, error) {
	if err := CheckSegmentSize(size); err != nil {
		return Name{}, err
	}
	stem, suffix, _ := strings.Cut(name, ".")
	var n Name
	switch {
	case len(stem) == 8 && suffix == "history":
		n.Kind = History
	case len(stem) == 24 && name == stem:
		n.Kind = Segment
	case len(stem) == 24 && suffix == "partial":
		n.Kind = Partial
	case len(stem) == 24 && len(suffix) == len("00000028.backup") && strings.HasSuffix(suffix, ".backup"):
		n.Kind = BackupHistory
	default:
		return Name{}, malformed("%q is no name of a WAL file", brief(name))
	}
	if err := n.parse(stem, suffix, size); err != nil {
		return Name{}, malformed("%q is no name of a WAL file: %v", brief(name), err)
	}
	// Lower-case digits and offsets beyond a segment are nobody's.
	if n.String(size) != name {
		return Name{}, malformed("%q is no name of a WAL file with segments of %d bytes", brief(name), size)
	}
	return n, nil
}

func (n *Name) parse(stem, suffix string, size uint32) error {
	var err error
	if n.Timeline, err = hex32(stem[:8]); err != nil {
		return err
	}
	if n.Timeline == 0 {
		return malformed("timeline 0")
	}
	if n.Kind == History {
		return nil
	}
	id, err := hex32(stem[8:16])
	if err != nil {
		return err
	}
	number, err := hex32(stem[16:])
	if err != nil {
		return err
	}
	n.Start = LSN(id)<<32 + LSN(number)*LSN(size)
	if n.Kind == BackupHistory {
		offset, err := hex32(suffix[:8])
		if err != nil {
			return err
		}
		n.Backup = n.Start + LSN(offset)
	}
	return nil
}

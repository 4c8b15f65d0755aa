package tail

import (
	"time"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// Stamp tells whether a file was written to. The zero value is none.
type Stamp struct {
	Size     int64 `json:"size"`     // bytes
	Modified int64 `json:"modified"` // mtime, Unix nanoseconds
	Changed  int64 `json:"changed"`  // ctime, Unix nanoseconds
}

// content is what changes with what a file holds, not with its owner or mode.
func (s Stamp) content() Stamp { return Stamp{Size: s.Size, Modified: s.Modified} }

// Position is a place in the history of a database: what is before it was read. Positions can be compared with ==, and kept
// as JSON. A position can change without a commit (File), so the newest one is worth keeping; it is the same place then.
type Position struct {
	Device    uint64          `json:"device"`
	Inode     uint64          `json:"inode"`
	PageSize  uint32          `json:"page_size"`
	Salt      sqlite.Salt     `json:"salt"`     // generation of the log; zero if there was none
	Frames    uint32          `json:"frames"`   // of that generation that were read
	Checksum  sqlite.Checksum `json:"checksum"` // running, after Frames
	Change    uint32          `json:"change"`   // the wal-index's count of commits, if HasChange
	HasChange bool            `json:"has_change"`
	File      Stamp           `json:"file"` // of the database file if all before the position is in it; else zero
}

// Batch is what one [Tail.Poll] read.
type Batch struct {
	Commits  int    // transactions; 0 if nothing happened
	Frames   int    // page versions that were delivered
	More     bool   // this was the end of a log that is not the database's any more: poll again for what is committed by now
	Pages    uint32 // size of the database in pages after the newest commit known; 0 if no commit was read since Start
	PageSize uint32 // bytes
	Position Position
	Time     time.Time // when the newest commit of the batch was seen; zero if there is none
}

const (
	// tick is more than the step of the clock that inodes' times are taken from (10 ms at most). A file that was changed
	// less than that ago may be changed again and keep its times.
	tick = 25 * time.Millisecond
)

// settled reports whether a file whose inode changed last at changed, in Unix nanoseconds, can't be written to from now on
// without other times.
func settled(changed int64, now time.Time) bool {
	age := now.UnixNano() - changed
	return age > int64(tick) || age < -int64(tick)
}

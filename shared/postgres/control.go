package postgres

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// State is what a cluster was doing when it last wrote pg_control.
type State uint32

// The states of a cluster.
const (
	StartingUp         State = iota
	ShutDown                 // cleanly
	ShutDownInRecovery       // a standby, cleanly
	ShuttingDown             //
	InCrashRecovery          //
	InArchiveRecovery        // a standby, or a restore
	InProduction             // running, or it crashed
	statesOfCluster    State = iota
)

func (s State) String() string {
	names := []string{
		"starting up", "shut down", "shut down in recovery", "shutting down", "in crash recovery", "in archive recovery", "in production",
	}
	if s < statesOfCluster {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// Control is what global/pg_control says of a cluster.
type Control struct {
	System  uint64 // system identifier: of the cluster and all of its clones
	Version uint32 // of the file's layout: 1300 for PostgreSQL 13 to 17, 1800 for 18
	Catalog uint32 // version of the system catalogs
	State   State
	Time    time.Time // when it was written

	Checkpoint       LSN // of the record of the last checkpoint
	Redo             LSN // from where on that needs WAL
	Timeline         uint32
	PreviousTimeline uint32
	CheckpointTime   time.Time

	MinRecovery         LSN    // recovery must come at least so far
	MinRecoveryTimeline uint32 //
	BackupStart         LSN    // of a backup that is being recovered
	BackupEnd           LSN    // of one that was taken from a standby
	BackupEndRequired   bool   // the record of the backup's end must be found

	WALLevel        WALLevel
	MaxConnections  uint32 // a hot standby needs no fewer; the next four too
	MaxWorkers      uint32
	MaxWALSenders   uint32
	MaxPrepared     uint32
	MaxLocks        uint32 // per transaction
	BlockSize       uint32 // of pages, bytes
	RelationSegment uint32 // pages in one file
	WALBlockSize    uint32 // of pages of WAL, bytes
	SegmentSize     uint32 // of WAL, bytes
	Checksums       bool   // pages have them
}

// WALLevel is how much is logged.
type WALLevel uint32

// The levels, as wal_level names them.
const (
	Minimal WALLevel = iota
	Replica
	Logical
)

func (l WALLevel) String() string {
	names := []string{"minimal", "replica", "logical"}
	if int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("wal_level %d", uint32(l))
}

// Offsets in pg_control. They are those of the structure in catalog/pg_control.h where int64 is aligned to 8 bytes; the CRC
// is the last member, behind one more byte in 18.
const (
	crcAt   = 288
	crcAt18 = 292
)

// ParseControl parses pg_control and checks its CRC.
func ParseControl(b []byte) (*Control, error) {
	if len(b) < crcAt18+4 {
		return nil, malformed("pg_control of %d bytes", len(b))
	}
	le := binary.LittleEndian
	c := &Control{System: le.Uint64(b), Version: le.Uint32(b[8:]), Catalog: le.Uint32(b[12:])}
	at := crcAt
	if c.Version >= 1800 {
		at = crcAt18
	}
	if c.Version < 1300 || c.Version > 1999 {
		return nil, malformed("pg_control of version %d: 1300 to 1800 are known, of PostgreSQL 13 to 18 on a little-endian machine", c.Version)
	}
	if crc32.Checksum(b[:at], castagnoli) != le.Uint32(b[at:]) {
		return nil, malformed("the CRC of pg_control does not fit")
	}
	u32 := func(at int) uint32 { return le.Uint32(b[at:]) }
	lsn := func(at int) LSN { return LSN(le.Uint64(b[at:])) }
	stamp := func(at int) time.Time { return time.Unix(int64(le.Uint64(b[at:])), 0).UTC() } //nolint:gosec // signed there
	c.State, c.Time = State(u32(16)), stamp(24)
	c.Checkpoint, c.Redo = lsn(32), lsn(40)
	c.Timeline, c.PreviousTimeline, c.CheckpointTime = u32(48), u32(52), stamp(104)
	c.MinRecovery, c.MinRecoveryTimeline = lsn(136), u32(144)
	c.BackupStart, c.BackupEnd, c.BackupEndRequired = lsn(152), lsn(160), b[168] != 0
	c.WALLevel = WALLevel(u32(172))
	c.MaxConnections, c.MaxWorkers, c.MaxWALSenders, c.MaxPrepared, c.MaxLocks = u32(180), u32(184), u32(188), u32(192), u32(196)
	c.BlockSize, c.RelationSegment, c.WALBlockSize, c.SegmentSize = u32(216), u32(220), u32(224), u32(228)
	c.Checksums = u32(252) != 0
	switch {
	case c.State >= statesOfCluster:
		return nil, malformed("pg_control: %s", c.State)
	case !pageSize(c.BlockSize) || !pageSize(c.WALBlockSize) || c.RelationSegment == 0:
		return nil, malformed("pg_control: pages of %d bytes, of WAL %d, files of %d pages", c.BlockSize, c.WALBlockSize, c.RelationSegment)
	}
	return c, CheckSegmentSize(c.SegmentSize)
}

// pageSize reports whether pages can be of so many bytes; those of WAL are up to 64 KiB.
func pageSize(n uint32) bool { return n >= 1024 && n <= 65536 && n&(n-1) == 0 }

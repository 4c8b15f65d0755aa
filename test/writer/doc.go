// Package writer is an application with an SQLite database, for tests and benchmarks of what backs such an application
// up: [Run] commits transactions at a steady rate, makes checkpoints of its own, measures how long each took and notes
// each commit that was acknowledged, with its time, in a file beside. [Notes] reads that file; [Check] says of any copy
// of the database how many transactions it holds, provided that it holds exactly the first so many.
//
// The program in app runs it as a process of its own, so that it can be killed.
package writer

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Modes of checkpoints besides those of PRAGMA wal_checkpoint.
const (
	Auto = "auto" // by SQLite itself, after 1,000 pages
	None = "none"
)

// Config is what the application does.
type Config struct {
	Path  string
	Notes string // file for the acknowledged commits; "": none

	Rate    float64       // transactions a second; 0: as many as there can be
	Commits int           // after which it ends; 0: no limit
	For     time.Duration // after which it ends; 0: no limit
	Hold    bool          // keep the database open after that, until it is told to end

	Checkpoint string // auto, none, passive, full, restart or truncate
	Every      int    // commits between checkpoints of the last four kinds

	// What follows counts when the database is made; one that is there keeps what it has.
	Shape
	PageSize    int    // bytes; 0: SQLite's default
	Journal     string // journal mode; "": wal
	Synchronous string // "": normal
	Busy        time.Duration
}

// Shape is what a transaction looks like. It is kept in the database.
type Shape struct {
	Payload int // bytes of each new row
	Cells   int // rows that are updated in turns
	Bulk    int // each so-manieth transaction updates Width cells, the others one; 0: none does
	Width   int
}

// DefaultShape is small transactions, and now and then one of about half a megabyte.
func DefaultShape() Shape { return Shape{Payload: 120, Cells: 4000, Bulk: 500, Width: 1000} }

// touched calls f for each cell that transaction n updates.
func (s Shape) touched(n int64, f func(cell int64)) {
	width := int64(1)
	if s.Bulk > 0 && n%int64(s.Bulk) == 0 {
		width = int64(min(s.Width, s.Cells))
	}
	first := mix(uint64(n)) % uint64(s.Cells) //nolint:gosec // n is positive
	for i := range width {
		f((int64(first) + i) % int64(s.Cells)) //nolint:gosec // below Cells
	}
}

// mix spreads numbers (splitmix64: https://prng.di.unimi.it/splitmix64.c).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// content is what a row holds that transaction n wrote last: half of it does not compress.
func (s Shape) content(n int64, salt uint64) []byte {
	b := make([]byte, s.Payload)
	for at := 0; at < len(b); at += 8 {
		v := mix(uint64(n)*0x100000001b3 + salt + uint64(at)) //nolint:gosec // n is positive
		if at/8%2 == 1 {
			v = 0x2020202020202020
		}
		var eight [8]byte
		binary.LittleEndian.PutUint64(eight[:], v)
		copy(b[at:], eight[:])
	}
	return b
}

const (
	rowSalt  = 1
	cellSalt = 2
)

func (s Shape) check() error {
	if s.Payload < 1 || s.Cells < 1 || s.Width < 0 || s.Bulk < 0 {
		return fmt.Errorf("shape %+v: want a payload and cells", s)
	}
	return nil
}

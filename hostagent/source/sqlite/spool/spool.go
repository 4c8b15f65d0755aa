// Package spool holds the newest version of each page of a database that was seen, in memory up to a limit and in a file
// beyond it. Use [New].
//
// Pages come in groups, such as those of the transactions that one look at a log finds: [Spool.Put] sets a page aside,
// and [Spool.Keep] makes all of them count at once, or [Spool.Drop] none.
//
// What it holds is lost with the process: the file has no name.
package spool

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/btcdecoded/holdfast/hostagent/scratch"
)

// ErrFull says that the limit of the disk is reached.
var ErrFull = errors.New("more pages than the spool may hold")

const (
	// arena is how much memory is asked for at a time.
	arena = 256 << 10
	// idle is how much memory an empty spool keeps for the next pages.
	idle = 1 << 20
	// DefaultMemory is how many bytes of pages are in memory at most, for the zero [Options].
	DefaultMemory = 8 << 20
	// DefaultDisk is how many are on disk at most.
	DefaultDisk = 8 << 30
)

// Options are the limits of a spool. The table of page numbers comes on top: about 24 bytes for each page.
type Options struct {
	Dir    string // for the file
	Memory int64  // bytes of pages; 0: DefaultMemory; negative: none
	Disk   int64  // bytes of pages beyond those; 0: DefaultDisk; negative: none
	Leave  int64  // bytes of the file system that stay free; 0: DefaultLeave
}

// Spool is a set of pages of one size. It is not safe for concurrent use.
type Spool struct {
	o        Options
	pageSize int // of the pages that it holds; 0: none yet
	inMemory int // how many slots are in memory

	kept, staged map[uint32]uint32 // page number → slot
	free         []uint32          // slots below next that hold nothing
	next         uint32
	arenas       [][]byte
	file         *os.File
	room         Room
	closed       bool
}

// New returns an empty spool. The file is made when it is needed.
func New(o Options) *Spool {
	limit := func(n, def int64) int64 {
		switch {
		case n == 0:
			return def
		case n < 0:
			return 0
		}
		return n
	}
	o.Memory, o.Disk = limit(o.Memory, DefaultMemory), limit(o.Disk, DefaultDisk)
	return &Spool{o: o, kept: map[uint32]uint32{}, staged: map[uint32]uint32{}}
}

// Len is how many pages count.
func (s *Spool) Len() int { return len(s.kept) }

// Bytes is the size of the pages that count.
func (s *Spool) Bytes() int64 { return int64(len(s.kept)) * int64(s.pageSize) }

// PageSize is that of the pages that it holds; 0 if it is empty.
func (s *Spool) PageSize() int { return s.pageSize }

// Put sets a page aside. One of the same number that was set aside before is replaced. Errors: ErrFull, those of the
// file system, os.ErrClosed; ENOSPC is one of them also where others need the room that is left.
func (s *Spool) Put(number uint32, page []byte) error {
	if s.pageSize == 0 {
		s.pageSize = len(page)
		s.inMemory = int(s.o.Memory) / max(1, s.pageSize)
	}
	if s.closed {
		return fmt.Errorf("spool of pages: %w", os.ErrClosed)
	}
	if len(page) != s.pageSize || len(page) == 0 {
		return fmt.Errorf("page %d has %d bytes, those before had %d", number, len(page), s.pageSize)
	}
	slot, ok := s.staged[number]
	if !ok {
		var err error
		if slot, err = s.slot(); err != nil {
			return err
		}
		s.staged[number] = slot
	}
	return s.write(slot, page)
}

// Keep makes the pages that were set aside count, in place of older versions.
func (s *Spool) Keep() {
	for number, slot := range s.staged {
		if old, ok := s.kept[number]; ok {
			s.free = append(s.free, old)
		}
		s.kept[number] = slot
	}
	clear(s.staged)
}

// Drop forgets the pages that were set aside.
func (s *Spool) Drop() {
	for _, slot := range s.staged {
		s.free = append(s.free, slot)
	}
	clear(s.staged)
}

// Get reads a page that counts into buf, which has the size of a page.
func (s *Spool) Get(number uint32, buf []byte) (ok bool, err error) {
	slot, ok := s.kept[number]
	if !ok {
		return false, nil
	}
	return true, s.read(slot, buf)
}

// Has reports whether a page counts.
func (s *Spool) Has(number uint32) bool {
	_, ok := s.kept[number]
	return ok
}

// Trim forgets pages beyond the end of a database that has become shorter.
func (s *Spool) Trim(pages uint32) {
	for number, slot := range s.kept {
		if number > pages {
			s.free = append(s.free, slot)
			delete(s.kept, number)
		}
	}
}

// Each yields the pages that count, by ascending number. The page is valid during the call.
func (s *Spool) Each(yield func(number uint32, page []byte) error) error {
	numbers := make([]uint32, 0, len(s.kept))
	for n := range s.kept {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	var buf []byte
	for _, n := range numbers {
		slot := s.kept[n]
		page := s.memory(slot)
		if page == nil {
			if buf == nil {
				buf = make([]byte, s.pageSize)
			}
			if err := s.read(slot, buf); err != nil {
				return err
			}
			page = buf
		}
		if err := yield(n, page); err != nil {
			return err
		}
	}
	return nil
}

// Add sets aside and keeps what another spool holds.
func (s *Spool) Add(newer *Spool) error {
	if err := newer.Each(s.Put); err != nil {
		s.Drop()
		return err
	}
	s.Keep()
	return nil
}

// Reset empties the spool. What was much memory goes back, and so does the file.
func (s *Spool) Reset() {
	most := idle / arena
	if len(s.arenas) > most {
		clear(s.arenas[most:])
		s.arenas = s.arenas[:most]
	}
	if len(s.kept)+len(s.staged) > 4096 { // a map never shrinks
		s.kept, s.staged = map[uint32]uint32{}, map[uint32]uint32{}
	} else {
		clear(s.kept)
		clear(s.staged)
	}
	s.free, s.next, s.pageSize = s.free[:0], 0, 0
	if s.file != nil {
		_ = s.file.Close() // nothing in it is needed
		s.file, s.room = nil, Room{}
	}
}

// Close gives the file up. What the spool holds is lost, and it takes no more.
func (s *Spool) Close() {
	s.Reset()
	s.arenas, s.closed = nil, true
}

// slot finds room for a page: first where there was one, in memory first of all.
func (s *Spool) slot() (uint32, error) {
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		return slot, nil
	}
	if beyond := int64(s.next) - int64(s.inMemory) + 1; beyond > 0 && beyond*int64(s.pageSize) > s.o.Disk {
		return 0, fmt.Errorf("%w: %d bytes", ErrFull, s.o.Memory+s.o.Disk)
	}
	s.next++
	return s.next - 1, nil
}

// memory returns the place of a slot, or nil if it is in the file.
func (s *Spool) memory(slot uint32) []byte {
	if int64(slot) >= int64(s.inMemory) {
		return nil
	}
	each := max(1, arena/s.pageSize)
	which, at := int(slot)/each, int(slot)%each*s.pageSize
	for len(s.arenas) <= which {
		s.arenas = append(s.arenas, nil)
	}
	// An arena that was made for larger pages may be too short for as many.
	if need := each * s.pageSize; len(s.arenas[which]) < need {
		s.arenas[which] = make([]byte, need)
	}
	return s.arenas[which][at : at+s.pageSize]
}

func (s *Spool) offset(slot uint32) int64 {
	return (int64(slot) - int64(s.inMemory)) * int64(s.pageSize)
}

func (s *Spool) write(slot uint32, page []byte) error {
	if to := s.memory(slot); to != nil {
		copy(to, page)
		return nil
	}
	if s.file == nil {
		if err := s.make(); err != nil {
			return err
		}
	}
	at := s.offset(slot)
	err := s.room.For(s.file, at+int64(len(page)))
	if err == nil {
		_, err = s.file.WriteAt(page, at)
	}
	if err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	return nil
}

func (s *Spool) read(slot uint32, buf []byte) error {
	if from := s.memory(slot); from != nil {
		copy(buf, from)
		return nil
	}
	if _, err := s.file.ReadAt(buf[:s.pageSize], s.offset(slot)); err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	return nil
}

// make makes the file and removes its name at once.
func (s *Spool) make() error {
	f, err := scratch.File(s.o.Dir, "spool-*")
	if err != nil {
		return fmt.Errorf("make spool: %w", err)
	}
	s.file, s.room = f, Room{Leave: s.o.Leave}
	return nil
}

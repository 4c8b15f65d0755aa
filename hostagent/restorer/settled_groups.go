package restorer

import (
	"encoding/binary"
	"slices"

	"github.com/btcdecoded/holdfast/shared/repository"
)

// settledGroups knows of each file with several names that is in place where its first name is, and which files that were
// there serve one. It is in tables on disk, so that a million of such files take some megabytes of memory: of each 4
// bytes, and of each directory that holds first names what [directory] has. Guarded by groups.mu.
//
// Nothing of it is needed after the run; a crash leaves nothing. What can't be kept stays in memory. What can't be read
// back counts as absent, and damaged says so.
type settledGroups struct {
	groups  *repository.Table
	rests   *repository.Table // of long names
	claimed *repository.Table
	held    map[inode]bool // of claimed, what could not be kept there
	dirs    []*directory   // that hold first names
}

// A record of a group: device, inode, place (u64 BE each), type; number of the directory (u32 BE), device and inode of the
// file (u64 BE each), length of the name (u8), the beginning of the name, zeros. Of the rest of a name: the same key, which
// part it is (u8, from 1), as many bytes again. Of a claimed file: device and inode (u64 BE each).
const (
	groupKeySize  = 3*8 + 1
	groupHeadSize = groupKeySize + 4 + 2*8 + 1
	claimSize     = 2 * 8

	namePart = 48  // most names are shorter
	longName = 255 // no file system of Linux has longer ones
)

func newSettledGroups(temp string) *settledGroups {
	return &settledGroups{
		groups:  repository.NewTable(temp, groupKeySize, groupHeadSize+namePart),
		rests:   repository.NewTable(temp, groupKeySize+1, groupKeySize+1+namePart),
		claimed: repository.NewTable(temp, claimSize, claimSize),
		held:    map[inode]bool{},
	}
}

func (k *groupKey) record() []byte {
	b := make([]byte, groupHeadSize+namePart)
	binary.BigEndian.PutUint64(b, k.device)
	binary.BigEndian.PutUint64(b[8:], k.inode)
	binary.BigEndian.PutUint64(b[16:], k.place)
	b[24] = byte(k.kind)
	return b
}

// add takes a group whose first name is in place. It returns false if that must stay in memory.
func (s *settledGroups) add(key groupKey, x *group) bool {
	if len(x.name) > longName {
		return false
	}
	if x.dir.number == 0 {
		s.dirs = append(s.dirs, x.dir)
		x.dir.number = uint32(len(s.dirs)) //nolint:gosec // each is in memory
	}
	record := key.record()
	value := record[groupKeySize:]
	binary.BigEndian.PutUint32(value, x.dir.number-1)
	binary.BigEndian.PutUint64(value[4:], x.id.device)
	binary.BigEndian.PutUint64(value[12:], x.id.number)
	value[20] = byte(len(x.name))
	begin := copy(value[21:], x.name)
	// The rest first: without it the record would be of another name.
	part := append(record[:groupKeySize:groupKeySize], make([]byte, 1+namePart)...)
	for rest := x.name[begin:]; len(rest) > 0; {
		part[groupKeySize]++
		n := copy(part[groupKeySize+1:], rest)
		rest = rest[n:]
		if !s.rests.Put(part) {
			return false
		}
	}
	return s.groups.Put(record)
}

// find returns a group that was added; nil: there is none.
func (s *settledGroups) find(key groupKey) *group {
	record := key.record()
	if !s.groups.Find(record) {
		return nil
	}
	value := record[groupKeySize:]
	name := slices.Clone(value[21:])
	part := append(record[:groupKeySize:groupKeySize], make([]byte, 1+namePart)...)
	for len(name) < int(value[20]) {
		part[groupKeySize]++
		if !s.rests.Find(part) {
			return nil // damaged
		}
		name = append(name, part[groupKeySize+1:]...)
	}
	return &group{
		settled: true, dir: s.dirs[binary.BigEndian.Uint32(value)], name: string(name[:value[20]]),
		id: inode{binary.BigEndian.Uint64(value[4:]), binary.BigEndian.Uint64(value[12:])},
	}
}

// claim takes a file that was there for a group; false: it serves another one already, or whether it does is not known.
func (s *settledGroups) claim(id inode) bool {
	var record [claimSize]byte
	binary.BigEndian.PutUint64(record[:], id.device)
	binary.BigEndian.PutUint64(record[8:], id.number)
	if s.held[id] || s.claimed.Find(record[:]) || s.claimed.Damaged() {
		return false
	}
	if !s.claimed.Put(record[:]) {
		s.held[id] = true
	}
	return true
}

// damaged reports whether a group may have been missed.
func (s *settledGroups) damaged() bool { return s.groups.Damaged() || s.rests.Damaged() }

func (s *settledGroups) close() {
	s.groups.Close()
	s.rests.Close()
	s.claimed.Close()
}

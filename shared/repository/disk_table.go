package repository

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	diskParts = 1 << 10 // a power of two
	diskBlock = 32      // records in a block
	diskSum   = 4       // bytes of a block's sum
)

// diskTable keeps records of one size, each a key and a value, for as long as a run takes. In memory are two bytes of
// each record's hash and, for each block of 32 records, where it is: 2.2 bytes for a record, and up to diskParts blocks
// that are not full. The records themselves are in a file: a hash that matches is only a candidate, whose whole key is
// compared. So what is not there is mostly told without a read, and what is there with one. It is safe for concurrent use.
//
// The file is made when the first block is full and loses its name at once: it goes with the process, and a crash leaves
// nothing, or at worst an empty file that the next run replaces. Each block has a sum, over its number too. A record whose
// block can't be read or is damaged counts as absent; where the file can't be written, nothing more is kept. Both only
// cost that what was to be found is made, or stored, again.
type diskTable struct {
	path   string
	key    int // bytes of a record's key, which comes first
	record int // bytes of a record

	mu      sync.RWMutex
	f       *os.File    // nil: no block is full yet; guarded by mu, as all below
	parts   []diskPart  // by the low bits of the hash
	blocks  uint32      // in the file
	err     error       // why nothing more is kept
	scratch sync.Pool   // of *[]byte: a block
	damaged atomic.Bool // a block could not be read back
}

// diskPart is the records whose hashes end alike, in the order in which they came.
type diskPart struct {
	n      int      // records
	prints []uint64 // 16 more bits of the hash of each, four in a word
	full   []uint32 // numbers of the blocks in the file
	tail   []byte   // records that do not fill a block
}

// find returns the highest number below before of a record with this print; -1 if there is none.
func (p *diskPart) find(print uint16, before int) int {
	const (
		ones  = 0x0001_0001_0001_0001
		highs = 0x8000_8000_8000_8000
	)
	wanted := ones * uint64(print)
	for w := (before+3)/4 - 1; w >= 0; w-- {
		// A lane that is zero is what we look for; the sum that follows tells of each word whether it has one.
		lanes := p.prints[w] ^ wanted
		if (lanes-ones)&^lanes&highs == 0 {
			continue
		}
		for lane := 3; lane >= 0; lane-- {
			if i := 4*w + lane; i < before && uint16(lanes>>(16*lane)) == 0 {
				return i
			}
		}
	}
	return -1
}

func (p *diskPart) add(print uint16) {
	if p.n%4 == 0 {
		p.prints = append(p.prints, 0)
	}
	p.prints[p.n/4] |= uint64(print) << (16 * (p.n % 4))
	p.n++
}

// diskAt says where a record is in its table.
type diskAt struct {
	part   uint16
	number uint32
}

var errClosedTable = errors.New("the table is closed")

// table makes an empty table, which is given up with the state.
func (s *state) table(name string, key, record int) *diskTable {
	t := newDiskTable(s.path(name+".table"), key, record)
	s.tables = append(s.tables, t)
	return t
}

// newDiskTable makes an empty table, whose file will be at path until it loses its name.
func newDiskTable(path string, key, record int) *diskTable {
	t := &diskTable{path: path, key: key, record: record}
	t.scratch.New = func() any {
		b := make([]byte, t.blockSize())
		return &b
	}
	return t
}

func (t *diskTable) blockSize() int { return diskBlock*t.record + diskSum }

// find looks for the newest record with the key with which record begins, and fills in the rest of it. Keys that are
// equal have equal hashes.
func (t *diskTable) find(hash uint32, record []byte) (diskAt, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.locate(hash, record)
}

// locate is find with mu held.
func (t *diskTable) locate(hash uint32, record []byte) (diskAt, bool) {
	if t.parts == nil {
		return diskAt{}, false
	}
	n, print := split(hash)
	p := &t.parts[n]
	for i := p.find(print, p.n); i >= 0; i = p.find(print, i) {
		if t.read(p, i, record, t.key) {
			return diskAt{part: n, number: uint32(i)}, true
		}
	}
	return diskAt{}, false
}

// split tells to which part a hash belongs, and what of it is kept of each record there.
func split(hash uint32) (part, print uint16) {
	return uint16(hash % diskParts), uint16(hash / diskParts)
}

// at reads the record at a place that put or find returned.
func (t *diskTable) at(where diskAt, record []byte) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.parts != nil && t.read(&t.parts[where.part], int(where.number), record, 0)
}

// read copies record i of a part into record, if its first keyed bytes are the same. It is called with mu held.
func (t *diskTable) read(p *diskPart, i int, record []byte, keyed int) bool {
	if from := i - len(p.full)*diskBlock; from >= 0 {
		return t.take(p.tail[from*t.record:], record, keyed)
	}
	buf := t.scratch.Get().(*[]byte)
	defer t.scratch.Put(buf)
	number := p.full[i/diskBlock]
	if _, err := t.f.ReadAt(*buf, int64(number)*int64(t.blockSize())); err != nil {
		t.damaged.Store(true)
		return false
	}
	end := t.blockSize() - diskSum
	if binary.BigEndian.Uint32((*buf)[end:]) != blockSum(number, (*buf)[:end]) {
		t.damaged.Store(true)
		return false
	}
	return t.take((*buf)[i%diskBlock*t.record:], record, keyed)
}

func (t *diskTable) take(from, record []byte, keyed int) bool {
	if string(from[:keyed]) != string(record[:keyed]) {
		return false
	}
	copy(record, from[:t.record])
	return true
}

// blockSum is the sum of a block: also one that was written to, or read from, another place is noticed.
func blockSum(number uint32, block []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], number)
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, block)
}

// put adds a record, before all others with the same key. It reports false if it could not be kept.
func (t *diskTable) put(hash uint32, record []byte) (diskAt, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.append(hash, record)
}

// putNew adds a record unless there is one with its key, which then replaces what record holds: added is false.
func (t *diskTable) putNew(hash uint32, record []byte) (where diskAt, added, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if where, ok := t.locate(hash, record); ok {
		return where, false, true
	}
	where, ok = t.append(hash, record)
	return where, ok, ok
}

func (t *diskTable) append(hash uint32, record []byte) (diskAt, bool) {
	if t.err != nil {
		return diskAt{}, false
	}
	if t.parts == nil {
		t.parts = make([]diskPart, diskParts)
	}
	n, print := split(hash)
	p := &t.parts[n]
	where := diskAt{part: n, number: uint32(p.n)}
	p.tail = append(p.tail, record[:t.record]...)
	p.add(print)
	if len(p.tail) < diskBlock*t.record {
		return where, true
	}
	t.err = t.spill(p) // after an error the block stays in memory
	return where, true
}

// spill writes the tail of a part to the file.
func (t *diskTable) spill(p *diskPart) error {
	if t.f == nil {
		f, err := nameless(t.path)
		if err != nil {
			return err
		}
		t.f = f
	}
	if t.blocks == 1<<32-1 {
		return fmt.Errorf("write %s: it has %d blocks", t.path, t.blocks)
	}
	p.tail = binary.BigEndian.AppendUint32(slices.Grow(p.tail, diskSum), blockSum(t.blocks, p.tail))
	_, err := t.f.WriteAt(p.tail, int64(t.blocks)*int64(t.blockSize()))
	p.tail = p.tail[:len(p.tail)-diskSum]
	if err != nil {
		return fmt.Errorf("write %s: %w", t.path, err)
	}
	p.full = append(p.full, t.blocks)
	t.blocks++
	p.tail = p.tail[:0]
	return nil
}

// nameless opens a new file and takes its name away.
func nameless(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove what a crash left: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a table: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return nil, errors.Join(fmt.Errorf("take a table's name: %w", err), f.Close())
	}
	return f, nil
}

// usage is how many records there are and how many bytes of memory they take.
func (t *diskTable) usage() (records, memory int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i := range t.parts {
		p := &t.parts[i]
		records += p.n
		memory += diskPartSize + 8*cap(p.prints) + 4*cap(p.full) + cap(p.tail)
	}
	return records, memory
}

// diskPartSize is what a part takes by itself: a number and three slices.
const diskPartSize = 8 + 3*24

// close gives the file up. The table is empty then and stays so.
func (t *diskTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.f != nil {
		_ = t.f.Close() // nothing of it is needed any more
	}
	t.f, t.parts, t.err = nil, nil, errClosedTable
}

package repository

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// mapCache keeps the map chunks of a chain in the state directory, so that content of large files is found again
// without a right to read packs. The file: for each map its id (32), length (u32 BE) and plain bytes. It only grows
// while a chain lives and begins anew with the next. What it gives is checked by the caller against the id.
type mapCache struct {
	mu    sync.Mutex
	f     *os.File
	end   int64
	where *diskTable
	err   error
}

// mapPlace says where the plain bytes of a map are in the file; without length it is not there any more. The records of
// the table: id (32), offset (u64 BE), length (u32 BE).
type mapPlace struct {
	offset int64
	length uint32
}

const mapRecordSize = 32 + 8 + 4

// openMapCache opens the maps of the state directory, or begins anew.
func openMapCache(s *state, anew bool) (*mapCache, error) {
	flags := os.O_CREATE | os.O_RDWR
	if anew {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.path(mapsFile), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	c := &mapCache{f: f, where: s.table("map-places", 32, mapRecordSize)}
	c.scan()
	return c, nil
}

// scan reads the table of contents; a torn end is cut off.
func (c *mapCache) scan() {
	var head [36]byte
	info, err := c.f.Stat()
	if err != nil {
		return
	}
	for {
		if _, err := c.f.ReadAt(head[:], c.end); err != nil {
			break
		}
		n := binary.BigEndian.Uint32(head[32:])
		if c.end+36+int64(n) > info.Size() {
			break
		}
		c.note(snapshot.Hash(head[:32]), mapPlace{offset: c.end + 36, length: n})
		c.end += 36 + int64(n)
	}
}

func (c *mapCache) note(id snapshot.Hash, p mapPlace) {
	var record [mapRecordSize]byte
	copy(record[:], id[:])
	binary.BigEndian.PutUint64(record[32:], uint64(p.offset))
	binary.BigEndian.PutUint32(record[40:], p.length)
	c.where.put(hashOf(id), record[:])
}

func (c *mapCache) place(id snapshot.Hash) (mapPlace, bool) {
	var record [mapRecordSize]byte
	copy(record[:], id[:])
	_, ok := c.where.find(hashOf(id), record[:])
	p := mapPlace{offset: int64(binary.BigEndian.Uint64(record[32:])), length: binary.BigEndian.Uint32(record[40:])}
	return p, ok && p.length > 0
}

// get returns the plain bytes that were put under id, unchecked.
func (c *mapCache) get(id snapshot.Hash) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.place(id)
	if !ok {
		return nil, false
	}
	plain := make([]byte, p.length)
	if _, err := io.ReadFull(io.NewSectionReader(c.f, p.offset, int64(p.length)), plain); err != nil {
		return nil, false
	}
	return plain, true
}

// forget drops a map that turned out to be damaged, so that it can be put again.
func (c *mapCache) forget(id snapshot.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(id, mapPlace{})
}

// put adds a map. A failure to write ends the caching, nothing else.
func (c *mapCache) put(id snapshot.Hash, plain []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.place(id); ok || c.err != nil {
		return
	}
	record := make([]byte, 0, 36+len(plain))
	record = append(record, id[:]...)
	record = binary.BigEndian.AppendUint32(record, uint32(len(plain)))
	record = append(record, plain...)
	if _, c.err = c.f.WriteAt(record, c.end); c.err != nil {
		return
	}
	c.note(id, mapPlace{offset: c.end + 36, length: uint32(len(plain))})
	c.end += int64(len(record))
}

func (c *mapCache) close() error { return c.f.Close() }

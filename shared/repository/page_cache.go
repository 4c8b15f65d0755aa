package repository

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// pageCache keeps, in the state directory, the keyed hashes of the pages of database files, region by region, so that
// the next run stores only the pages that changed (docs/decisions/0001). The file: for each region its place (16: the
// hash of path and number), its state (16: half the chunk id of its extents as a map), length (u32 BE) and hashes. A later
// record of a place replaces an earlier one; when more than half of the file is replaced it is written anew.
//
// Nothing here can do harm: hashes count only for exactly the extents that they were made with, and a hash that was
// spoilt makes a page look changed.
//
// BUG: only the newest state of a region is kept, so a differential finds no hashes of what its full had.
type pageCache struct {
	mu    sync.Mutex
	f     *os.File
	end   int64
	live  int64 // bytes of records that were not replaced
	where map[[16]byte]pagePlace
	err   error
}

type pagePlace struct {
	state  [16]byte
	offset int64
	length uint32
}

const pageHead = 16 + 16 + 4

func openPageCache(s *state, anew bool) (*pageCache, error) {
	flags := os.O_CREATE | os.O_RDWR
	if anew {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.path(pagesFile), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	c := &pageCache{f: f, where: map[[16]byte]pagePlace{}}
	c.scan()
	return c, nil
}

func (c *pageCache) scan() {
	var head [pageHead]byte
	info, err := c.f.Stat()
	if err != nil {
		return
	}
	for {
		if _, err := c.f.ReadAt(head[:], c.end); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head[32:])
		if c.end+pageHead+int64(n) > info.Size() {
			return
		}
		c.note([16]byte(head[:16]), pagePlace{state: [16]byte(head[16:32]), offset: c.end + pageHead, length: n})
		c.end += pageHead + int64(n)
	}
}

func (c *pageCache) note(place [16]byte, p pagePlace) {
	if old, ok := c.where[place]; ok {
		c.live -= pageHead + int64(old.length)
	}
	c.live += pageHead + int64(p.length)
	c.where[place] = p
}

func placeOf(path string, region int) [16]byte {
	sum := sha256.Sum256([]byte(strconv.Itoa(region) + "\x00" + path))
	return [16]byte(sum[:16])
}

// get returns the hashes that were put for the region of a file when it had this state.
func (c *pageCache) get(place, state [16]byte) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.where[place]
	if !ok || p.state != state {
		return nil, false
	}
	hashes := make([]byte, p.length)
	if _, err := c.f.ReadAt(hashes, p.offset); err != nil {
		return nil, false
	}
	return hashes, true
}

// put keeps hashes. A failure to write ends the caching, nothing else.
func (c *pageCache) put(place, state [16]byte, hashes []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.where[place].state == state {
		return
	}
	record := make([]byte, 0, pageHead+len(hashes))
	record = append(append(record, place[:]...), state[:]...)
	record = append(binary.BigEndian.AppendUint32(record, uint32(len(hashes))), hashes...)
	if _, c.err = c.f.WriteAt(record, c.end); c.err != nil {
		return
	}
	c.note(place, pagePlace{state: state, offset: c.end + pageHead, length: uint32(len(hashes))})
	c.end += int64(len(record))
}

// close ends the caching; a file that is mostly replaced records is written anew.
func (c *pageCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && c.end > 2*c.live {
		c.compact()
	}
	return c.f.Close()
}

// compact writes the records that count into a new file. Where that fails the old one stays.
func (c *pageCache) compact() {
	name := c.f.Name()
	fresh, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	n := &pageCache{f: fresh, where: map[[16]byte]pagePlace{}}
	for place, p := range c.where {
		hashes := make([]byte, p.length)
		if _, err := c.f.ReadAt(hashes, p.offset); err != nil {
			continue
		}
		n.put(place, p.state, hashes)
	}
	if err := fresh.Close(); err != nil || n.err != nil {
		_ = os.Remove(name + ".new")
		return
	}
	_ = os.Rename(name+".new", name) // where it fails the old file goes on growing
}

// stateOf names the state of a region: half the id that its extents have as a map.
func (s *Session) stateOf(extents []snapshot.Extent) [16]byte {
	id := s.keys.ChunkID(snapshot.Map, snapshot.EncodeMap(extents))
	return [16]byte(id[:16])
}

// Pages returns the hashes of the pages of a file's region, in order, if they are known for exactly these extents.
// Regions are numbered as the file's maps are.
func (s *Session) Pages(path string, region int, extents []snapshot.Extent) ([]byte, bool) {
	return s.pages.get(placeOf(path, region), s.stateOf(extents))
}

// LearnPages keeps the hashes of the pages of a file's region.
func (s *Session) LearnPages(path string, region int, extents []snapshot.Extent, hashes []byte) {
	s.pages.put(placeOf(path, region), s.stateOf(extents), hashes)
}

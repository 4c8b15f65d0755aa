package repository

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// pageCache keeps, in the state directory, the keyed hashes of the pages of database files, region by region, so that
// the next run stores only the pages that changed (docs/decisions/0001). The file: for each region its place (16: the
// hash of path and number), its state (16: half the chunk id of its extents as a map), length (u32 BE) and hashes. A later
// record of a place replaces an earlier one; when more than half of the file is replaced it is written anew. A region has
// two places: for its newest state, and for that of the chain's full, with which differentials compare.
//
// Nothing here can do harm: hashes count only for exactly the extents that they were made with, and a hash that was
// spoilt makes a page look changed.
type pageCache struct {
	mu    sync.Mutex
	f     *os.File
	end   int64
	live  int64 // bytes of records that were not replaced
	where *diskTable
	err   error
}

// pagePlace says where the hashes of a region are in the file. The records of the table: its place (16), state (16),
// offset (u64 BE), length (u32 BE).
type pagePlace struct {
	state  [16]byte
	offset int64
	length uint32
}

const (
	pageHead       = 16 + 16 + 4
	pageRecordSize = 16 + 16 + 8 + 4
)

func openPageCache(s *state, anew bool) (*pageCache, error) {
	flags := os.O_CREATE | os.O_RDWR
	if anew {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.path(pagesFile), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	c := &pageCache{f: f, where: s.table("page-places", 16, pageRecordSize)}
	c.scan()
	return c, nil
}

// scan reads the table of contents; a torn end is cut off.
func (c *pageCache) scan() {
	info, err := c.f.Stat()
	if err != nil {
		return
	}
	c.end = info.Size()
	end := int64(0)
	_ = c.each(func(place [16]byte, p pagePlace) error { // it never fails
		c.note(place, p)
		end = p.offset + int64(p.length)
		return nil
	})
	c.end = end
}

// each calls fn with all records that are whole, also those that were replaced.
func (c *pageCache) each(fn func(place [16]byte, p pagePlace) error) error {
	var head [pageHead]byte
	for at := int64(0); ; {
		if _, err := c.f.ReadAt(head[:], at); err != nil {
			return nil //nolint:nilerr // the end, or as good as that
		}
		p := pagePlace{state: [16]byte(head[16:32]), offset: at + pageHead, length: binary.BigEndian.Uint32(head[32:])}
		if at = p.offset + int64(p.length); at > c.end {
			return nil
		}
		if err := fn([16]byte(head[:16]), p); err != nil {
			return err
		}
	}
}

func (c *pageCache) note(place [16]byte, p pagePlace) {
	if old, ok := c.find(place); ok {
		c.live -= pageHead + int64(old.length)
	}
	c.live += pageHead + int64(p.length)
	var record [pageRecordSize]byte
	copy(record[:], place[:])
	copy(record[16:], p.state[:])
	binary.BigEndian.PutUint64(record[32:], uint64(p.offset))
	binary.BigEndian.PutUint32(record[40:], p.length)
	c.where.put(hashOf(place), record[:])
}

// find returns what was noted last of a place.
func (c *pageCache) find(place [16]byte) (pagePlace, bool) {
	var record [pageRecordSize]byte
	copy(record[:], place[:])
	_, ok := c.where.find(hashOf(place), record[:])
	return pagePlace{
		state:  [16]byte(record[16:32]),
		offset: int64(binary.BigEndian.Uint64(record[32:])), length: binary.BigEndian.Uint32(record[40:]),
	}, ok
}

// placeOf names the place of a region for its newest state, or for that of the chain's full.
func placeOf(path string, region int, full bool) [16]byte {
	of := ""
	if full {
		of = "full "
	}
	sum := sha256.Sum256([]byte(of + strconv.Itoa(region) + "\x00" + path))
	return [16]byte(sum[:16])
}

// get returns the hashes that were put for the region of a file when it had this state.
func (c *pageCache) get(place, state [16]byte) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.find(place)
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
	if c.err != nil {
		return
	}
	if p, ok := c.find(place); ok && p.state == state {
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
	err = c.copyLive(fresh)
	if err = errors.Join(err, fresh.Close()); err != nil {
		_ = os.Remove(name + ".new")
		return
	}
	_ = os.Rename(name+".new", name) // where it fails the old file goes on growing
}

// copyLive copies the records that were not replaced.
func (c *pageCache) copyLive(to io.Writer) error {
	w := bufio.NewWriterSize(to, 128<<10)
	err := c.each(func(place [16]byte, p pagePlace) error {
		if now, ok := c.find(place); !ok || now != p {
			return nil
		}
		_, err := io.Copy(w, io.NewSectionReader(c.f, p.offset-pageHead, pageHead+int64(p.length)))
		return err
	})
	return errors.Join(err, w.Flush())
}

// stateOf names the state of a region: half the id that its extents have as a map.
func (s *Session) stateOf(extents []snapshot.Extent) [16]byte {
	id := s.keys.ChunkID(snapshot.Map, snapshot.EncodeMap(extents))
	return [16]byte(id[:16])
}

// Pages returns the hashes of the pages of a file's region, in order, if they are known for exactly these extents.
// Regions are numbered as the file's maps are.
func (s *Session) Pages(path string, region int, extents []snapshot.Extent) ([]byte, bool) {
	state := s.stateOf(extents)
	for _, full := range []bool{false, true} {
		if hashes, ok := s.pages.get(placeOf(path, region, full), state); ok {
			return hashes, true
		}
	}
	return nil, false
}

// LearnPages keeps the hashes of the pages of a file's region.
func (s *Session) LearnPages(path string, region int, extents []snapshot.Extent, hashes []byte) {
	s.pages.put(placeOf(path, region, s.plan.kind == snapshot.Full), s.stateOf(extents), hashes)
}

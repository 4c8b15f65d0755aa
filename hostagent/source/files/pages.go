package files

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// pagedMin is the smallest database file that is stored by pages; below, all of it is little.
	pagedMin = 256 << 10
	// pagedChunk is the most that changed pages take in one chunk.
	pagedChunk = 1 << 20
	// pagedParts is how many chunks a region may be made of before it is stored whole again: each is another place to
	// read from in a restore, and keeps what else is in it alive.
	pagedParts = 32

	postgresPage = 8 << 10
)

// pageSize tells the page size of a database file by its first bytes; 0 if it is none, or too small to matter.
// SQLite: https://www.sqlite.org/fileformat2.html. PostgreSQL: src/include/storage/bufpage.h, layout version 4.
func pageSize(head []byte, size uint64) uint64 {
	if size < pagedMin || len(head) < 100 {
		return 0
	}
	if string(head[:len(sqliteHeader)]) == sqliteHeader {
		n := uint64(binary.BigEndian.Uint16(head[16:]))
		if n == 1 {
			n = 64 << 10
		}
		if n >= 512 && n&(n-1) == 0 {
			return n
		}
		return 0
	}
	lower, upper := binary.LittleEndian.Uint16(head[12:]), binary.LittleEndian.Uint16(head[14:])
	special, version := binary.LittleEndian.Uint16(head[16:]), binary.LittleEndian.Uint16(head[18:])
	if version == postgresPage|4 && lower >= 24 && lower <= upper && upper <= special && special <= postgresPage && size%postgresPage == 0 {
		return postgresPage
	}
	return 0
}

// pagedReader stores a database file so that of a region that the parent has only the changed pages are stored: it reads
// a region, compares the keyed hashes of its pages with those that the session knows of the parent's, and lays out old
// and new pages as extents.
type pagedReader struct {
	*reader
	it   *item
	fd   int
	page int
	span uint64
	size uint64

	total   uint64
	first   []snapshot.Extent // of the first region: those of the file if there is no other
	maps    []snapshot.MapRef
	pending []*region
}

// region is a span of the file on its way.
type region struct {
	number int
	length uint64
	hashes []byte
	runs   []pageRun
	chunks []*pageChunk
	old    []snapshot.Extent
	kept   *snapshot.MapRef // nothing changed: the parent's map
}

// pageRun is a run of pages that are all old, or all new.
type pageRun struct {
	changed bool
	offset  uint64 // of old pages in the region, of new ones in the chunks
	length  uint64
}

// pageChunk is a chunk of new pages on its way to the session.
type pageChunk struct {
	length uint64
	ref    snapshot.Ref
	done   chan struct{}
}

// paged reads a database file. Its results are those of large.
func (r *reader) paged(ctx context.Context, it *item, fd int, length, page uint64) (size uint64, readErr, err error) {
	p := &pagedReader{reader: r, it: it, fd: fd, page: int(page), size: length, span: snapshot.SpanFor(length)}
	for number := 0; p.total < p.size; number++ {
		n, readErr, err := p.region(ctx, number)
		if readErr != nil || err != nil {
			return 0, readErr, err
		}
		if n < min(p.span, p.size-p.total) {
			p.size = p.total + n // the file became shorter
		}
		p.total += n
	}
	if err := p.settle(ctx, 0); err != nil {
		return 0, nil, err
	}
	if p.total > snapshot.MapSpan {
		it.entry.Extents, it.entry.Maps = nil, p.maps
	} else {
		it.entry.Extents, it.entry.Maps = p.first, nil
	}
	return p.total, nil, nil
}

// region reads one region and has its new pages stored.
func (p *pagedReader) region(ctx context.Context, number int) (n uint64, readErr, err error) {
	if err := p.settle(ctx, 1); err != nil {
		return 0, nil, err
	}
	buf, err := p.larges.get(ctx)
	if err != nil {
		return 0, nil, err
	}
	buf.uses.Store(1)
	defer p.drop(buf)
	data := buf.data[:min(p.span, p.size-p.total)]
	for at := 0; at < len(data); at += readStep {
		m, err := p.sys.readFull(p.fd, data[at:min(len(data), at+readStep)], int64(p.total)+int64(at))
		if err != nil {
			return 0, err, nil
		}
		n += uint64(m)
		p.told(uint64(m))
		if m < min(len(data)-at, readStep) {
			break
		}
	}
	if n == 0 {
		return 0, nil, nil
	}
	g := &region{number: number, length: n}
	known := p.parent(ctx, g)
	changed := p.compare(g, data[:n], known)
	p.pending = append(p.pending, g)
	if changed == 0 && g.kept != nil {
		return n, nil, nil
	}
	g.kept = nil
	return n, nil, p.store(ctx, g, buf, changed)
}

func (p *pagedReader) told(n uint64) {
	p.it.readSize += n
	told := min(n, p.size-min(p.size, p.it.sent)) // a second reading is no more of the file
	p.it.sent += told
	p.it.readSent += n
	p.progress.Add(0, told, n)
}

// parent finds the extents of the region in the parent and the hashes of its pages, if they are of use.
func (p *pagedReader) parent(ctx context.Context, g *region) []byte {
	before := p.it.before
	if before == nil || before.Type != snapshot.File || before.Size > snapshot.MapSpan && snapshot.SpanFor(before.Size) != p.span {
		return nil
	}
	switch {
	case len(before.Maps) > g.number:
		m := before.Maps[g.number]
		old, err := p.session.ParentMap(ctx, m)
		if err != nil {
			return nil // what can't be read is stored again
		}
		g.old = old
		if m.Length == g.length && p.size > snapshot.MapSpan {
			g.kept = &m
		}
	case g.number == 0 && len(before.Maps) == 0:
		g.old = before.Extents
	}
	if len(g.old) == 0 || parts(g.old) > pagedParts {
		g.old, g.kept = nil, nil
		return nil
	}
	known, ok := p.session.Pages(p.it.entry.Path, g.number, g.old)
	if !ok || len(known) < pageSizeHead || binary.BigEndian.Uint32(known) != uint32(p.page) {
		g.old, g.kept = nil, nil // pages of another size are others, even if one has the same hash and number
		return nil
	}
	return known[pageSizeHead:]
}

// pageSizeHead is the length of the page size, u32 BE, that stands before the hashes which the session keeps.
const pageSizeHead = 4

// parts counts the chunks that extents lead to.
func parts(extents []snapshot.Extent) int {
	seen := map[snapshot.Hash]struct{}{}
	for i := range extents {
		if !extents[i].Hole {
			seen[extents[i].Ref.ID] = struct{}{}
		}
	}
	return len(seen)
}

// compare hashes the pages and moves the changed ones together at the beginning of data; it returns their length.
func (p *pagedReader) compare(g *region, data []byte, known []byte) (changed int) {
	const width = len(snapshot.FileID{})
	oldLength := uint64(0)
	for i := range g.old {
		oldLength += g.old[i].Length
	}
	g.hashes = make([]byte, 0, (len(data)/p.page+1)*width)
	for at := 0; at < len(data); at += p.page {
		content := data[at:min(len(data), at+p.page)]
		id := p.session.FileID(content)
		k := len(g.hashes)
		g.hashes = append(g.hashes, id[:]...)
		// The last page of the parent's file may have been shorter: then its hash is another.
		same := k+width <= len(known) && string(known[k:k+width]) == string(id[:]) && uint64(at+len(content)) <= oldLength
		if !same {
			copy(data[changed:], content)
			changed += len(content)
		}
		g.run(!same, uint64(at), uint64(len(content)))
	}
	return changed
}

// run appends a page to the runs.
func (g *region) run(changed bool, at, length uint64) {
	if n := len(g.runs); n > 0 && g.runs[n-1].changed == changed {
		g.runs[n-1].length += length
		return
	}
	r := pageRun{changed: changed, offset: at, length: length}
	if changed {
		r.offset = 0
		for _, before := range g.runs {
			if before.changed {
				r.offset += before.length
			}
		}
	}
	g.runs = append(g.runs, r)
}

// store sends the changed pages off.
func (p *pagedReader) store(ctx context.Context, g *region, buf *largeBuf, changed int) error {
	for from := 0; from < changed; from += pagedChunk {
		content := buf.data[from:min(changed, from+pagedChunk)]
		c := &pageChunk{length: uint64(len(content)), done: make(chan struct{})}
		g.chunks = append(g.chunks, c)
		buf.uses.Add(1)
		err := p.later(ctx, func() error {
			defer p.drop(buf)
			var err error
			if c.ref, err = p.session.Chunk(ctx, snapshot.Content, content); err != nil {
				return fmt.Errorf("store pages: %w", err)
			}
			close(c.done)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settle lays out regions until at most the given number is pending.
func (p *pagedReader) settle(ctx context.Context, most int) error {
	for len(p.pending) > most {
		g := p.pending[0]
		p.pending = p.pending[1:]
		if g.kept != nil {
			if g.number == 0 {
				p.first = g.old // should the file end here, as it became shorter
			}
			p.maps = append(p.maps, *g.kept)
			continue
		}
		for _, c := range g.chunks {
			select {
			case <-c.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := p.lay(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// lay makes the extents of a region, and its map.
func (p *pagedReader) lay(ctx context.Context, g *region) error {
	var stored, extents []snapshot.Extent
	for _, c := range g.chunks {
		stored = append(stored, snapshot.Extent{Ref: c.ref, Length: c.length})
	}
	for _, r := range g.runs {
		from := g.old
		if r.changed {
			from = stored
		}
		extents = appendPart(extents, from, r.offset, r.length)
	}
	hashes := binary.BigEndian.AppendUint32(make([]byte, 0, pageSizeHead+len(g.hashes)), uint32(p.page))
	p.session.LearnPages(p.it.entry.Path, g.number, extents, append(hashes, g.hashes...))
	if g.number == 0 {
		p.first = extents
	}
	if p.size <= snapshot.MapSpan {
		return nil
	}
	ref, err := p.session.Chunk(ctx, snapshot.Map, snapshot.EncodeMap(extents))
	if err != nil {
		return fmt.Errorf("store a map: %w", err)
	}
	p.maps = append(p.maps, snapshot.MapRef{Ref: ref, Length: g.length, Packs: packRanges(extents)})
	return nil
}

// appendPart appends length bytes of what from stands for, beginning at offset, and joins what is joined.
func appendPart(to, from []snapshot.Extent, offset, length uint64) []snapshot.Extent {
	for i := range from {
		x := from[i]
		if offset >= x.Length {
			offset -= x.Length
			continue
		}
		x.Length = min(x.Length-offset, length)
		if !x.Hole {
			x.Offset += uint32(offset)
		}
		offset = 0
		length -= x.Length
		if n := len(to); n > 0 && adjoins(&to[n-1], &x) {
			to[n-1].Length += x.Length
		} else {
			to = append(to, x)
		}
		if length == 0 {
			break
		}
	}
	return to
}

// adjoins reports whether b goes on where a ends.
func adjoins(a, b *snapshot.Extent) bool {
	if a.Hole || b.Hole {
		return a.Hole && b.Hole
	}
	return a.Ref == b.Ref && uint64(a.Offset)+a.Length == uint64(b.Offset)
}

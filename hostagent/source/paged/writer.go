package paged

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Options says what a writer stores, and for whom.
type Options struct {
	Session Session
	Path    string          // of the file's entry: under it the session keeps the hashes
	Page    uint32          // size of a page in bytes, a power of two
	Size    uint64          // bytes that the file has, as far as is known: how long its regions are
	Before  *snapshot.Entry // the parent's entry for the path; nil: none

	// Later has a job done by another goroutine when one is free. An error of a job ends the context of all.
	Later func(ctx context.Context, job func() error) error
	// Unknown is told of each page that [Writer.Patch] fills with zeros, by the numbers of the region and of the page in it,
	// from 0. Nil: nobody is told.
	Unknown func(region, page int)
}

// Writer stores one file. Its methods are called by one goroutine, except [Writer.Changed].
type Writer struct {
	Options
	span    uint64
	pending []*region
	laid    []laid // by number; what was not given has no length
}

// laid is a region that is stored.
type laid struct {
	length  uint64
	mapped  bool
	m       snapshot.MapRef
	extents []snapshot.Extent // of region 0, and of what has no map
}

// region is a span of the file on its way.
type region struct {
	number int
	length uint64
	hashes []byte // of its pages; nil: not all are known
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

// ErrSpan says that a file has grown so much since [New] that its regions would have to be longer ones.
var ErrSpan = errors.New("the file has grown beyond what its regions cover")

// New returns a writer for a file.
func New(o Options) *Writer {
	return &Writer{Options: o, span: snapshot.SpanFor(o.Size)}
}

// Span is the length of a region in bytes; the last of a file may be shorter.
func (w *Writer) Span() uint64 { return w.span }

// Ready waits until there is room for another region.
func (w *Writer) Ready(ctx context.Context) error { return w.settle(ctx, 1) }

// Region stores what is new in a region, whose whole content data is. Data is changed, and lent by content, if that is
// not nil, until what was new is stored.
func (w *Writer) Region(ctx context.Context, number int, data []byte, content Content) error {
	return w.give(ctx, number, data, nil, content)
}

// Patch gives some pages of a region again, and its length: data has the length, and has is true for the numbers of the
// pages in it, from 0, that are to be taken. The others stay as they are; those that were never given are zeros, of which
// [Options].Unknown is told.
func (w *Writer) Patch(ctx context.Context, number int, data []byte, has func(page int) bool, content Content) error {
	return w.give(ctx, number, data, has, content)
}

func (w *Writer) give(ctx context.Context, number int, data []byte, has func(page int) bool, content Content) error {
	most := 1
	for _, p := range w.pending {
		if p.number == number {
			most = 0
		}
	}
	if err := w.settle(ctx, most); err != nil {
		return err
	}
	g := &region{number: number, length: uint64(len(data))}
	known, err := w.known(ctx, g, has != nil)
	if err != nil {
		return err
	}
	changed := w.compare(g, data, known, has)
	w.pending = append(w.pending, g)
	if changed == 0 && g.kept != nil {
		return nil
	}
	g.kept = nil
	return w.store(ctx, g, data[:changed], content)
}

// known finds the extents that the region had and the hashes of its pages, if they are of use. What is patched goes on
// with what this writer has laid out, hashes or not.
func (w *Writer) known(ctx context.Context, g *region, patch bool) ([]byte, error) {
	if err := w.own(ctx, g); err != nil && patch {
		return nil, fmt.Errorf("read again where region %d of %s is stored: %w", g.number, w.Path, err)
	}
	own := len(g.old) > 0
	if !own && !patch {
		w.parents(ctx, g)
	}
	if len(g.old) == 0 || !own && Parts(g.old) > MaxParts {
		g.old, g.kept = nil, nil
		return nil, nil
	}
	known, ok := w.Session.Pages(w.Path, g.number, g.old)
	if !ok || len(known) < pageSizeHead || binary.BigEndian.Uint32(known) != w.Page {
		if !patch {
			g.old, g.kept = nil, nil // pages of another size are others, even if one has the same hash and number
		}
		return nil, nil
	}
	return known[pageSizeHead:], nil
}

// own finds the region as this writer has laid it out before.
func (w *Writer) own(ctx context.Context, g *region) (err error) {
	if g.number >= len(w.laid) || w.laid[g.number].length == 0 {
		return nil
	}
	l := &w.laid[g.number]
	if g.old = l.extents; g.old == nil {
		if g.old, err = w.Session.ParentMap(ctx, l.m); err != nil {
			return err
		}
	}
	if l.mapped && l.length == g.length {
		g.kept = &l.m
	}
	return nil
}

// parents finds the region in the parent.
func (w *Writer) parents(ctx context.Context, g *region) {
	before := w.Before
	if before == nil || before.Type != snapshot.File || before.Size > snapshot.MapSpan && snapshot.SpanFor(before.Size) != w.span {
		return
	}
	switch {
	case len(before.Maps) > g.number:
		m := before.Maps[g.number]
		old, err := w.Session.ParentMap(ctx, m)
		if err != nil {
			return // what can't be read is stored again
		}
		g.old = old
		if m.Length == g.length && w.maps(g.number) {
			g.kept = &m
		}
	case g.number == 0 && len(before.Maps) == 0:
		g.old = before.Extents
	}
}

// maps reports whether a region has a map, as far as is known yet.
func (w *Writer) maps(number int) bool { return number > 0 || w.Size > snapshot.MapSpan }

// pageSizeHead is the length of the page size, u32 BE, that stands before the hashes which the session keeps.
const pageSizeHead = 4

const width = len(snapshot.FileID{})

// compare hashes the pages that there are and moves the changed ones together at the beginning of data; it returns their
// length.
func (w *Writer) compare(g *region, data, known []byte, has func(page int) bool) (changed int) {
	page, oldLength := int(w.Page), lengthOf(g.old)
	g.hashes = make([]byte, 0, (len(data)/page+1)*width)
	all := true
	for at, i := 0, 0; at < len(data); at, i = at+page, i+1 {
		content := data[at:min(len(data), at+page)]
		there := uint64(at+len(content)) <= oldLength
		k := i * width
		if has != nil && !has(i) && there {
			if k+width > len(known) {
				all = false
			} else if all {
				g.hashes = append(g.hashes, known[k:k+width]...)
			}
			g.run(false, uint64(at), uint64(len(content)))
			continue
		}
		if has != nil && !has(i) {
			clear(content)
			if w.Unknown != nil {
				w.Unknown(g.number, i)
			}
		}
		id := w.Session.PageID(content)
		if all {
			g.hashes = append(g.hashes, id[:]...)
		}
		// The last page of the parent's file may have been shorter: then its hash is another.
		same := k+width <= len(known) && string(known[k:k+width]) == string(id[:]) && there
		if !same {
			if changed != at {
				copy(data[changed:], content)
			}
			changed += len(content)
		}
		g.run(!same, uint64(at), uint64(len(content)))
	}
	if !all {
		g.hashes = nil
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
func (w *Writer) store(ctx context.Context, g *region, data []byte, content Content) error {
	for from := 0; from < len(data); from += chunkSize {
		part := data[from:min(len(data), from+chunkSize)]
		c := &pageChunk{length: uint64(len(part)), done: make(chan struct{})}
		g.chunks = append(g.chunks, c)
		if content != nil {
			content.Hold()
		}
		err := w.Later(ctx, func() error {
			if content != nil {
				defer content.Release()
			}
			var err error
			if c.ref, err = w.Session.Chunk(ctx, snapshot.Content, part); err != nil {
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

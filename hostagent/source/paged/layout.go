package paged

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Settle waits until all that was given is stored and laid out.
func (w *Writer) Settle(ctx context.Context) error { return w.settle(ctx, 0) }

// settle lays out regions until at most the given number is pending.
func (w *Writer) settle(ctx context.Context, most int) error {
	for len(w.pending) > most {
		g := w.pending[0]
		w.pending[0] = nil
		w.pending = w.pending[1:]
		if g.kept != nil {
			w.lay(g, laid{length: g.length, mapped: true, m: *g.kept}, g.old)
			continue
		}
		for _, c := range g.chunks {
			select {
			case <-c.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := w.extents(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// lay notes how a region is stored. The extents of the first are kept: they are those of the file, should it be that
// short in the end.
func (w *Writer) lay(g *region, l laid, extents []snapshot.Extent) {
	if g.number == 0 || !l.mapped {
		l.extents = extents
	}
	for len(w.laid) <= g.number {
		w.laid = append(w.laid, laid{})
	}
	w.laid[g.number] = l
}

// extents makes the extents of a region, and its map.
func (w *Writer) extents(ctx context.Context, g *region) error {
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
	if g.hashes != nil {
		hashes := binary.BigEndian.AppendUint32(make([]byte, 0, pageSizeHead+len(g.hashes)), w.Page)
		w.Session.LearnPages(w.Path, g.number, extents, append(hashes, g.hashes...))
	}
	l := laid{length: g.length}
	if w.maps(g.number) {
		m, err := w.mapOf(ctx, extents, g.length)
		if err != nil {
			return err
		}
		l.mapped, l.m = true, m
	}
	w.lay(g, l, extents)
	return nil
}

func (w *Writer) mapOf(ctx context.Context, extents []snapshot.Extent, length uint64) (snapshot.MapRef, error) {
	ref, err := w.Session.Chunk(ctx, snapshot.Map, snapshot.EncodeMap(extents))
	if err != nil {
		return snapshot.MapRef{}, fmt.Errorf("store a map: %w", err)
	}
	return snapshot.MapRef{Ref: ref, Length: length, Packs: PackRanges(extents)}, nil
}

// Changed calls fn for each page of data that differs from what the region holds, or of which that is not known. It may
// be called by several goroutines at once, after [Writer.Settle].
func (w *Writer) Changed(ctx context.Context, number int, data []byte, fn func(page int, content []byte) error) error {
	g := &region{number: number, length: uint64(len(data))}
	var known []byte
	if err := w.own(ctx, g); err == nil && len(g.old) > 0 {
		if hashes, ok := w.Session.Pages(w.Path, number, g.old); ok && len(hashes) >= pageSizeHead && binary.BigEndian.Uint32(hashes) == w.Page {
			known = hashes[pageSizeHead:]
		}
	}
	page, oldLength := int(w.Page), lengthOf(g.old)
	for at, i := 0, 0; at < len(data); at, i = at+page, i+1 {
		content, k := data[at:min(len(data), at+page)], i*width
		if k+width <= len(known) && uint64(at+len(content)) <= oldLength {
			if id := w.Session.PageID(content); string(known[k:k+width]) == string(id[:]) {
				continue
			}
		}
		if err := fn(i, content); err != nil {
			return err
		}
	}
	return nil
}

// Length is how many bytes of a region were given last; 0: none. Regions that are on their way count.
func (w *Writer) Length(number int) uint64 {
	for i := len(w.pending) - 1; i >= 0; i-- {
		if w.pending[i].number == number {
			return w.pending[i].length
		}
	}
	if number < len(w.laid) {
		return w.laid[number].length
	}
	return 0
}

// Forget takes back that a region was given.
func (w *Writer) Forget(ctx context.Context, number int) error {
	if err := w.settle(ctx, 0); err != nil {
		return err
	}
	if number < len(w.laid) {
		w.laid[number] = laid{}
	}
	return nil
}

// Finish returns how a file of size bytes is stored: by extents, or by maps. Its regions must have been given with the
// lengths that follow from the size; what was given beyond is left out. Errors: ErrSpan, those of the session.
func (w *Writer) Finish(ctx context.Context, size uint64) (extents []snapshot.Extent, maps []snapshot.MapRef, err error) {
	if err := w.settle(ctx, 0); err != nil {
		return nil, nil, err
	}
	if size == 0 {
		return nil, nil, nil
	}
	if size > snapshot.MapSpan && snapshot.SpanFor(size) != w.span {
		return nil, nil, fmt.Errorf("%s: %w", w.Path, ErrSpan)
	}
	for number, at := 0, uint64(0); at < size; number, at = number+1, at+w.span {
		if want := min(w.span, size-at); number >= len(w.laid) || w.laid[number].length != want {
			return nil, nil, fmt.Errorf("region %d of %s was not given in a length of %d bytes", number, w.Path, want)
		}
		l := &w.laid[number]
		if size <= snapshot.MapSpan {
			return l.extents, nil, nil
		}
		if !l.mapped {
			if l.m, err = w.mapOf(ctx, l.extents, l.length); err != nil {
				return nil, nil, err
			}
			l.mapped = true
		}
		maps = append(maps, l.m)
	}
	return nil, maps, nil
}

package files

import (
	"context"
	"fmt"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// layout makes a file's extents out of its chunks, and of those of a file over snapshot.MapSpan maps.
type layout struct {
	session Chunks
	span    uint64 // bytes of the file that a map covers

	total   uint64 // bytes of the file laid out
	covered uint64 // bytes that extents cover: of the file, or of it after the last map
	extents []snapshot.Extent
	maps    []snapshot.MapRef
}

// add appends a chunk that is stored, with its holes.
func (l *layout) add(ctx context.Context, job *chunkJob) error {
	offset := uint32(0)
	for _, r := range job.runs {
		x := snapshot.Extent{Hole: r.hole, Length: r.length}
		if !r.hole {
			x.Ref, x.Offset = job.ref, offset
			offset += uint32(r.length)
		}
		if err := l.append(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

// append splits an extent where a map ends.
func (l *layout) append(ctx context.Context, x snapshot.Extent) error {
	for x.Length > 0 {
		if l.covered == l.span {
			if err := l.flush(ctx); err != nil {
				return err
			}
		}
		part := x
		part.Length = min(x.Length, l.span-l.covered)
		if n := len(l.extents); n > 0 && part.Hole && l.extents[n-1].Hole {
			l.extents[n-1].Length += part.Length
		} else {
			l.extents = append(l.extents, part)
		}
		l.covered += part.Length
		l.total += part.Length
		x.Length -= part.Length
		if !x.Hole {
			x.Offset += uint32(part.Length)
		}
	}
	return nil
}

// flush makes a map of the extents.
func (l *layout) flush(ctx context.Context) error {
	ref, err := l.session.Chunk(ctx, snapshot.Map, snapshot.EncodeMap(l.extents))
	if err != nil {
		return fmt.Errorf("store a map: %w", err)
	}
	l.maps = append(l.maps, snapshot.MapRef{Ref: ref, Length: l.covered, Packs: paged.PackRanges(l.extents)})
	l.extents, l.covered = l.extents[:0], 0
	return nil
}

// finish makes the last map, if the file is so long that it has maps.
func (l *layout) finish(ctx context.Context) error {
	if l.total <= snapshot.MapSpan {
		return nil
	}
	err := l.flush(ctx)
	l.extents = nil
	return err
}

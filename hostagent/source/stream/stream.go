// Package stream stores content that comes as a stream of unknown length, such as the output of a program: it is cut by
// content, so that what repeats from snapshot to snapshot is not stored again. Use [Store].
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/shared/chunker"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Session stores chunks; repository.Session is one. Its methods are called from several goroutines.
type Session interface {
	// Chunk stores a chunk unless it is there. It blocks while the store lags, and keeps nothing of plain.
	Chunk(ctx context.Context, kind snapshot.Kind, plain []byte) (snapshot.Ref, error)
	// Gear is the keyed table for the chunker.
	Gear() *[256]uint64
}

// Stored is how a stream is stored: by extents, or by maps, as an entry has it.
type Stored struct {
	Size    uint64
	Extents []snapshot.Extent
	Maps    []snapshot.MapRef
}

// Rows are sizes of chunks for content of many small records that change one by one, such as rows of a dump: a change then
// costs an eighth of what it does with the sizes for files, for eight times as many entries in indexes and maps.
func Rows() chunker.Sizes { return chunker.Sizes{Min: 32 << 10, Avg: 128 << 10, Max: 1 << 20} }

// bufferSize is how much is read before it is cut, in bytes: at least twice the longest chunk.
const bufferSize = 8 << 20

// Store reads r to its end and stores it in chunks of these sizes. expected is about how many bytes will come; it only matters for streams of more
// than 512 GiB. told is called with the number of bytes after each read; it may be nil. Memory: a buffer of 8 MiB and two
// chunks for each processor.
//
// Errors: those of r, of the session and of the context. Nothing that was stored is lost after one: a later run shares it.
func Store(ctx context.Context, session Session, r io.Reader, sizes chunker.Sizes, expected uint64, told func(n int)) (*Stored, error) {
	group, gctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	group.SetLimit(workers)
	s := &store{
		session: session, group: group, cutter: chunker.New(session.Gear(), sizes), sizes: sizes,
		span: snapshot.SpanFor(expected), free: make(chan []byte, workers+1),
	}
	err := s.read(gctx, r, told)
	if err == nil {
		err = s.settle(gctx, 0)
	}
	// What the workers met is the cause of what the reader met after it.
	if werr := group.Wait(); werr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = werr
	}
	if err == nil {
		err = s.finish(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &Stored{Size: s.size, Extents: s.extents, Maps: s.maps}, nil
}

// pending is a chunk on its way.
type pending struct {
	ref    snapshot.Ref
	length uint64
	done   chan struct{} // closed when ref is valid
}

// store is one run. Its fields belong to the goroutine of Store, but for free.
type store struct {
	session Session
	group   *errgroup.Group
	cutter  *chunker.Chunker
	sizes   chunker.Sizes
	span    uint64 // bytes of the file that a map covers
	free    chan []byte

	waiting []*pending
	size    uint64 // bytes laid out
	covered uint64 // bytes that extents cover: of the file, or of it after the last map
	extents []snapshot.Extent
	maps    []snapshot.MapRef
}

// read cuts the whole stream into chunks and sends them off.
func (s *store) read(ctx context.Context, r io.Reader, told func(int)) error {
	buf := make([]byte, bufferSize)
	for filled, ended := 0, false; !ended; {
		for filled < len(buf) && !ended {
			n, err := r.Read(buf[filled:])
			filled += n
			if told != nil && n > 0 {
				told(n)
			}
			switch {
			case err == io.EOF: //nolint:errorlint // the contract of io.Reader
				ended = true
			case err != nil:
				return err
			case ctx.Err() != nil:
				return ctx.Err()
			}
		}
		at := 0
		for filled-at >= s.sizes.Max || ended && at < filled {
			n := s.cutter.Cut(buf[at:filled])
			if err := s.send(ctx, buf[at:at+n]); err != nil {
				return err
			}
			at += n
		}
		filled = copy(buf, buf[at:filled])
	}
	return nil
}

// send has a copy of the chunk stored.
func (s *store) send(ctx context.Context, chunk []byte) error {
	var held []byte
	select {
	case held = <-s.free:
	default:
	}
	held = append(held[:0], chunk...)
	p := &pending{length: uint64(len(chunk)), done: make(chan struct{})}
	s.waiting = append(s.waiting, p)
	s.group.Go(func() error {
		ref, err := s.session.Chunk(ctx, snapshot.Content, held)
		select {
		case s.free <- held:
		default:
		}
		if err != nil {
			return fmt.Errorf("store a chunk: %w", err)
		}
		p.ref = ref
		close(p.done)
		return nil
	})
	return s.settle(ctx, 2*bufferSize/s.sizes.Min)
}

// settle lays out chunks until at most the given number is on its way.
func (s *store) settle(ctx context.Context, most int) error {
	for len(s.waiting) > most {
		p := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.lay(ctx, snapshot.Extent{Ref: p.ref, Length: p.length}); err != nil {
			return err
		}
	}
	return nil
}

// lay appends an extent, split where a map ends.
func (s *store) lay(ctx context.Context, x snapshot.Extent) error {
	for x.Length > 0 {
		if s.covered == s.span {
			if err := s.flush(ctx); err != nil {
				return err
			}
		}
		part := x
		part.Length = min(x.Length, s.span-s.covered)
		s.extents = append(s.extents, part)
		s.covered += part.Length
		s.size += part.Length
		x.Length -= part.Length
		x.Offset += uint32(part.Length)
	}
	return nil
}

// flush makes a map of the extents.
func (s *store) flush(ctx context.Context) error {
	ref, err := s.session.Chunk(ctx, snapshot.Map, snapshot.EncodeMap(s.extents))
	if err != nil {
		return fmt.Errorf("store a map: %w", err)
	}
	s.maps = append(s.maps, snapshot.MapRef{Ref: ref, Length: s.covered, Packs: paged.PackRanges(s.extents)})
	s.extents, s.covered = s.extents[:0], 0
	return nil
}

// finish makes the last map, if the stream was so long that it has maps.
func (s *store) finish(ctx context.Context) error {
	if s.size <= snapshot.MapSpan {
		return nil
	}
	err := s.flush(ctx)
	s.extents = nil
	return err
}

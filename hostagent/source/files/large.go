package files

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/shared/chunker"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// largeBuf is a buffer from which chunks are cut; it is given back when the last of them is stored.
type largeBuf struct {
	data []byte
	uses atomic.Int32
}

func (c *capture) drop(b *largeBuf) {
	if b.uses.Add(-1) == 0 {
		c.larges.put(b)
	}
}

// readStep is how much is read in one call, so that a long file is seen to make progress.
const readStep = 1 << 20

// chunkJob is a chunk of a file on its way to the session.
type chunkJob struct {
	runs []run // what of the file it stands for, holes included
	ref  snapshot.Ref
	done chan struct{} // closed when ref is valid; nil if there is no data
}

// largeReader reads one file that does not go into a bundle: its data, without the holes, is one stream that is cut into
// chunks. One goroutine reads and cuts, others compress and store.
type largeReader struct {
	*reader
	it      *item
	source  source
	cutter  *chunker.Chunker
	sizes   chunker.Sizes
	layout  layout
	pending []*chunkJob // in the order of the file
}

// large reads a file of any size, and files with holes.
func (r *reader) large(ctx context.Context, it *item, fd int, length uint64, holes bool) (size uint64, readErr, err error) {
	if err := r.slots.Acquire(ctx, 1); err != nil {
		return 0, nil, err
	}
	defer r.slots.Release(1)
	r.progress.Current(it.entry.Path)
	it.entry.HasFileID, it.entry.FileID = false, snapshot.FileID{}
	if !holes && length >= paged.MinSize && snapshot.SpanFor(length) <= largeBuffer {
		head := make([]byte, 100)
		if n, err := r.sys.readFull(fd, head, 0); err == nil && n == len(head) {
			if page := paged.PageSize(head, length); page > 0 {
				return r.paged(ctx, it, fd, length, page)
			}
		}
	}
	l := &largeReader{
		reader: r, it: it,
		source: source{sys: r.sys, fd: fd, size: length, sparse: holes},
		sizes:  chunker.Default(),
		cutter: chunker.New(r.gear, chunker.Default()),
		layout: layout{session: r.session, span: snapshot.SpanFor(length)},
	}
	if !l.source.sparse {
		_ = unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL) // only a hint
	}
	if readErr, err = l.chunks(ctx); readErr != nil || err != nil {
		return 0, readErr, err
	}
	if err := l.settle(ctx, 0); err != nil {
		return 0, nil, err
	}
	if err := l.layout.finish(ctx); err != nil {
		return 0, nil, err
	}
	it.entry.Extents, it.entry.Maps = l.layout.extents, l.layout.maps
	return l.layout.total, nil, nil
}

// chunks reads the whole file and sends its chunks off.
func (l *largeReader) chunks(ctx context.Context) (readErr, err error) {
	buf, err := l.lend(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { l.drop(buf) }()
	filled := 0
	for {
		n, readErr := l.fill(buf.data[filled:])
		if readErr != nil {
			return readErr, nil
		}
		filled += n
		at := 0
		for filled-at >= l.sizes.Max || l.source.ended && at < filled {
			length := l.cutter.Cut(buf.data[at:filled])
			if err := l.send(ctx, buf, at, at+length); err != nil {
				return nil, err
			}
			at += length
		}
		if l.source.ended {
			// What is left is a hole at the end, if anything.
			l.pending = append(l.pending, &chunkJob{runs: l.source.take(0)})
			return nil, nil
		}
		next, err := l.lend(ctx)
		if err != nil {
			return nil, err
		}
		filled = copy(next.data, buf.data[at:filled])
		l.drop(buf)
		buf = next
	}
}

func (l *largeReader) lend(ctx context.Context) (*largeBuf, error) {
	buf, err := l.larges.get(ctx)
	if err == nil {
		buf.uses.Store(1)
	}
	return buf, err
}

// fill reads until p is full or the file has ended.
func (l *largeReader) fill(p []byte) (int, error) {
	n := 0
	for n < len(p) && !l.source.ended {
		m, err := l.source.read(p[n:min(len(p), n+readStep)])
		if err != nil {
			return n, err
		}
		n += m
		l.told(l.it, uint64(m), l.source.size)
	}
	return n, nil
}

// send has data[from:to] of the buffer stored.
func (l *largeReader) send(ctx context.Context, buf *largeBuf, from, to int) error {
	job := &chunkJob{runs: l.source.take(uint64(to - from)), done: make(chan struct{})}
	l.pending = append(l.pending, job)
	buf.uses.Add(1)
	err := l.later(ctx, func() error {
		defer l.drop(buf)
		var err error
		if job.ref, err = l.session.Chunk(ctx, snapshot.Content, buf.data[from:to]); err != nil {
			return fmt.Errorf("store a chunk: %w", err)
		}
		close(job.done)
		return nil
	})
	if err != nil {
		return err
	}
	return l.settle(ctx, 2*largeBuffer/l.sizes.Min)
}

// settle lays out finished chunks until at most the given number is pending.
func (l *largeReader) settle(ctx context.Context, most int) error {
	for len(l.pending) > most {
		job := l.pending[0]
		l.pending[0] = nil
		l.pending = l.pending[1:]
		if job.done != nil {
			select {
			case <-job.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := l.layout.add(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

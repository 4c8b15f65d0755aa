package postgres

import (
	"context"
	"sync/atomic"
)

// Sizes in bytes. Together they bound the content that a capture holds: 4 buffers for files from paged.MinSize on, of which
// each holds one region, or several whole files that are shorter; 4 bundles of small files; and lists of what is on its way.
const (
	largeBuffer  = 8 << 20
	largeBuffers = 4

	bundleSize = 1 << 20 // a bundle is cut before it would become longer
	bundles    = 4

	readStep = 256 << 10 // what is read, summed and checked at a time, so that it is still in the processor's cache
)

// buffer is memory that is lent to jobs; it is given back when nobody holds it any more.
type buffer struct {
	data []byte
	used int // by what was read into it; of the goroutine that reads
	uses atomic.Int32
	home chan *buffer
}

// Hold is called for each job.
func (b *buffer) Hold() { b.uses.Add(1) }

// Release is called when a job is done.
func (b *buffer) Release() {
	if b.uses.Add(-1) == 0 {
		b.home <- b
	}
}

// pool lends buffers, which are made when they are first needed. The reading goroutine fills one at a time.
type pool struct {
	home    chan *buffer
	size    int
	current *buffer
}

func newPool(count, size int) *pool {
	p := &pool{home: make(chan *buffer, count), size: size}
	for range count {
		p.home <- &buffer{home: p.home}
	}
	return p
}

// take returns n bytes of a buffer in which as much is free: of the one at hand, or of the next.
func (p *pool) take(ctx context.Context, n int) (*buffer, []byte, error) {
	if b := p.current; b != nil && len(b.data)-b.used >= n {
		return b, p.part(n), nil
	}
	p.end()
	select {
	case b := <-p.home:
		if len(b.data) < max(n, p.size) {
			b.data = make([]byte, max(n, p.size))
		}
		b.used = 0
		b.uses.Store(1) // ours, until the next is needed
		p.current = b
		return b, p.part(n), nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

func (p *pool) part(n int) []byte {
	b := p.current
	part := b.data[b.used : b.used+n : b.used+n]
	b.used += n
	return part
}

// end gives the buffer at hand away.
func (p *pool) end() {
	if p.current != nil {
		p.current.Release()
		p.current = nil
	}
}

package restorer

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Limits of a batch. They bound memory and open files: a file that takes more than one write stays open meanwhile.
const (
	batchBytes  = 96 << 20 // content
	batchParts  = 4096     // files
	batchPieces = 16384    // extents
	batchOpen   = 96       // files of more than one extent
	batchesBusy = 2        // at the same time: while one ends, and its last reads are waited for, the other is well under way

	// batchFirst is by how much smaller the first batch is, so that work begins at once; each one after it is twice as large.
	// More and smaller ones would open chunks of which files all over the tree have a part, those of many incrementals, more often.
	batchFirst = 8
)

// part is a file, or a window of a large one, in a batch.
type part struct {
	job     *job
	extents []snapshot.Extent
	offset  uint64 // in the file, of the first extent
	whole   bool   // all of the file
}

// piece is one write: part of a chunk to part of a file.
type piece struct {
	job    *job
	extent snapshot.Extent
	offset uint64 // in the file
}

// batch is a set of parts whose chunks are fetched together.
type batch struct {
	parts  []part
	bytes  uint64
	pieces int
	open   int
	part   uint64 // it is full with this part of the limits of bytes and files
}

// enqueue adds a part to the batch that is being filled; a full one goes to the workers.
func (r *run) enqueue(p part) error {
	b := r.batch
	b.parts = append(b.parts, p)
	data := 0
	for i := range p.extents {
		if !p.extents[i].Hole {
			data++
			b.bytes += p.extents[i].Length
		}
	}
	b.pieces += data
	if data > 1 {
		b.open++
	}
	if b.bytes*b.part >= batchBytes || uint64(len(b.parts))*b.part >= batchParts || b.pieces >= batchPieces || b.open >= batchOpen {
		r.flush()
	}
	return r.ended()
}

// flush hands the batch to the workers.
func (r *run) flush() {
	b := r.batch
	r.batch = &batch{part: max(b.part/2, 1)}
	if len(b.parts) > 0 {
		r.batches <- b // its workers go on taking batches, and drop them, after the end of ctx
	}
}

// startBatches starts the workers; idle is closed when batches was closed and all is done.
func (r *run) startBatches() {
	r.batch, r.batches, r.idle = &batch{part: batchFirst}, make(chan *batch), make(chan struct{})
	var workers sync.WaitGroup
	for range batchesBusy {
		workers.Go(func() {
			for b := range r.batches {
				r.work(b)
			}
		})
	}
	go func() {
		workers.Wait()
		close(r.idle)
	}()
}

// work restores a batch: it looks at what is there, fetches the chunks that are needed, each once, and scatters them.
func (r *run) work(b *batch) {
	defer func() {
		if r.ctx.Err() != nil {
			for i := range b.parts {
				r.abandon(b.parts[i].job)
			}
		}
	}()
	needs := make([][]piece, len(b.parts))
	r.each(len(b.parts), func(i int) { needs[i] = r.prepare(&b.parts[i]) })
	if r.ctx.Err() != nil {
		return
	}
	f := newFetch(needs)
	if len(f.refs) == 0 {
		return
	}
	err := r.snap.Chunks(r.ctx, f.refs, func(i int, plain []byte, err error) error {
		for at := f.first[i]; at >= 0; at = f.next[at] {
			r.deliver(&f.pieces[at], plain, err)
		}
		return r.ended()
	})
	if err != nil {
		r.stop(fmt.Errorf("read content: %w", err))
	}
}

// each calls fn for 0 to n-1 from several goroutines.
func (r *run) each(n int, fn func(i int)) {
	const stride = 16
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(r.options.Workers, n/stride+1) {
		workers.Go(func() {
			for r.ctx.Err() == nil {
				from := int(next.Add(stride)) - stride
				if from >= n {
					return
				}
				for i := from; i < min(from+stride, n); i++ {
					fn(i)
				}
			}
		})
	}
	workers.Wait()
}

// prepare looks at what is in the place of a part and returns what must be fetched for it; its job then waits for that.
func (r *run) prepare(p *part) []piece {
	j := p.job
	if p.whole && r.settle(j, p.extents) {
		return nil
	}
	var pieces []piece
	offset, end := p.offset, j.entry.Size
	for _, x := range p.extents {
		if x.Length > end-min(offset, end) {
			j.fail("restore", errSize)
			break
		}
		if !x.Hole {
			pieces = append(pieces, piece{j, x, offset})
		}
		offset += x.Length
	}
	if p.whole && offset != end {
		j.fail("restore", errSize)
	}
	if j.failed() {
		pieces = nil
	} else if j.reuse {
		pieces = r.fromExisting(j, pieces)
	}
	j.pending.Add(int64(len(pieces)))
	r.release(j)
	return pieces
}

// deliver writes one piece, or notes why it can't be.
func (r *run) deliver(p *piece, plain []byte, err error) {
	from, to := uint64(p.extent.Offset), uint64(p.extent.Offset)+p.extent.Length
	switch {
	case err != nil:
		p.job.fail("read content", err)
	case to > uint64(len(plain)):
		p.job.fail("read content", errExtent)
	case !r.rightFile(p, plain[from:to]):
		p.job.fail("read content", errFileID)
	default:
		if err := r.write(p.job, plain[from:to], p.offset); err != nil {
			if hopeless(err) {
				r.failed(p.job.entry.Path, "write", err)
			}
			p.job.fail("write", err)
		}
	}
	r.release(p.job)
}

// whole reports whether the piece is all of a file that has a file id.
func (p *piece) whole() bool { return p.job.entry.HasFileID && p.extent.Length == p.job.entry.Size }

// rightFile checks the content of a small file against its file id: that the chunk is what its ref says does not prove
// that it is this file's. Where that proves all that is used of a chunk, the chunk's own id is not computed; see newFetch.
func (r *run) rightFile(p *piece, content []byte) bool {
	return !p.whole() || r.snap.Keys().FileID(content) == p.job.entry.FileID
}

// fetch is a set of chunks and the pieces that each serves, as linked lists.
type fetch struct {
	refs   []repository.KindRef
	first  []int32 // for each ref, index of its first piece
	pieces []piece
	next   []int32 // for each piece, the next of the same ref; -1: none
}

func newFetch(needs [][]piece) *fetch {
	f := &fetch{}
	index := map[snapshot.Ref]int32{}
	for _, pieces := range needs {
		for _, p := range pieces {
			at := int32(len(f.pieces)) //nolint:gosec // a batch is bounded
			f.pieces = append(f.pieces, p)
			i, ok := index[p.extent.Ref]
			if !ok {
				i = int32(len(f.refs)) //nolint:gosec // as above
				index[p.extent.Ref] = i
				f.refs = append(f.refs, repository.KindRef{Kind: snapshot.Content, Ref: p.extent.Ref, Proven: true})
				f.first = append(f.first, -1)
			}
			f.refs[i].Proven = f.refs[i].Proven && p.whole()
			f.next = append(f.next, f.first[i])
			f.first[i] = at
		}
	}
	return f
}

// large restores a file of many extents: it goes to the workers in windows, so that its size does not matter.
func (r *run) large(j *job) error {
	r.progress.Current(j.entry.Path)
	if r.settle(j, nil) {
		return r.ended()
	}
	window := part{job: j}
	var offset, size uint64
	hand := func() error {
		if len(window.extents) == 0 {
			return nil
		}
		j.pending.Add(1)
		p := window
		window, size = part{job: j, offset: offset}, 0
		return r.enqueue(p)
	}
	err := r.snap.Extents(r.ctx, j.entry, func(x snapshot.Extent) error {
		if x.Length > j.entry.Size-offset {
			return errSize
		}
		window.extents = append(window.extents, x)
		offset += x.Length
		if !x.Hole {
			size += x.Length
		}
		if size >= batchBytes/2 || len(window.extents) >= batchPieces/2 {
			return hand()
		}
		return nil
	})
	if err == nil && offset != j.entry.Size {
		err = errSize
	}
	switch {
	case err == nil:
		err = hand()
	case r.ctx.Err() == nil && damaged(err):
		j.fail("read content", err)
		err = nil
	}
	r.release(j)
	if err != nil {
		r.abandon(j)
	}
	return err
}

package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Limits of what is fetched together.
const (
	batchBytes   = 24 << 20 // content
	batchExtents = 8192
	batchesBusy  = 2 // at the same time: while the last reads of one are waited for, the other is well under way
)

// syncEvery is how many bytes are written before the disk is told to begin with them: the sync at the end then has little
// left to do.
const syncEvery = 32 << 20

// built is what build made.
type built struct {
	pageSize uint32
	written  uint64
	records  int
	reached  time.Time
}

// logError is a failure of the log and not of the base or the target.
type logError struct{ err error }

func (e *logError) Error() string { return e.err.Error() }
func (e *logError) Unwrap() error { return e.err }

// builder writes one database file.
type builder struct {
	file     *os.File
	src      *Source
	room     func(need uint64) error // tells whether so many bytes more will fit
	progress Progress

	built
	size  int64        // of the file
	sure  int64        // up to which size of the file there was room
	dirty atomic.Int64 // bytes since the disk was told to begin
}

// wrote counts bytes and lets the disk begin where it is time. It waits for nothing: the sync at the end counts.
func (b *builder) wrote(n int) {
	if b.dirty.Add(int64(n)) >= syncEvery {
		b.dirty.Store(0)
		_ = unix.SyncFileRange(int(b.file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE) //nolint:gosec // a descriptor
	}
}

// build writes the base and the log into file, which is empty. What of the log is part of a state is applied; when the log
// fails midway, reached says up to where it went, and the file is of no use.
func (b *builder) build(ctx context.Context) error {
	if err := b.base(ctx); err != nil {
		return err
	}
	b.reached, b.sure = b.src.Time, b.size
	if b.src.Records == nil {
		return nil
	}
	return b.log(ctx)
}

var (
	errSize   = fmt.Errorf("%w: its extents do not add up to its size", snapshot.ErrFormat)
	errExtent = fmt.Errorf("%w: an extent leads past the end of its chunk", snapshot.ErrFormat)
)

// base writes the content of the snapshot's file. Holes stay holes.
func (b *builder) base(ctx context.Context) error {
	e := b.src.Entry
	if e.Size > math.MaxInt64 {
		return unix.EFBIG
	}
	b.size = int64(e.Size)
	if err := b.file.Truncate(b.size); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(batchesBusy)
	batch, offset := &fetch{}, uint64(0)
	hand := func() {
		full := batch
		batch = &fetch{}
		if len(full.pieces) > 0 {
			g.Go(func() error { return b.fetch(gctx, full) })
		}
	}
	err := b.src.Base.Extents(ctx, e, func(x snapshot.Extent) error {
		if x.Length > e.Size-min(offset, e.Size) {
			return errSize
		}
		if !x.Hole {
			batch.add(x, int64(offset)) //nolint:gosec // at most the file's size
			b.written += x.Length
		}
		offset += x.Length
		if batch.bytes >= batchBytes || len(batch.pieces) >= batchExtents {
			hand()
		}
		return gctx.Err()
	})
	if err == nil && offset != e.Size {
		err = errSize
	}
	if err == nil {
		hand()
	}
	if werr := g.Wait(); werr != nil {
		err = werr // the cause, where the walk ended with gctx
	}
	return err
}

// piece is one write: a part of a chunk to its place in the file.
type piece struct {
	extent snapshot.Extent
	offset int64
	next   int32 // the next piece of the same chunk; -1: none
}

// fetch is a set of chunks that are read together, and the pieces that each serves.
type fetch struct {
	refs   []repository.KindRef
	first  []int32
	pieces []piece
	index  map[snapshot.Ref]int32
	bytes  uint64
}

func (f *fetch) add(x snapshot.Extent, offset int64) {
	if f.index == nil {
		f.index = map[snapshot.Ref]int32{}
	}
	at := int32(len(f.pieces)) //nolint:gosec // a batch is bounded
	i, known := f.index[x.Ref]
	if !known {
		i = int32(len(f.refs)) //nolint:gosec // as above
		f.index[x.Ref] = i
		f.refs = append(f.refs, repository.KindRef{Kind: snapshot.Content, Ref: x.Ref})
		f.first = append(f.first, -1)
	}
	f.pieces = append(f.pieces, piece{extent: x, offset: offset, next: f.first[i]})
	f.first[i] = at
	f.bytes += x.Length
}

func (b *builder) fetch(ctx context.Context, f *fetch) error {
	return b.src.Base.Chunks(ctx, f.refs, func(i int, plain []byte, err error) error {
		if err != nil {
			return err
		}
		for at := f.first[i]; at >= 0; at = f.pieces[at].next {
			p := &f.pieces[at]
			from, to := uint64(p.extent.Offset), uint64(p.extent.Offset)+p.extent.Length
			if to > uint64(len(plain)) {
				return errExtent
			}
			if _, err := b.file.WriteAt(plain[from:to], p.offset); err != nil {
				return err
			}
			b.wrote(int(p.extent.Length)) //nolint:gosec // within a chunk
			b.progress.Add(0, p.extent.Length, p.extent.Length)
		}
		return nil
	})
}

// log applies records one after the other. The new file is of use to nobody before it is whole: what fails midway needs no
// way back.
func (b *builder) log(ctx context.Context) error {
	amid := false // a transaction
	for r, err := range b.src.Records {
		if err != nil {
			return &logError{err}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if b.pageSize == 0 {
			if b.pageSize, err = b.firstPageSize(r.PageSize); err != nil {
				return err
			}
		}
		if r.PageSize != b.pageSize {
			return &logError{fmt.Errorf("%w: pages of %d bytes for a database with pages of %d", ErrLog, r.PageSize, b.pageSize)}
		}
		if err := b.grown(&r); err != nil {
			return err
		}
		if err := b.apply(&r); err != nil {
			return err
		}
		b.records++
		if amid = r.More; amid {
			continue
		}
		if err := b.resize(r.Pages); err != nil {
			return err
		}
		b.reached = r.Time
	}
	if amid {
		return &logError{fmt.Errorf("%w: it ends amid a transaction", ErrLog)}
	}
	return nil
}

// growth is by how much a record lets the database grow before it is asked whether that fits, in bytes.
const growth = 1 << 20

// grown looks whether a database fits that becomes longer by a record: it fails before others on the file system have
// nothing left.
func (b *builder) grown(r *Record) error {
	size := int64(r.Pages) * int64(b.pageSize)
	if size <= b.sure {
		return nil
	}
	b.sure = max(size, b.size) + growth
	return b.room(uint64(b.sure - b.size)) //nolint:gosec // positive
}

// apply writes the pages of a record.
func (b *builder) apply(r *Record) error {
	var fault error
	err := r.Each(func(number uint32, data []byte) error {
		if number == 0 || len(data) != int(b.pageSize) {
			fault = &logError{fmt.Errorf("%w: page %d has %d bytes", ErrLog, number, len(data))}
		} else {
			fault = b.page(number, data)
		}
		return fault
	})
	if fault != nil {
		return fault
	}
	if err != nil {
		return &logError{err}
	}
	return nil
}

// page writes one page.
func (b *builder) page(number uint32, data []byte) error {
	offset := int64(number-1) * int64(b.pageSize)
	if _, err := b.file.WriteAt(data, offset); err != nil {
		return err
	}
	n := int64(len(data))
	b.size = max(b.size, offset+n)
	b.written += uint64(n) //nolint:gosec // a page
	b.wrote(len(data))
	return nil
}

// resize makes the file as long as the database is after a commit. What shrinks loses its tail at once, so that what grows
// later over it finds zeros there, as in the application's file.
func (b *builder) resize(pages uint32) error {
	size := int64(pages) * int64(b.pageSize)
	if pages == 0 {
		return &logError{fmt.Errorf("%w: a database of no pages", ErrLog)}
	}
	if size == b.size {
		return nil
	}
	b.size = size
	return b.file.Truncate(size)
}

// firstPageSize is the page size of the base, or that of the log where the base is an empty file.
func (b *builder) firstPageSize(ofLog uint32) (uint32, error) {
	if b.size > 0 {
		return readPageSize(b.file)
	}
	if ofLog < 512 || ofLog > 65536 || ofLog&(ofLog-1) != 0 {
		return 0, &logError{fmt.Errorf("%w: pages of %d bytes", ErrLog, ofLog)}
	}
	return ofLog, nil
}

// readPageSize reads the page size from a database's header: https://sqlite.org/fileformat2.html#the_database_header
func readPageSize(r io.ReaderAt) (uint32, error) {
	var header [100]byte
	if _, err := r.ReadAt(header[:], 0); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("%w: the base is no SQLite database", ErrLog)
		}
		return 0, err
	}
	size := uint32(binary.BigEndian.Uint16(header[16:]))
	if size == 1 {
		size = 65536
	}
	if string(header[:16]) != "SQLite format 3\x00" || size < 512 || size&(size-1) != 0 {
		return 0, fmt.Errorf("%w: the base is no SQLite database", ErrLog)
	}
	return size, nil
}

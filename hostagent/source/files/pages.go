package files

import (
	"context"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
)

// lentBuf is a buffer that jobs hold.
type lentBuf struct {
	*capture
	*largeBuf
}

func (l lentBuf) Hold()    { l.uses.Add(1) }
func (l lentBuf) Release() { l.drop(l.largeBuf) }

// paged reads a database file, so that of what the parent has only the changed pages are stored. Its results are those
// of large.
func (r *reader) paged(ctx context.Context, it *item, fd int, length, page uint64) (size uint64, readErr, err error) {
	w := paged.New(paged.Options{
		Session: r.session, Path: it.entry.Path, Page: uint32(page), Size: length, Before: it.before, Later: r.later,
	})
	total := uint64(0)
	for number := 0; total < length; number++ {
		want := min(w.Span(), length-total)
		n, readErr, err := r.region(ctx, it, fd, w, number, total, want, length)
		if readErr != nil || err != nil {
			return 0, readErr, err
		}
		total += n
		if n < want {
			break // the file became shorter
		}
	}
	it.entry.Extents, it.entry.Maps, err = w.Finish(ctx, total)
	return total, nil, err
}

// region reads want bytes, at most, from an offset of a file of length bytes, and has its new pages stored.
func (r *reader) region(
	ctx context.Context, it *item, fd int, w *paged.Writer, number int, from, want, length uint64,
) (n uint64, readErr, err error) {
	if err := w.Ready(ctx); err != nil {
		return 0, nil, err
	}
	buf, err := r.larges.get(ctx)
	if err != nil {
		return 0, nil, err
	}
	buf.uses.Store(1)
	defer r.drop(buf)
	data := buf.data[:want]
	for at := 0; at < len(data); at += readStep {
		m, err := r.sys.readFull(fd, data[at:min(len(data), at+readStep)], int64(from)+int64(at))
		if err != nil {
			return 0, err, nil
		}
		n += uint64(m)
		r.told(it, uint64(m), length)
		if m < min(len(data)-at, readStep) {
			break
		}
	}
	if n == 0 {
		return 0, nil, nil
	}
	return n, nil, w.Region(ctx, number, data[:n], lentBuf{r.capture, buf})
}

// told tells of n bytes that were read of a file of length bytes.
func (r *reader) told(it *item, n, length uint64) {
	it.readSize += n
	told := min(n, length-min(length, it.sent)) // a second reading is no more of the file
	it.sent += told
	it.readSent += n
	r.progress.Add(0, told, n)
}

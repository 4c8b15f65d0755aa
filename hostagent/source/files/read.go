package files

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// reader reads files. Each goroutine has its own.
type reader struct {
	*capture
}

// file completes the item of a file. Its error ends the capture.
func (r *reader) file(ctx context.Context, it *item) error {
	defer close(it.ready)
	dirFD, err := r.walker.dirs.acquire(it.dir)
	if err != nil {
		it.unreadable("open", err)
		return nil
	}
	if it.entry.Size == 0 {
		r.readAttributes(it, inode.At(dirFD, it.name))
		r.walker.dirs.release(it.dir)
		return nil
	}
	fd, err := r.sys.openQuietly(dirFD, it.name, 0)
	if err != nil && !gone(err) && !replaced(err) {
		r.readAttributes(it, inode.At(dirFD, it.name))
	}
	r.walker.dirs.release(it.dir)
	if err != nil {
		it.unreadable("open", err)
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	return r.opened(ctx, it, fd)
}

// unreadable notes that there is no content. What is there no more leaves no entry.
func (it *item) unreadable(operation string, err error) {
	it.fail(it.entry.Path, operation, err)
	if gone(err) || replaced(err) {
		it.entry = nil
		return
	}
	e := it.entry
	e.Unreadable, e.Changed = true, false
	e.Size, e.Extents, e.Maps = 0, nil, nil
	e.HasFileID, e.FileID = false, snapshot.FileID{}
	it.data = nil
}

// opened reads an open file, twice if it changes meanwhile. The entry gets the state before the last reading, so that the
// next capture sees that the file changed since.
func (r *reader) opened(ctx context.Context, it *item, fd int) error {
	e := it.entry
	for attempt := 1; ; attempt++ {
		before, err := fstat(fd)
		if err == nil && before.fileType() != snapshot.File {
			err = errNoFile
		}
		if err != nil {
			it.unreadable("open", err)
			return nil
		}
		before.apply(e, r.owners)
		size, readErr, err := r.content(ctx, it, fd, &before)
		switch {
		case err != nil:
			return err
		case readErr != nil:
			it.unreadable("read", readErr)
			r.readAttributes(it, inode.Of(fd))
			return nil
		}
		e.Size = size
		r.readAttributes(it, inode.Of(fd))
		after, err := fstat(fd)
		if err == nil && size == before.size && after.sameContent(&before) {
			return nil
		}
		if attempt == 2 {
			e.Changed = true
			it.problems = append(it.problems, problem(e.Path, "read", "changed while it was read, twice"))
			return nil
		}
	}
}

// content reads the file as it was at the stat and returns how much that was. readErr concerns the file, err the session.
func (r *reader) content(ctx context.Context, it *item, fd int, m *meta) (size uint64, readErr, err error) {
	it.data = nil
	// The number of blocks does not tell whether there is a hole: it counts those of attributes and those after the end.
	holes := hasHole(fd, m.size)
	if holes || m.size > uint64(it.reserved) {
		return r.large(ctx, it, fd, m.size, holes)
	}
	e := it.entry
	e.Extents, e.Maps = nil, nil
	if cap(it.buf) < int(m.size) {
		it.buf = r.smalls.get(m.size)
	}
	n, readErr := r.sys.readFull(fd, it.buf[:m.size], 0)
	it.readSize += uint64(n)
	if readErr != nil {
		return 0, readErr, nil
	}
	it.data = it.buf[:n]
	e.HasFileID, e.FileID = false, snapshot.FileID{}
	if n > 0 {
		e.HasFileID, e.FileID = true, r.session.FileID(it.data)
	}
	return uint64(n), nil, nil
}

// hasHole reports whether the file system tells of a hole before size.
func hasHole(fd int, size uint64) bool {
	at, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	return err == nil && uint64(at) < size
}

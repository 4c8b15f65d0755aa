package restorer

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/filetype"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// settle does all for a job that needs no content from the repository and returns true; or false: content is needed.
// extents are those of the whole file, nil if it is a large one.
func (r *run) settle(j *job, extents []snapshot.Extent) bool {
	e := j.entry
	var err error
	if j.existing, err = r.existing(j.dir, j.name); err != nil {
		r.finished(j, inode{}, "look at", err)
		return true
	}
	if j.group != nil && !j.leads {
		r.follow(j)
		return true
	}
	if e.Unreadable && e.Type == snapshot.File {
		r.finished(j, inode{}, "restore", errUnreadable)
		return true
	}
	same, err := r.same(j, extents)
	if err == nil && same {
		var done bool
		if done, err = r.adjust(j); done {
			return true
		}
	}
	switch {
	case err != nil:
		r.finished(j, inode{}, "compare", err)
		return true
	case r.options.DryRun:
		r.pretend(j)
		return true
	case e.Type != snapshot.File:
		r.special(j)
		return true
	}
	j.reuse = j.existing != nil && typeOf(j.existing) == unix.S_IFREG && j.existing.Size > 0
	return false
}

// pretend counts what would be made.
func (r *run) pretend(j *job) {
	if err := r.pretendWay(j); err != nil {
		r.finished(j, inode{}, "replace", err)
		return
	}
	r.measured(j)
	r.replaced(j)
	r.finished(j, inode{}, "", nil)
}

// pretendWay tells in a dry run whether a directory that is in the way could be removed.
func (r *run) pretendWay(j *job) error {
	if j.existing == nil || typeOf(j.existing) != unix.S_IFDIR {
		return nil
	}
	at, err := r.dirs.pin(j.dir)
	if err != nil {
		return err
	}
	defer r.dirs.unpin(j.dir)
	return r.clearWay(at, j)
}

// same reports whether what is there has the type and content of the entry.
func (r *run) same(j *job, extents []snapshot.Extent) (bool, error) {
	e, st := j.entry, j.existing
	if st == nil || typeOf(st) != filetype.Bits(e.Type) {
		return false, nil
	}
	// Another name of this file may lie anywhere, and only an entry with several names may be one of several.
	if st.Nlink > 1 && (!e.Linked || !r.groups.claim(inodeOf(st), j.group)) {
		return false, nil
	}
	switch e.Type {
	case snapshot.File:
		if st.Size < 0 || uint64(st.Size) != e.Size {
			return false, nil
		}
		if e.Size == 0 || !r.compare && sameTime(st, e.MTime) {
			return true, nil
		}
		if r.measure {
			return false, nil
		}
		return r.equal(j, extents)
	case snapshot.Symlink:
		target, err := r.readlink(j)
		return target == e.Target, err
	case snapshot.CharDevice, snapshot.Device:
		dev := uint64(st.Rdev) //nolint:unconvert // differs by architecture
		return unix.Major(dev) == e.Major && unix.Minor(dev) == e.Minor, nil
	}
	return true, nil
}

func (r *run) readlink(j *job) (string, error) {
	at, err := r.dirs.pin(j.dir)
	if err != nil {
		return "", err
	}
	defer r.dirs.unpin(j.dir)
	buf := make([]byte, len(j.entry.Target)+1)
	n, err := unix.Readlinkat(at, j.name, buf)
	if err != nil {
		return "", nil //nolint:nilerr // it is another one by now; it will be replaced
	}
	return string(buf[:n]), nil
}

// adjust gives what is there, whose content is right, the metadata of the entry. It returns false if that may not be:
// a file with other names is made anew, as these names may belong to somebody else.
func (r *run) adjust(j *job) (done bool, err error) {
	at, err := r.dirs.pin(j.dir)
	if err != nil {
		return false, err
	}
	defer r.dirs.unpin(j.dir)
	fd, err := openAt(at, j.name, unix.O_PATH, 0)
	if err != nil {
		return false, nil //nolint:nilerr // it is gone; it will be made anew
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written through it
	st, err := fstat(fd)
	if err != nil || inodeOf(&st) != inodeOf(j.existing) || typeOf(&st) != typeOf(j.existing) {
		return false, err
	}
	changed := false
	if st.Nlink > 1 {
		if changed, err = r.setMetadata(target{fd: fd, opath: true, check: true}, j.entry); err != nil || changed {
			return false, err
		}
	} else if changed, err = r.setMetadata(target{fd: fd, opath: true}, j.entry); err != nil {
		return false, err
	}
	if changed {
		r.act("metadata", j.entry.Path, 0)
	}
	r.add(func(x *Result) {
		if changed {
			x.Metadata++
		} else {
			x.Unchanged++
		}
	})
	r.finished(j, inodeOf(&st), "", nil)
	return true, nil
}

// openContent opens the file that is there for reading.
func (r *run) openContent(j *job) (*os.File, error) {
	at, err := r.dirs.pin(j.dir)
	if err != nil {
		return nil, err
	}
	defer r.dirs.unpin(j.dir)
	fd, err := openAt(at, j.name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // not the owner
		fd, err = openAt(at, j.name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, err
	}
	st, err := fstat(fd)
	if err == nil && inodeOf(&st) != inodeOf(j.existing) {
		err = errSwapped
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), j.name), nil
}

// equal compares the content of the file that is there, which has the right size, with the entry's: by the file id
// or the ids of its chunks, so that nothing is fetched. Doubt counts as a difference.
func (r *run) equal(j *job, extents []snapshot.Extent) (bool, error) {
	f, err := r.openContent(j)
	if err != nil {
		return false, nil //nolint:nilerr // what can't be read is written anew
	}
	defer f.Close() //nolint:errcheck // only read
	if r.doubted {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // what memory has and the disk does not is no content
	}
	if e := j.entry; e.HasFileID && e.Size <= snapshot.MapSpan {
		content := make([]byte, e.Size)
		return readAt(int(f.Fd()), content, 0) && r.snap.Keys().FileID(content) == e.FileID, nil
	}
	var offset int64
	m := matcher{file: f, keys: r.snap.Keys()}
	check := func(x snapshot.Extent) error {
		if x.Hole && !zero(f, offset, x.Length) || !x.Hole && !m.data(x, offset) {
			return io.EOF
		}
		offset += int64(x.Length) //nolint:gosec // the sizes are equal
		return r.ended()
	}
	if extents != nil {
		for _, x := range extents {
			if err = check(x); err != nil {
				break
			}
		}
	} else {
		err = r.snap.Extents(r.ctx, j.entry, check)
	}
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil && uint64(offset) == j.entry.Size && len(m.buf) == 0, err //nolint:gosec // not negative
}

// matcher compares a file with its extents by the ids of chunks. A chunk may be spread over extents with holes between.
type matcher struct {
	file *os.File
	keys *seal.Keys
	ref  snapshot.Ref
	buf  []byte // what the file has of the chunk ref so far
}

// data takes the next extent, at offset of the file; false: it differs, or ids can't tell.
func (m *matcher) data(x snapshot.Extent, offset int64) bool {
	n := len(m.buf)
	if n == 0 {
		m.ref = x.Ref
	}
	if x.Ref != m.ref || uint64(x.Offset) != uint64(n) || x.Ref.Plain > snapshot.MaxChunk || x.Length > snapshot.MaxChunk || uint64(n)+x.Length > uint64(x.Ref.Plain) {
		return false
	}
	m.buf = slices.Grow(m.buf, int(x.Length))[:n+int(x.Length)] //nolint:gosec // at most MaxChunk
	if !readAt(int(m.file.Fd()), m.buf[n:], offset) {
		return false
	}
	if len(m.buf) < int(x.Ref.Plain) {
		return true
	}
	same := m.keys.ChunkID(snapshot.Content, m.buf) == x.Ref.ID
	m.buf = m.buf[:0]
	return same
}

// holds reports whether the file has at offset what the extent says, as far as the chunk's id tells. buf, which is
// returned, then begins with it.
func (r *run) holds(f *os.File, buf []byte, x snapshot.Extent, offset int64) ([]byte, bool) {
	if x.Offset != 0 || x.Length != uint64(x.Ref.Plain) || x.Length > snapshot.MaxChunk {
		return buf, false
	}
	if uint64(cap(buf)) < x.Length {
		buf = make([]byte, x.Length)
	}
	buf = buf[:x.Length]
	return buf, readAt(int(f.Fd()), buf, offset) && r.snap.Keys().ChunkID(snapshot.Content, buf) == x.Ref.ID
}

// zero reports whether a range of the file, which is a hole in the snapshot, reads as zeros. Holes of the file are passed over.
func zero(f *os.File, offset int64, length uint64) bool {
	end := offset + int64(length) //nolint:gosec // within the file
	buf := make([]byte, 64<<10)
	zeros := make([]byte, len(buf))
	for offset < end {
		data, err := unix.Seek(int(f.Fd()), offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= end {
			return true
		}
		if err == nil {
			offset = data
		}
		n := min(end-offset, int64(len(buf)))
		if !readAt(int(f.Fd()), buf[:n], offset) || !bytes.Equal(buf[:n], zeros[:n]) {
			return false
		}
		offset += n
	}
	return true
}

// fromExisting writes the pieces that the old file has, so that they are not fetched, and returns the others. What is
// written is what was hashed: the old file may change meanwhile.
func (r *run) fromExisting(j *job, pieces []piece) []piece {
	f, err := r.openContent(j)
	if err != nil {
		return pieces
	}
	defer f.Close() //nolint:errcheck // only read
	rest := pieces[:0]
	var buf []byte
	var reused uint64
	for _, p := range pieces {
		var ok bool
		offset := int64(p.offset) //nolint:gosec // within the file
		if p.offset+p.extent.Length <= uint64(j.existing.Size) {
			buf, ok = r.holds(f, buf, p.extent, offset)
		}
		if !ok {
			rest = append(rest, p)
			continue
		}
		if err := r.write(j, buf, p.offset); err != nil {
			if hopeless(err) {
				r.failed(j.entry.Path, "write", err)
			}
			j.fail("write", err)
			return nil
		}
		reused += uint64(len(buf))
	}
	r.add(func(x *Result) { x.Reused += reused })
	return rest
}

package files

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func problem(path, operation, text string) snapshot.Problem {
	return snapshot.Problem{Path: []byte(path), Operation: operation, Error: text}
}

// fail adds an error to the item.
func (it *item) fail(path, operation string, err error) {
	it.problems = append(it.problems, problem(path, operation, describe(err)))
}

// describe tells what an error means for a file.
func describe(err error) string {
	switch {
	case gone(err):
		return "vanished while the tree was captured"
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOTDIR):
		return "was replaced by something else while the tree was captured"
	}
	return err.Error()
}

// gone reports whether an error says that there is nothing any more.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) }

// replaced reports whether an error says that there is something else now.
func replaced(err error) bool {
	return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, errMoved) || errors.Is(err, errNoFile)
}

var (
	errNoFile = errors.New("is no regular file any more")
	errLong   = fmt.Errorf("the path is longer than %d bytes: it and what lies below are left out", snapshot.MaxPath)
)

// visit turns what the walk met into an item and sends it on.
func (c *capture) visit(ctx context.Context, f *found) error {
	it := &item{dir: f.dir, name: f.name, weight: 1}
	c.examine(f, it)
	if it.entry == nil && len(it.problems) == 0 {
		return nil
	}
	if err := c.window.Acquire(ctx, it.weight); err != nil {
		return err
	}
	if it.ready != nil {
		if it.reserved > 0 {
			if err := c.waiting.Acquire(ctx, it.reserved); err != nil {
				return err
			}
		}
		select {
		case c.jobs <- it:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case c.read <- it:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// examine decides what becomes of the thing found.
func (c *capture) examine(f *found, it *item) {
	size := f.meta.size
	kind := f.meta.fileType()
	switch {
	case f.err != nil:
		it.fail(f.path, "lstat", f.err)
		return
	case len(f.path) > snapshot.MaxPath:
		it.fail(f.path[:snapshot.MaxPath], "lstat", errLong)
		return
	case kind == 0:
		it.fail(f.path, "lstat", fmt.Errorf("unknown type of file, mode %o", f.meta.mode))
		return
	case kind == snapshot.File && c.options.MaxFileSize > 0 && size > c.options.MaxFileSize:
		it.problems = append(it.problems, problem(f.path, OperationSkip,
			fmt.Sprintf("%d bytes are more than the limit of %d bytes", size, c.options.MaxFileSize)))
		return
	case f.listed && gone(f.also):
		it.fail(f.path, "list", f.also)
		return
	}
	if f.database != "" {
		it.problems = append(it.problems, problem(f.path, OperationNotConsistent, "a "+f.database+
			" that may be in use was captured as files, which may not fit together; make it a source of its own kind"))
	}
	e := &snapshot.Entry{Path: f.path}
	it.entry = e
	f.meta.apply(e, c.owners)
	e.NotConsistent = f.live && kind == snapshot.File
	if f.also != nil {
		operation := "lstat"
		if f.listed {
			operation, e.Unreadable = "list", true
		}
		it.fail(f.path, operation, f.also)
	}
	it.before = c.parent.find(f.path)
	if err := c.parent.fault(); err != nil {
		it.problems = append(it.problems, problem(f.path, OperationParent, "everything from here on is read again: "+err.Error()))
	}
	if it.before != nil && unchanged(it.before, e, c.captured) {
		c.takeOver(it)
		return
	}
	if kind == snapshot.File {
		c.needsReading(it, &f.meta)
		return
	}
	c.readOther(it)
}

// takeOver makes an entry of what the parent knew: nothing of the file is opened.
func (c *capture) takeOver(it *item) {
	e, before := it.entry, it.before
	it.same = true
	e.Target, e.Xattrs = before.Target, before.Xattrs
	e.HasFileID, e.FileID = before.HasFileID, before.FileID
	e.Extents, e.Maps = before.Extents, before.Maps
	it.weight = weigh(len(e.Path), len(e.Extents), len(e.Maps))
	if before.LacksXattrs {
		// A snapshot without them must say so as the one before it did, and perhaps they can be read by now.
		c.readAttributesOf(it)
	}
}

// weigh estimates what an entry on its way takes, in KiB. One entry has at most a quarter of the window, however large
// it is; see bundler.assemble for why.
func weigh(path, extents, maps int) int64 {
	return min(1+int64(path+extents*80+maps*160)>>10, windowWeight/4)
}

func (c *capture) needsReading(it *item, m *meta) {
	it.ready = make(chan struct{})
	it.large = m.size > smallFile
	if !it.large && m.size > 0 {
		it.reserved = int64(smallClasses[smallClass(m.size)])
	}
	extents, maps := int(min(m.size, snapshot.MapSpan)>>19), 0
	if m.size > snapshot.MapSpan {
		extents, maps = 0, int(min(m.size/snapshot.MapSpan, windowWeight))
	}
	it.weight = weigh(len(it.entry.Path), extents, maps)
}

// readOther reads what an entry without content has beside what lstat told.
func (c *capture) readOther(it *item) {
	e := it.entry
	if e.Type == snapshot.Symlink {
		fd, err := c.walker.dirs.acquire(it.dir)
		if err != nil {
			it.fail(e.Path, "open", err)
			return
		}
		defer c.walker.dirs.release(it.dir)
		buf, err := readLink(fd, it.name)
		if err != nil {
			it.fail(e.Path, "readlink", err)
			it.entry = nil
			return
		}
		e.Target = buf
	}
	c.readAttributesOf(it)
}

// readAttributesOf reads the attributes of what is not open.
func (c *capture) readAttributesOf(it *item) {
	fd, err := c.walker.dirs.acquire(it.dir)
	if err != nil {
		it.fail(it.entry.Path, "open", err)
		it.entry.LacksXattrs = true
		return
	}
	defer c.walker.dirs.release(it.dir)
	c.readAttributes(it, inode.At(fd, it.name))
}

func (c *capture) readAttributes(it *item, a inode.Attributes) {
	var err error
	if it.entry.Xattrs, err = c.sys.attributes(a); err != nil {
		it.fail(it.entry.Path, "getxattr", err)
	}
	it.entry.LacksXattrs = err != nil
}

func readLink(dirFD int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dirFD, name, buf)
		if err != nil || n < size {
			return string(buf[:max(0, n)]), err
		}
	}
}

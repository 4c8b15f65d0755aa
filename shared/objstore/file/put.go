package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Put implements [objstore.Store].
//
// The steps, and what a crash after each leaves:
//
//  1. the content in tmp/, synced: an unfinished file, removed a day later;
//  2. the directories of the key: empty ones, which List and Prefixes do not show;
//  3. the link: perhaps the object, perhaps not, as the file system pleases, but complete in any case (step 1);
//  4. the directories synced: the object, for good;
//  5. the unfinished name removed.
func (s *Store) Put(ctx context.Context, key string, c objstore.Content) error {
	if err := objstore.CheckPut(key, c); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := s.open(true)
	if err != nil {
		return s.wrapPut(key, err)
	}
	if _, err := root.Lstat(filepath.FromSlash(key)); err == nil {
		return s.wrapPut(key, s.compare(ctx, root, key, c))
	}
	name, err := spool(ctx, root, c)
	if err != nil {
		return s.wrapPut(key, err)
	}
	defer func() { _ = root.Remove(name) }()
	if err := link(root, name, key); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = s.compare(ctx, root, key, c)
		}
		return s.wrapPut(key, err)
	}
	return s.wrapPut(key, syncUp(root, key))
}

// wrapPut is wrap, except that what does not exist is not the object: a directory is in the way, or was taken away.
func (s *Store) wrapPut(key string, err error) error {
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("put %s in %s: %w", key, s.dir, err)
	case errors.Is(err, errNoLinks):
		return fmt.Errorf("put %s in %s: %w", key, s.dir, err)
	}
	return s.wrap("put", key, err)
}

var errNoLinks = errors.New("the file system has no hard links, which an atomic write needs; use another file system")

// spool writes c to an unfinished file, synced, and returns its name.
func spool(ctx context.Context, root *os.Root, c objstore.Content) (_ string, err error) {
	f, name, err := create(root)
	if err != nil {
		return "", err
	}
	defer func() {
		// Full disks are told as late as in close on some file systems.
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			_ = root.Remove(name)
		}
	}()
	if err := write(ctx, f, c); err != nil {
		return "", err
	}
	return name, f.Sync()
}

// write copies c to w and checks that it is what was announced.
func write(ctx context.Context, w io.Writer, c objstore.Content) error {
	sum := sha256.New()
	buf := make([]byte, min(c.Size, 1<<20))
	for done := int64(0); done < c.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), c.Size-done)]
		if n, err := c.ReadAt(part, done); n < len(part) {
			if err == nil || err == io.EOF { //nolint:errorlint // io.ReaderAt promises EOF itself
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read content: %w", err)
		}
		sum.Write(part)
		if _, err := w.Write(part); err != nil {
			return err
		}
		done += int64(len(part))
	}
	if !bytes.Equal(sum.Sum(nil), c.SHA256[:]) {
		return objstore.ErrChecksum
	}
	return nil
}

// link gives the unfinished file its name, and makes the directories for it.
func link(root *os.Root, name, key string) error {
	target := filepath.FromSlash(key)
	dir := filepath.Dir(target)
	// A Delete may take a directory that has just become empty away between the two steps.
	for try := 0; ; try++ {
		err := root.Link(name, target)
		if err == nil {
			return nil
		}
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return fmt.Errorf("%w: %w", errNoLinks, err)
		case !errors.Is(err, fs.ErrNotExist) || try == 20:
			return err
		}
		if err := root.MkdirAll(dir, dirMode); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// compare returns nil if the object under key is c, durably, and else ErrExist.
func (s *Store) compare(ctx context.Context, root *os.Root, key string, c objstore.Content) error {
	f, i, err := openObject(root, key)
	if err != nil {
		// A directory, or a link to nowhere: not an object, but in its way.
		return fmt.Errorf("%w (not a file: %w)", objstore.ErrExist, err)
	}
	defer func() { _ = f.Close() }()
	if i.Size() != c.Size {
		return objstore.ErrExist
	}
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if err == io.EOF { //nolint:errorlint // io.Reader promises EOF itself
			break
		}
		if err != nil {
			return err
		}
	}
	if !bytes.Equal(sum.Sum(nil), c.SHA256[:]) {
		return objstore.ErrExist
	}
	// Whoever put it may not have come to step 4.
	if err := f.Sync(); err != nil && !unsupported(err) {
		return err
	}
	return syncUp(root, key)
}

// syncUp syncs the directories of key up to the root. All of them, not only the new ones: another process may have
// made them and may not have come to syncing them.
func syncUp(root *os.Root, key string) error {
	for dir := path.Dir(key); ; dir = path.Dir(dir) {
		if err := syncDir(root, dir); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
	}
}

func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	return syncAndClose(d)
}

func syncPath(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // a parent of the directory that the user named
	if err != nil {
		return err
	}
	return syncAndClose(d)
}

func syncAndClose(d *os.File) error {
	err := d.Sync()
	if unsupported(err) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// unsupported says that a file system does not sync directories on their own (some network ones).
func unsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP)
}

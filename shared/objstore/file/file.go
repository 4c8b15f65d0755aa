// Package file keeps objects as files below a directory: on a local disk, a mounted one, or a network file system that
// has hard links. Use [Open].
//
// An object is written to a file in the directory "tmp", synced, and then linked to its name: link(2) fails where the
// name exists, which makes Put atomic and "if absent" between any number of processes. Directories are synced up to the
// root before Put returns. Keys never lead out of the root, whatever links are planted below it.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

const (
	dirMode  = 0o700
	fileMode = 0o600
	// unfinished is where files are before they have their name.
	unfinished = objstore.Reserved
	// staleAfter is the age of an unfinished file whose writer is taken for dead.
	staleAfter = 24 * time.Hour
)

// Store is an object store in a directory.
type Store struct {
	dir    string // absolute
	window int    // see the constant

	mu   sync.Mutex
	root *os.Root // guarded by mu; nil until the directory is there. Never closed: calls may be under way
}

// Open returns the store in dir, which need not exist: the first Put makes it, until then the store is empty.
// Unfinished files of writers that died are removed when they are older than a day.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	s := &Store{dir: abs, window: window}
	root, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, s.wrap("open", "", err)
	}
	removeStale(root, time.Now().Add(-staleAfter))
	return s, nil
}

// Dir returns the absolute path of the store's directory.
func (s *Store) Dir() string { return s.dir }

// open returns the root, and makes it first if that is wanted.
func (s *Store) open(create bool) (*os.Root, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != nil {
		return s.root, nil
	}
	root, err := os.OpenRoot(s.dir)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := makeRoot(s.dir); err != nil {
			return nil, err
		}
		root, err = os.OpenRoot(s.dir)
	}
	if err != nil {
		return nil, err
	}
	s.root = root
	return root, nil
}

// makeRoot makes dir and what is missing above it, and syncs the directories in which new names came to be.
func makeRoot(dir string) error {
	if err := os.Mkdir(dir, dirMode); errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err := makeRoot(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, dirMode)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := syncPath(filepath.Dir(dir))
	if errors.Is(err, fs.ErrPermission) {
		return nil // may be entered but not read: the file system's own habits must do
	}
	return err
}

// wrap gives err its operation and object, and the contract's meaning.
func (s *Store) wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	object := key
	if object == "" {
		object = s.dir
	}
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(context.Canceled, context.DeadlineExceeded, objstore.ErrExist, objstore.ErrChecksum):
		return fmt.Errorf("%s %s: %w", op, object, err)
	case is(fs.ErrNotExist, unix.ENOTDIR):
		return fmt.Errorf("%s %s: %w", op, object, objstore.ErrNotExist)
	case is(unix.ENOSPC, unix.EDQUOT):
		return fmt.Errorf("%s %s: %w: %s", op, object, objstore.ErrFull, s.dir)
	case is(fs.ErrPermission, unix.EROFS):
		return fmt.Errorf("%s %s: %w: %w", op, object, objstore.ErrDenied, err)
	case is(unix.ESTALE, unix.ETIMEDOUT, unix.EINTR, unix.EAGAIN, unix.EBUSY):
		return fmt.Errorf("%s %s: %w", op, object, objstore.Transient(err))
	}
	return fmt.Errorf("%s %s: %w", op, object, err)
}

// Get implements [objstore.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := objstore.CheckGet(key, offset); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := s.open(false)
	if err != nil {
		return nil, s.wrap("get", key, err)
	}
	f, _, err := openObject(root, key)
	if err != nil {
		return nil, s.wrap("get", key, err)
	}
	if length < 0 {
		length = 1<<63 - 1 - offset
	}
	return &body{ctx: ctx, store: s, key: key, file: f, r: io.NewSectionReader(f, offset, length)}, nil
}

// openObject opens what is under key if that is a regular file. Anything else there is not of our making, and absent.
func openObject(root *os.Root, key string) (*os.File, fs.FileInfo, error) {
	// O_NONBLOCK: opening a FIFO that somebody planted must not wait for a writer.
	f, err := root.OpenFile(filepath.FromSlash(key), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	i, err := f.Stat()
	if err == nil && !i.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, i, nil
}

type body struct {
	ctx   context.Context
	store *Store
	key   string
	file  *os.File
	r     *io.SectionReader
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader promises EOF itself
		err = b.store.wrap("read", b.key, err)
	}
	return n, err
}

func (b *body) Close() error { return b.file.Close() }

// Stat implements [objstore.Store].
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return objstore.Info{}, err
	}
	root, err := s.open(false)
	if err != nil {
		return objstore.Info{}, s.wrap("stat", key, err)
	}
	i, err := root.Lstat(filepath.FromSlash(key))
	if err == nil && !i.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return objstore.Info{}, s.wrap("stat", key, err)
	}
	return objstore.Info{Key: key, Size: i.Size(), Modified: i.ModTime()}, nil
}

// Delete implements [objstore.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.remove(key)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return s.wrap("delete", key, err)
}

func (s *Store) remove(key string) error {
	root, err := s.open(false)
	if err != nil {
		return err
	}
	name := filepath.FromSlash(key)
	if i, err := root.Lstat(name); err != nil || i.IsDir() {
		return err
	}
	if err := root.Remove(name); err != nil {
		return err
	}
	// A directory that became empty goes too; Put makes it again. A crash before the last sync may bring the object
	// back, as if Delete had not been called; its caller has had no answer.
	for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
		err := root.Remove(filepath.FromSlash(dir))
		if err == nil {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // another Delete was quicker
		}
		return syncDir(root, dir) // not empty
	}
	return syncDir(root, ".")
}

// removeStale removes unfinished files that were last written before the given time. Whatever goes wrong is for a
// later run: these files are in nobody's way but the disk's.
func removeStale(root *os.Root, before time.Time) {
	dir, err := root.Open(unfinished)
	if err != nil {
		return
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(1000)
		for _, n := range names {
			name := filepath.Join(unfinished, n)
			if i, err := root.Lstat(name); err == nil && i.Mode().IsRegular() && i.ModTime().Before(before) {
				_ = root.Remove(name)
			}
		}
		if err != nil {
			return
		}
	}
}

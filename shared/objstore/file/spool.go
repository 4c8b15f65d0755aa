package file

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// spooled is an object that is being written to an unfinished file, which a link will make the object.
type spooled struct {
	store *Store
	root  *os.Root
	f     *os.File
	name  string
	hash  hash.Hash
	size  int64
	done  bool
}

// Spool implements [objstore.Spooler]. The steps of Put apply, see there.
func (s *Store) Spool(ctx context.Context) (objstore.Spool, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := s.open(true)
	if err != nil {
		return nil, s.wrapPut(unfinished, err)
	}
	f, name, err := create(root)
	if err != nil {
		return nil, s.wrapPut(unfinished, err)
	}
	return &spooled{store: s, root: root, f: f, name: name, hash: sha256.New()}, nil
}

func (s *spooled) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	s.hash.Write(p[:n])
	s.size += int64(n)
	return n, s.store.wrapPut(s.name, err)
}

func (s *spooled) Sum() (sum [32]byte, size int64) { return [32]byte(s.hash.Sum(nil)), s.size }

func (s *spooled) Commit(ctx context.Context, key string) error {
	sum, size := s.Sum()
	if err := objstore.CheckPut(key, objstore.Content{ReaderAt: s.f, Size: size, SHA256: sum}); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.f.Sync(); err != nil {
		return s.store.wrapPut(key, err)
	}
	if _, err := s.root.Lstat(s.name); errors.Is(err, fs.ErrNotExist) {
		// Somebody has taken the writer for dead, see removeStale. The content is there as long as it is open.
		name, err := spool(ctx, s.root, objstore.Content{ReaderAt: s.f, Size: size, SHA256: sum})
		if err != nil {
			return s.store.wrapPut(key, err)
		}
		s.name = name
	}
	err := link(s.root, s.name, key)
	switch {
	case errors.Is(err, fs.ErrExist):
		err = s.store.compare(ctx, s.root, key, objstore.Content{Size: size, SHA256: sum})
	case err == nil:
		err = syncUp(s.root, key)
	}
	if err != nil {
		return s.store.wrapPut(key, err)
	}
	return s.Discard()
}

func (s *spooled) Discard() error {
	if s.done {
		return nil
	}
	s.done = true
	err := s.root.Remove(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // somebody has taken the writer for dead
	}
	if err := errors.Join(err, s.f.Close()); err != nil {
		return fmt.Errorf("end %s in %s: %w", s.name, s.store.dir, err)
	}
	return nil
}

// create makes an unfinished file.
func create(root *os.Root) (*os.File, string, error) {
	name := filepath.Join(unfinished, rand.Text())
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := root.Mkdir(unfinished, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, "", err
		}
		f, err = root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	}
	return f, name, err
}

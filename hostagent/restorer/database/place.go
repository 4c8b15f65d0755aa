package database

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// place is where a database is or will be.
type place struct {
	dir  string // real path of the directory
	base string // name in it
}

func (p place) path() string { return filepath.Join(p.dir, p.base) }

// work is the directory in which the new file is built.
func (p place) work() string { return filepath.Join(p.dir, "."+p.base+".holdfast-restore") }

// resolve finds the place that a path leads to: through symbolic links, also that of the database itself, as SQLite does it.
// The files beside a database are beside where it really is.
func resolve(path string) (place, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return place{}, fmt.Errorf("restore to %s: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	} else if !errors.Is(err, os.ErrNotExist) {
		return place{}, fmt.Errorf("restore to %s: %w", path, err)
	} else if st, err := os.Lstat(abs); err == nil && st.Mode()&os.ModeSymlink != 0 {
		return place{}, fmt.Errorf("restore to %s: it is a symbolic link that leads nowhere", path)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return place{}, fmt.Errorf("restore to %s: %w", path, err)
	}
	return place{dir: dir, base: filepath.Base(abs)}, nil
}

// workspace is the working directory of one restore, locked against another one. The kernel drops the lock with the
// process.
type workspace struct {
	place place
	dir   *os.File // the working directory, locked
}

// openWorkspace makes the working directory, or takes over that of a restore that died.
func openWorkspace(p place) (*workspace, error) {
	path := p.work()
	for range 10 {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("restore to %s: %w", p.path(), err)
		}
		dir, err := lockDirectory(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // the restore before us has just ended
		}
		if err != nil {
			return nil, fmt.Errorf("restore to %s: %w", p.path(), err)
		}
		return &workspace{place: p, dir: dir}, nil
	}
	return nil, fmt.Errorf("restore to %s: %w", p.path(), ErrBusy)
}

// lockDirectory opens and locks a directory. os.ErrNotExist: it is not the one under this name any more.
func lockDirectory(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err == nil {
		var held, named os.FileInfo
		if held, err = dir.Stat(); err == nil {
			if named, err = os.Lstat(path); err == nil && !os.SameFile(held, named) {
				err = os.ErrNotExist
			}
		}
	}
	if err != nil {
		_ = dir.Close() // only read
		return nil, err
	}
	return dir, nil
}

func (w *workspace) path(name string) string { return filepath.Join(w.place.work(), name) }

// fresh is where the new file is built: under its own name, so that SQLite finds nothing else beside it.
func (w *workspace) fresh() string { return w.path(filepath.Join(freshName, w.place.base)) }

const freshName = "new"

// create makes the new file.
func (w *workspace) create() (*os.File, error) {
	if err := os.Mkdir(w.path(freshName), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(w.fresh(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// clear removes what the working directory holds.
func (w *workspace) clear() error {
	list, err := os.ReadDir(w.place.work())
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(w.path(e.Name())))
	}
	return err
}

// remove removes the working directory. What stays after an error is taken over by the next restore to this place.
func (w *workspace) remove() error {
	err := w.clear()
	if err == nil {
		err = os.Remove(w.place.work())
	}
	return errors.Join(err, w.dir.Close())
}

// close leaves the working directory as it is.
func (w *workspace) close() { _ = w.dir.Close() } // only a lock

// vacant refuses a target at which something is, or beside which is what SQLite would take for a part of the new file.
func (p place) vacant() error {
	for _, side := range append([]string{""}, sides()...) {
		path := p.path() + side
		_, err := os.Lstat(path)
		if err == nil {
			return fmt.Errorf("restore to %s: %s: %w", p.path(), path, ErrExists)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("restore to %s: %w", p.path(), err)
		}
	}
	return nil
}

// room tells before anything is written whether a file fits.
func (p place) room(need uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err != nil || st.Blocks == 0 {
		return nil //nolint:nilerr // a file system that does not tell; writing will
	}
	free := st.Bavail
	if os.Geteuid() == 0 {
		free = st.Bfree
	}
	free *= uint64(max(st.Frsize, 1)) //nolint:gosec // a block size
	if need > free {
		return fmt.Errorf("restore to %s: %w: it needs %d bytes, and %d are free", p.path(), ErrFull, need, free)
	}
	return nil
}

// syncDirectory makes renames in a directory durable.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// identity names a file on its file system.
type identity struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// identify looks at a path, never through a symbolic link; the zero identity: nothing is there.
func identify(path string) (identity, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return identity{}, nil
	}
	if err != nil {
		return identity{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return identity{Device: uint64(st.Dev), Inode: st.Ino}, nil //nolint:unconvert // Dev differs by architecture
}

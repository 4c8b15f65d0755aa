package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
)

// place is where a database is or will be.
type place struct {
	dir  string // real path of the directory
	base string // name in it
}

func (p place) path() string { return filepath.Join(p.dir, p.base) }

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

// workspace is the working directory of one restore.
type workspace struct {
	*inplace.Work
	place place
}

// openWorkspace makes the working directory, or takes over that of a restore that died.
func openWorkspace(p place) (*workspace, error) {
	work, err := inplace.OpenWork(p.path(), 0o700)
	if err != nil {
		return nil, fmt.Errorf("restore to %s: %w", p.path(), err)
	}
	return &workspace{Work: work, place: p}, nil
}

// fresh is where the new file is built: under its own name, so that SQLite finds nothing else beside it.
func (w *workspace) fresh() string { return w.Join(filepath.Join(freshName, w.place.base)) }

const freshName = "new"

// create makes the new file.
func (w *workspace) create() (*os.File, error) {
	if err := os.Mkdir(w.Join(freshName), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(w.fresh(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// vacant refuses a target at which something is, or beside which is what SQLite would take for a part of the new file.
func (p place) vacant() error {
	for _, side := range append([]string{""}, sides()...) {
		path := p.path() + side
		_, err := os.Lstat(path)
		if err == nil {
			return fmt.Errorf("%s: %w", path, ErrExists)
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
		return fmt.Errorf("%w: it needs %s, and %s are free", ErrFull, humanize.IBytes(need), humanize.IBytes(free))
	}
	return nil
}

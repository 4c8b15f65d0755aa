package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
)

// phase says in which direction an exchange goes.
type phase string

const (
	phaseSwap phase = "swap" // where the new one stands in the place it has happened; else nothing has
	phaseBack phase = "back" // the old one is put back
)

// marker is what an exchange knows of itself, in the working directory.
type marker struct {
	Phase  phase    `json:"phase"`
	Safety string   `json:"safety"` // path that gets what was there
	Failed string   `json:"failed"` // path that gets what was restored, on the way back
	Old    identity `json:"old"`    // zero: there was nothing
	New    identity `json:"new"`
}

const markerName = "marker.json"

// identity names a directory on its file system.
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

// forward exchanges the two.
func (x *exchange) forward(stamp string) (err error) {
	m := &x.marker
	if m.Old, err = identify(x.place); err != nil {
		return err
	}
	if m.New, err = identify(x.fresh()); err != nil {
		return err
	}
	m.Phase = phaseSwap
	if m.Safety, err = unused(x.place + ".before-" + stamp); err != nil {
		return err
	}
	if m.Failed, err = unused(x.place + ".failed-" + stamp); err != nil {
		return err
	}
	if err := x.write(); err != nil {
		return err
	}
	if err := x.options.faulty("exchange"); err != nil {
		return err
	}
	if err := x.trade(x.fresh(), m.Safety); err != nil {
		return err
	}
	// Somebody may have started the old one in the instant between.
	if pid := pgserver.Postmaster(x.fresh()); pid != 0 {
		return fmt.Errorf("%s: %w again (process %d)", x.place, ErrInUse, pid)
	}
	if err := x.options.faulty("keep"); err != nil {
		return err
	}
	return x.keep()
}

// trade puts what is at other into the place, and what is in the place to other. Where the file system can't exchange, what
// is in the place goes to aside first: for an instant nothing is in the place.
func (x *exchange) trade(other, aside string) error {
	now, err := identify(x.place)
	if err != nil {
		return err
	}
	if now != (identity{}) {
		err = unix.EINVAL
		if !x.options.plainRename {
			err = unix.Renameat2(unix.AT_FDCWD, x.place, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		}
		switch {
		case err == nil:
			return syncDirectory(filepath.Dir(x.place))
		case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.ENOTSUP):
			return &os.LinkError{Op: "exchange", Old: x.place, New: other, Err: err}
		}
		if err := os.Rename(x.place, aside); err != nil {
			return err
		}
		if err := x.options.faulty("absent"); err != nil {
			return err
		}
	}
	if err := os.Rename(other, x.place); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(x.place))
}

// keep gives what was in the place its name as a safety copy.
func (x *exchange) keep() error {
	if at, err := identify(x.fresh()); err != nil || at == (identity{}) || at != x.marker.Old {
		return err // it has it, or there was nothing
	}
	if err := os.Rename(x.fresh(), x.marker.Safety); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(x.place))
}

// back puts the old one back, wherever the two are, and keeps the new one.
func (x *exchange) back() error {
	m := &x.marker
	m.Phase = phaseBack
	if err := x.write(); err != nil {
		return err
	}
	if err := x.options.faulty("back"); err != nil {
		return err
	}
	now, err := identify(x.place)
	if err != nil {
		return err
	}
	if pid := pgserver.Postmaster(x.place); pid != 0 && now != m.Old {
		return fmt.Errorf("%s: %w (process %d)", x.place, ErrInUse, pid)
	}
	if now == m.New {
		if err := x.backFrom(); err != nil {
			return err
		}
		now = m.Old
	}
	if now == (identity{}) && m.Old != (identity{}) {
		at, err := x.find(m.Old)
		if err != nil {
			return err
		}
		if err := os.Rename(at, x.place); err != nil {
			return err
		}
		now = m.Old
	}
	if now != m.Old {
		return fmt.Errorf("%s: %w", x.place, ErrMoved)
	}
	if err := x.options.faulty("back keep"); err != nil {
		return err
	}
	at, err := x.find(m.New)
	if err != nil || at == m.Failed {
		return err
	}
	return errors.Join(os.Rename(at, m.Failed), syncDirectory(filepath.Dir(x.place)))
}

// backFrom takes the new one out of the place.
func (x *exchange) backFrom() error {
	m := x.marker
	if m.Old == (identity{}) {
		return os.Rename(x.place, m.Failed)
	}
	at, err := x.find(m.Old)
	if err != nil {
		return err
	}
	return x.trade(at, m.Failed)
}

// find finds which of the names a directory has.
func (x *exchange) find(id identity) (string, error) {
	for _, path := range []string{x.marker.Safety, x.fresh(), x.marker.Failed} {
		if at, err := identify(path); err != nil || at == id {
			return path, err
		}
	}
	return "", fmt.Errorf("%s: %w: what belongs there is gone", x.place, ErrMoved)
}

// unused finds a name that nothing has.
func unused(path string) (string, error) {
	for n := 1; ; n++ {
		at := path
		if n > 1 {
			at = fmt.Sprintf("%s-%d", path, n)
		}
		id, err := identify(at)
		if err != nil || id == (identity{}) {
			return at, err
		}
	}
}

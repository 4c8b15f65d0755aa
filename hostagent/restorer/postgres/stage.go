package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
)

// stage is what a spool tells of a restore that is under way, for who finds it.
type stage struct {
	Snapshot    string   `json:"snapshot"`
	Tablespaces []string `json:"tablespaces"`      // places that were empty, and are the restore's
	Paused      bool     `json:"paused,omitempty"` // it is with people, who may have made it their own
}

// note writes how far the restore is.
func (b *build) note(paused bool) error {
	text, err := json.Marshal(stage{Snapshot: b.src.ID, Tablespaces: b.places(), Paused: paused})
	if err != nil {
		return err
	}
	// Not the account's, as the rest of the spool: root removes what it names.
	own := spool{dir: b.spool.dir}
	return own.write(stageName, text)
}

// readStage reads what a restore has left. What somebody else than root, and than who runs this, may have written names no
// directories to remove.
func (s *spool) readStage() (stage, error) {
	var st stage
	f, err := os.OpenFile(s.path(stageName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return st, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return st, err
	}
	if err := json.NewDecoder(f).Decode(&st); err != nil {
		return stage{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		st.Tablespaces = nil
	}
	return st, nil
}

// vacate makes sure that there is nothing at the place, or only what an earlier restore has left, which goes.
func vacate(dir string) (settled string, err error) {
	list, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, unix.ENOTDIR):
		return "", fmt.Errorf("%s: %w", dir, ErrExists)
	case err != nil:
		return "", err
	case len(list) == 0:
		return "", nil
	}
	s := &spool{dir: filepath.Join(dir, spoolName)}
	st, err := s.readStage()
	if errors.Is(err, fs.ErrNotExist) && len(list) == 1 && list[0].Name() == spoolName {
		err = nil // it died right at its beginning, or right before its end
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, ErrExists)
	}
	lock, err := s.lock()
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }() // it goes with the directory
	if st.Paused {
		return "", fmt.Errorf("%s: %w: a restore has left a server there, paused", dir, ErrExists)
	}
	if err := discard(dir, st.Tablespaces, true); err != nil {
		return "", err
	}
	return fmt.Sprintf("removed what an earlier restore to %s had left, which did not come to its end", dir), nil
}

// drop removes what was made, after a failure. The server is ended first.
func (b *build) drop() error {
	var err error
	if b.server != nil {
		err = b.server.Stop(false)
	}
	if b.own {
		err = errors.Join(err, b.dropMade(), discard(b.dir, b.places(), b.before != nil))
		err = errors.Join(err, b.asBefore())
	}
	if b.lock != nil {
		err = errors.Join(err, b.lock.Close())
		b.lock = nil
	}
	return err
}

// dropMade removes what recovery has put into the places of tablespaces that the WAL has made, where nothing was in use before.
// Who finds what a killed restore has left can't tell that from what others have put there since, and leaves it.
func (b *build) dropMade() error {
	if b.control == nil {
		return nil
	}
	links, err := os.ReadDir(filepath.Join(b.dir, spacesDir))
	if err != nil {
		return nil //nolint:nilerr // nothing was recovered
	}
	for _, l := range links {
		oid, perr := strconv.ParseUint(l.Name(), 10, 32)
		to, lerr := os.Readlink(filepath.Join(b.dir, spacesDir, l.Name()))
		if perr != nil || lerr != nil || slices.ContainsFunc(b.result.Tablespaces, func(s Tablespace) bool { return s.OID == uint32(oid) }) {
			continue
		}
		err = errors.Join(err, os.RemoveAll(filepath.Join(to, fmt.Sprintf("PG_%d_%d", b.src.Major, b.control.Catalog))))
	}
	return err
}

// asBefore gives a directory that was there its mode and its owner again.
func (b *build) asBefore() error {
	if b.before == nil {
		return nil
	}
	err := os.Chmod(b.dir, b.before.Mode().Perm())
	if sys, ok := b.before.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		err = errors.Join(err, os.Lchown(b.dir, int(sys.Uid), int(sys.Gid)))
	}
	return err
}

// discard removes a data directory that a restore has made, with its server and its tablespaces; keep leaves the directory
// itself, empty.
func discard(dir string, tablespaces []string, keep bool) error {
	if err := pgserver.EndStray(dir); err != nil {
		return err
	}
	err := pgserver.Clear(filepath.Join(dir, spoolName))
	for _, place := range tablespaces {
		err = errors.Join(err, remove(place, false))
	}
	return errors.Join(err, remove(dir, keep))
}

// remove removes a directory, in it the spool last: what is left by a crash is still known by it. A file system's root stays,
// empty, as what is kept does.
func remove(dir string, keep bool) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() != spoolName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, spoolName)); err != nil || keep {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

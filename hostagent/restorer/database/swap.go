package database

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// phase says in which direction a swap goes.
type phase string

const (
	phaseMark phase = "mark" // nothing has moved
	phaseSwap phase = "swap" // until the new database is revealed a crash goes back, from then on it has happened
	phaseDone phase = "done" // the new database is in its place
	phaseBack phase = "back" // the old one is put back
)

// marker is what a swap knows of itself, in the working directory. Places are names in the database's directory.
type marker struct {
	Phase   phase     `json:"phase"`
	Safety  string    `json:"safety"`           // gets what was there
	Failed  string    `json:"failed,omitempty"` // gets what was restored, on the way back
	Old     identity  `json:"old"`              // zero: there was no database
	New     identity  `json:"new"`
	Barrier identity  `json:"barrier"`
	Time    time.Time `json:"time"`

	Sides map[string]identity `json:"sides"` // what stands beside the old database, by suffix
}

const (
	markerName  = "marker.json"
	barrierNote = "RESTORE-UNDER-WAY.txt"
	noteText    = `This directory stands where a database belongs, so that nobody opens it while holdfast exchanges it and what
stands beside it. If no restore is running, one was killed amid the exchange. The same restore, or any restore in place of
this database, first puts everything back as it was:

    holdfast restore SOURCE --in-place

The database that was here is in the directory %s beside this one.
`
)

// swap exchanges a database and what stands beside it for a new file. See the package's doc for the steps.
type swap struct {
	work    *workspace
	marker  marker
	options *Options
}

func (s *swap) in(dir, side string) string {
	return filepath.Join(s.work.place.dir, dir, s.work.place.base+side)
}

func (s *swap) at(side string) string { return s.work.place.path() + side }

// prepare makes the safety directory with the barrier in it, and marks what is going to happen.
func (s *swap) prepare() error {
	now := s.options.now().UTC()
	var err error
	if s.marker.Safety, err = freeName(s.work.place, "before", now); err != nil {
		return err
	}
	s.marker.Phase, s.marker.Time = phaseMark, now
	if err := s.write(); err != nil {
		return err
	}
	if err := s.options.faulty("safety"); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(s.work.place.dir, s.marker.Safety), 0o700); err != nil {
		return err
	}
	if err := makeBarrier(s.in(s.marker.Safety, ""), s.marker.Safety); err != nil {
		return err
	}
	if err := s.options.faulty("barrier"); err != nil {
		return err
	}
	s.marker.Phase = phaseSwap
	for path, id := range map[string]*identity{s.at(""): &s.marker.Old, s.work.fresh(): &s.marker.New, s.in(s.marker.Safety, ""): &s.marker.Barrier} {
		if *id, err = identify(path); err != nil {
			return err
		}
	}
	s.marker.Sides = map[string]identity{}
	for _, side := range sides() {
		id, err := identify(s.at(side))
		if err != nil {
			return err
		}
		if id != (identity{}) {
			s.marker.Sides[side] = id
		}
	}
	return s.write()
}

// freeName is a name for the directory of a set of files, with a time in it, that nothing has yet. Nobody else makes such
// names: the working directory is locked.
func freeName(p place, what string, now time.Time) (string, error) {
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s.%s-%s", p.base, what, now.Format("20060102T150405Z"))
		if n > 0 {
			name += fmt.Sprintf("-%d", n)
		}
		id, err := identify(filepath.Join(p.dir, name))
		if err != nil || id == (identity{}) {
			return name, err
		}
	}
}

func makeBarrier(path, safety string) error {
	if err := os.Mkdir(path, 0o755); err != nil { //nolint:gosec // it has a note for whoever looks
		return err
	}
	return os.WriteFile(filepath.Join(path, barrierNote), fmt.Appendf(nil, noteText, safety), 0o644) //nolint:gosec // as above
}

// write makes the marker durable.
func (s *swap) write() error {
	b, err := json.Marshal(s.marker)
	if err != nil {
		return err
	}
	fresh := s.work.path(markerName + ".new")
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, s.work.path(markerName)); err != nil {
		return err
	}
	return s.syncAll()
}

// syncAll makes all renames durable: the next step must not be on disk before the one before it.
func (s *swap) syncAll() error {
	p := s.work.place
	err := errors.Join(syncDirectory(p.work()), syncDirectory(p.dir))
	dirs := []string{s.work.path(freshName)}
	for _, dir := range []string{s.marker.Safety, s.marker.Failed} {
		if dir != "" {
			dirs = append(dirs, filepath.Join(p.dir, dir))
		}
	}
	for _, dir := range dirs {
		if serr := syncDirectory(dir); !errors.Is(serr, os.ErrNotExist) {
			err = errors.Join(err, serr)
		}
	}
	return err
}

// forward puts the new database in its place. look is asked once nobody can open the old one any more.
func (s *swap) forward(look func() error) error {
	if err := s.options.faulty("mark"); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.options.faulty("hide"); err != nil {
		return err
	}
	if err := s.exchange(s.at(""), s.in(s.marker.Safety, ""), s.marker.Old == identity{}); err != nil {
		return fmt.Errorf("hide the database: %w", err)
	}
	if err := s.hidden(); err != nil {
		return err
	}
	if err := s.syncAll(); err != nil {
		return err
	}
	if err := s.options.faulty("hidden"); err != nil {
		return err
	}
	if err := look(); err != nil {
		return err
	}
	if err := s.aside(s.marker.Safety); err != nil {
		return err
	}
	if err := s.options.faulty("reveal"); err != nil {
		return err
	}
	if err := s.exchange(s.at(""), s.work.fresh(), false); err != nil {
		return fmt.Errorf("put the new database in its place: %w", err)
	}
	if err := s.syncAll(); err != nil {
		return err
	}
	if err := s.options.faulty("settle"); err != nil {
		return err
	}
	s.marker.Phase = phaseDone
	return s.write()
}

// hidden makes sure that what was hidden is what was marked.
func (s *swap) hidden() error {
	if s.marker.Old == (identity{}) {
		return nil
	}
	if id, err := identify(s.in(s.marker.Safety, "")); err != nil || id != s.marker.Old {
		// Somebody put another file there since. It goes back: it is nothing of ours.
		return errors.Join(err, fmt.Errorf("%s: %w", s.at(""), ErrMoved), s.exchange(s.at(""), s.in(s.marker.Safety, ""), false))
	}
	return nil
}

// aside moves what stands beside the database to dir, and makes sure that nothing is left.
func (s *swap) aside(dir string) error {
	for _, side := range sides() {
		if err := s.options.faulty("aside" + side); err != nil {
			return err
		}
		if err := move(s.at(side), s.in(dir, side)); err != nil {
			return err
		}
	}
	if err := s.syncAll(); err != nil {
		return err
	}
	for _, side := range sides() {
		if id, err := identify(s.at(side)); err != nil || id != (identity{}) {
			return errors.Join(err, fmt.Errorf("%s: %w", s.at(side), ErrMoved))
		}
	}
	return nil
}

// move renames a file that may be missing, and never over another one.
func move(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w: %s is there already", from, ErrMoved, to)
	case cannot(err):
		// Without the flag another one could be lost, so look first; nobody else writes into our directories.
		if id, err := identify(to); err != nil || id != (identity{}) {
			return errors.Join(err, fmt.Errorf("%s: %w: %s is there already", from, ErrMoved, to))
		}
		return os.Rename(from, to)
	case err != nil:
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// cannot reports whether a file system lacks a form of rename.
func cannot(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP)
}

// exchange lets what is at the place and what is at other change places. Where the place is empty, other just goes there.
func (s *swap) exchange(at, other string, empty bool) error {
	if empty {
		return s.mustMove(other, at)
	}
	err := error(unix.EINVAL)
	if !s.options.plainRename {
		err = unix.Renameat2(unix.AT_FDCWD, at, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
	}
	if err != nil && !cannot(err) {
		return &os.LinkError{Op: "exchange", Old: at, New: other, Err: err}
	}
	if err == nil {
		return nil
	}
	// In two steps. What is on its way to the place waits under a name that [swap.back] knows.
	waiting := s.work.path(waitingName)
	if err := s.mustMove(other, waiting); err != nil {
		return err
	}
	if err := s.options.faulty("waiting"); err != nil {
		return err
	}
	if err := s.mustMove(at, other); err != nil {
		return err
	}
	if err := s.options.faulty("absent"); err != nil {
		return err
	}
	return s.mustMove(waiting, at)
}

// waitingName is what waits in the working directory amid an exchange in two steps.
const waitingName = "waiting"

func (s *swap) mustMove(from, to string) error {
	if id, err := identify(from); err != nil || id == (identity{}) {
		return errors.Join(err, fmt.Errorf("%s: %w: it is gone", from, ErrMoved))
	}
	return move(from, to)
}

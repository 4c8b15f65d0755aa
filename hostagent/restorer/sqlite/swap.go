package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
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
	Phase   phase            `json:"phase"`
	Safety  string           `json:"safety"`           // gets what was there
	Failed  string           `json:"failed,omitempty"` // gets what was restored, on the way back
	Old     inplace.Identity `json:"old"`              // zero: there was no database
	New     inplace.Identity `json:"new"`
	Barrier inplace.Identity `json:"barrier"`
	Time    time.Time        `json:"time"`

	Sides map[string]inplace.Identity `json:"sides"` // what stands beside the old database, by suffix
}

const (
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
	if s.marker.Safety, err = s.freeName("before", now); err != nil {
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
	for path, id := range map[string]*inplace.Identity{s.at(""): &s.marker.Old, s.work.fresh(): &s.marker.New, s.in(s.marker.Safety, ""): &s.marker.Barrier} {
		if *id, err = inplace.Identify(path); err != nil {
			return err
		}
	}
	s.marker.Sides = map[string]inplace.Identity{}
	for _, side := range sides() {
		id, err := inplace.Identify(s.at(side))
		if err != nil {
			return err
		}
		if id != (inplace.Identity{}) {
			s.marker.Sides[side] = id
		}
	}
	return s.write()
}

// freeName is a name for the directory of a set of files, with a time in it.
func (s *swap) freeName(what string, now time.Time) (string, error) {
	path, err := inplace.Name(s.at(""), what, now)
	return filepath.Base(path), err
}

func makeBarrier(path, safety string) error {
	if err := os.Mkdir(path, 0o755); err != nil { //nolint:gosec // it has a note for whoever looks
		return err
	}
	return os.WriteFile(filepath.Join(path, barrierNote), fmt.Appendf(nil, noteText, safety), 0o644) //nolint:gosec // as above
}

// write makes the marker durable, and all that came before it.
func (s *swap) write() error {
	if err := s.work.Mark(s.marker); err != nil {
		return err
	}
	return s.syncAll()
}

// syncAll makes all renames durable: the next step must not be on disk before the one before it.
func (s *swap) syncAll() error {
	p := s.work.place
	err := errors.Join(inplace.Sync(s.work.Path), inplace.Sync(p.dir))
	dirs := []string{s.work.Join(freshName)}
	for _, dir := range []string{s.marker.Safety, s.marker.Failed} {
		if dir != "" {
			dirs = append(dirs, filepath.Join(p.dir, dir))
		}
	}
	for _, dir := range dirs {
		if serr := inplace.Sync(dir); !errors.Is(serr, os.ErrNotExist) {
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
	if err := s.exchange(s.at(""), s.in(s.marker.Safety, ""), s.marker.Old == inplace.Identity{}); err != nil {
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
	if s.marker.Old == (inplace.Identity{}) {
		return nil
	}
	if id, err := inplace.Identify(s.in(s.marker.Safety, "")); err != nil || id != s.marker.Old {
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
		if err := inplace.Move(s.at(side), s.in(dir, side)); err != nil {
			return err
		}
	}
	if err := s.syncAll(); err != nil {
		return err
	}
	for _, side := range sides() {
		if id, err := inplace.Identify(s.at(side)); err != nil || id != (inplace.Identity{}) {
			return errors.Join(err, fmt.Errorf("%s: %w", s.at(side), ErrMoved))
		}
	}
	return nil
}

// exchange lets what is at the place and what is at other change places. Where the place is empty, other just goes there.
func (s *swap) exchange(at, other string, empty bool) error {
	if empty {
		return s.mustMove(other, at)
	}
	err := inplace.ErrNoExchange
	if !s.options.plainRename {
		err = inplace.Exchange(at, other)
	}
	if !errors.Is(err, inplace.ErrNoExchange) {
		return err
	}
	// In two steps. What is on its way to the place waits under a name that [swap.back] knows.
	waiting := s.work.Join(waitingName)
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
	if id, err := inplace.Identify(from); err != nil || id == (inplace.Identity{}) {
		return errors.Join(err, fmt.Errorf("%s: %w: it is gone", from, ErrMoved))
	}
	return inplace.Move(from, to)
}

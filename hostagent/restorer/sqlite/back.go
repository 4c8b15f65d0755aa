package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
)

// back puts the old database and what stood beside it in their places again, from wherever a swap was left. It can be
// called again after each of its steps.
func (s *swap) back() error {
	if s.marker.Phase == phaseMark {
		return nil
	}
	if err := s.makeFailed(); err != nil {
		return err
	}
	if s.marker.Old != (inplace.Identity{}) {
		at, err := inplace.Identify(s.at(""))
		if err != nil || at == s.marker.Old {
			return err // never hidden, or revealed again, which is the last step
		}
	}
	at, err := s.hideNew()
	if err != nil {
		return err
	}
	if at != s.marker.Barrier && at != (inplace.Identity{}) {
		if s.marker.Old == (inplace.Identity{}) {
			return nil // somebody made one where none was: it is nothing of ours
		}
		return fmt.Errorf("%s: %w", s.at(""), ErrMoved)
	}
	if err := s.sidesBack(); err != nil {
		return err
	}
	if err := s.syncAll(); err != nil {
		return err
	}
	if err := s.options.faulty("back reveal"); err != nil {
		return err
	}
	if s.marker.Old == (inplace.Identity{}) {
		if at == s.marker.Barrier {
			err = s.mustMove(s.at(""), s.work.Join("gone"))
		}
		return errors.Join(err, s.syncAll())
	}
	old, err := s.find(s.marker.Old)
	if err != nil {
		return err
	}
	if at == (inplace.Identity{}) {
		err = s.mustMove(old, s.at(""))
	} else {
		err = s.exchange(s.at(""), old, false)
	}
	return errors.Join(err, s.syncAll())
}

// hideNew puts the barrier where the new database is, if it is in the place. It returns what is there then.
func (s *swap) hideNew() (inplace.Identity, error) {
	at, err := inplace.Identify(s.at(""))
	if err != nil || at != s.marker.New {
		return at, err
	}
	if err := s.needFailed(); err != nil {
		return at, err
	}
	barrier, err := s.find(s.marker.Barrier)
	if err != nil {
		return at, err
	}
	to := s.in(s.marker.Failed, "")
	if barrier != to {
		if err := s.mustMove(barrier, to); err != nil {
			return at, err
		}
	}
	if err := s.options.faulty("back hide"); err != nil {
		return at, err
	}
	if err := s.exchange(s.at(""), to, false); err != nil {
		return at, err
	}
	if err := s.syncAll(); err != nil {
		return at, err
	}
	return inplace.Identify(s.at(""))
}

// sidesBack sets aside what stands beside the place and is not the old database's, and puts back what is. Nobody can open
// what is in the place.
func (s *swap) sidesBack() error {
	for _, side := range sides() {
		id, err := inplace.Identify(s.at(side))
		if err != nil {
			return err
		}
		if id == (inplace.Identity{}) || id == s.marker.Sides[side] {
			continue
		}
		if err := s.needFailed(); err != nil {
			return err
		}
		if err := inplace.Move(s.at(side), s.in(s.marker.Failed, side)); err != nil {
			return err
		}
	}
	for _, side := range sides() {
		if err := s.options.faulty("back" + side); err != nil {
			return err
		}
		if err := inplace.Move(s.in(s.marker.Safety, side), s.at(side)); err != nil {
			return err
		}
	}
	return nil
}

// needFailed makes the directory for what must leave the place.
func (s *swap) needFailed() error {
	if s.marker.Failed != "" {
		return nil
	}
	name, err := s.freeName("failed", s.options.now())
	if err != nil {
		return err
	}
	s.marker.Failed = name
	if err := s.write(); err != nil {
		return err
	}
	return s.makeFailed()
}

// makeFailed makes the directory that a marker names.
func (s *swap) makeFailed() error {
	if s.marker.Failed == "" {
		return nil
	}
	err := os.Mkdir(filepath.Join(s.work.place.dir, s.marker.Failed), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// find says where one of the files of the swap is by now.
func (s *swap) find(id inplace.Identity) (string, error) {
	places := []string{s.at(""), s.in(s.marker.Safety, ""), s.work.fresh(), s.work.Join(waitingName)}
	if s.marker.Failed != "" {
		places = append(places, s.in(s.marker.Failed, ""))
	}
	for _, path := range places {
		if at, err := inplace.Identify(path); err == nil && at == id && id != (inplace.Identity{}) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w: a file of it is gone", s.at(""), ErrMoved)
}

// tidy removes what a swap does not need any more: the barrier, and the directories for what was set aside where they are
// empty. It never removes a file that was in the place.
func (s *swap) tidy() {
	if s.marker.Phase == phaseMark { // the barrier has no identity yet
		_ = os.Remove(filepath.Join(s.in(s.marker.Safety, ""), barrierNote))
		_ = os.Remove(s.in(s.marker.Safety, ""))
	}
	if path, err := s.find(s.marker.Barrier); err == nil {
		_ = os.Remove(filepath.Join(path, barrierNote))
		_ = os.Remove(path)
	}
	for _, dir := range []*string{&s.marker.Safety, &s.marker.Failed} {
		if *dir != "" && os.Remove(filepath.Join(s.work.place.dir, *dir)) == nil {
			*dir = ""
		}
	}
}

// settle finishes or takes back what a restore that died left, and says in words what it found; empty: nothing.
func (w *workspace) settle(o *Options) (string, error) {
	s := &swap{work: w, options: o}
	if found, err := w.Marked(&s.marker); err != nil || !found {
		return "", err
	}
	if err := s.rebase(); err != nil {
		return "", err
	}
	at, err := inplace.Identify(s.at(""))
	if err != nil {
		return "", err
	}
	begun := s.marker.Time.Format("2006-01-02 15:04:05Z")
	if s.marker.Phase == phaseDone || s.marker.Phase == phaseSwap && at == s.marker.New {
		s.tidy()
		text := fmt.Sprintf("the restore of %s was cut off after it had put its database in place", begun)
		if s.marker.Safety != "" {
			text += "; what was there before is in " + filepath.Join(w.place.dir, s.marker.Safety)
		}
		return text, nil
	}
	if err := s.back(); err != nil {
		return "", fmt.Errorf("put back what the restore of %s, which was cut off, had set aside in %s: %w", begun, filepath.Join(w.place.dir, s.marker.Safety), err)
	}
	s.tidy()
	if s.marker.Phase == phaseMark {
		return "", nil
	}
	text := fmt.Sprintf("the restore of %s was cut off; what was there before is in its place again", begun)
	if s.marker.Failed != "" {
		text += ", and what is not of it in " + filepath.Join(w.place.dir, s.marker.Failed)
	}
	return text, nil
}

// rebase gives the files of a marker the device number that their file system has now: a reboot may have changed it. All
// are on the file system of the working directory.
func (s *swap) rebase() error {
	here, err := inplace.Identify(s.work.Path)
	if err != nil {
		return err
	}
	m := &s.marker
	m.Old, m.New, m.Barrier = m.Old.Beside(here), m.New.Beside(here), m.Barrier.Beside(here)
	for side, id := range m.Sides {
		m.Sides[side] = id.Beside(here)
	}
	return nil
}

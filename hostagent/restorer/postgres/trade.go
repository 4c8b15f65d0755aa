package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
)

// phase says in which direction an exchange goes.
type phase string

const (
	phaseSwap phase = "swap" // where the new one stands in the place it has happened; else nothing has
	phaseBack phase = "back" // the old one is put back
)

// marker is what an exchange knows of itself, in the working directory.
type marker struct {
	Phase  phase            `json:"phase"`
	Safety string           `json:"safety"` // path that gets what was there
	Failed string           `json:"failed"` // path that gets what was restored, on the way back
	Old    inplace.Identity `json:"old"`    // zero: there was nothing
	New    inplace.Identity `json:"new"`
}

// forward exchanges the two.
func (x *exchange) forward() (err error) {
	m := &x.marker
	if m.Old, err = inplace.Identify(x.place); err != nil {
		return err
	}
	if m.New, err = inplace.Identify(x.fresh()); err != nil {
		return err
	}
	m.Phase = phaseSwap
	if m.Safety, err = inplace.Name(x.place, "before", x.began); err != nil {
		return err
	}
	if m.Failed, err = inplace.Name(x.place, "failed", x.began); err != nil {
		return err
	}
	if err := x.work.Mark(x.marker); err != nil {
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
	now, err := inplace.Identify(x.place)
	if err != nil {
		return err
	}
	if now != (inplace.Identity{}) {
		err := inplace.ErrNoExchange
		if !x.options.plainRename {
			err = inplace.Exchange(x.place, other)
		}
		switch {
		case err == nil:
			return inplace.Sync(filepath.Dir(x.place))
		case !errors.Is(err, inplace.ErrNoExchange):
			return err
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
	return inplace.Sync(filepath.Dir(x.place))
}

// keep gives what was in the place its name as a safety copy.
func (x *exchange) keep() error {
	if at, err := inplace.Identify(x.fresh()); err != nil || at == (inplace.Identity{}) || at != x.marker.Old {
		return err // it has it, or there was nothing
	}
	if err := os.Rename(x.fresh(), x.marker.Safety); err != nil {
		return err
	}
	return inplace.Sync(filepath.Dir(x.place))
}

// back puts the old one back, wherever the two are, and keeps the new one.
func (x *exchange) back() error {
	m := &x.marker
	m.Phase = phaseBack
	if err := x.work.Mark(x.marker); err != nil {
		return err
	}
	if err := x.options.faulty("back"); err != nil {
		return err
	}
	now, err := inplace.Identify(x.place)
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
	if now == (inplace.Identity{}) && m.Old != (inplace.Identity{}) {
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
	return errors.Join(os.Rename(at, m.Failed), inplace.Sync(filepath.Dir(x.place)))
}

// backFrom takes the new one out of the place.
func (x *exchange) backFrom() error {
	m := x.marker
	if m.Old == (inplace.Identity{}) {
		return os.Rename(x.place, m.Failed)
	}
	at, err := x.find(m.Old)
	if err != nil {
		return err
	}
	return x.trade(at, m.Failed)
}

// find finds which of the names a directory has.
func (x *exchange) find(id inplace.Identity) (string, error) {
	for _, path := range []string{x.marker.Safety, x.fresh(), x.marker.Failed} {
		if at, err := inplace.Identify(path); err != nil || at == id {
			return path, err
		}
	}
	return "", fmt.Errorf("%s: %w: what belongs there is gone", x.place, ErrMoved)
}

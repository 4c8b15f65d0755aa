package postgres

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
)

// Recover settles what a restore in place at dir left that died, without restoring anything, and says in words what that
// was; empty: nothing. Errors: [*StepError].
func Recover(dir string, o Options) (string, error) {
	place, err := absolute(dir)
	if err != nil {
		return "", err
	}
	if missing(inplace.WorkOf(place)) {
		return "", nil
	}
	x, settled, err := openExchange(dir, &o)
	if err != nil {
		return "", err
	}
	x.leave()
	return settled, nil
}

// leave removes the working directory.
func (x *exchange) leave() {
	if err := x.work.Remove(); err != nil {
		x.build.result.Warnings = append(x.build.result.Warnings, fmt.Sprintf("%s can not be removed: %v", x.work.Path, err))
	}
}

// settle finishes or takes back what a restore that died has left.
func (x *exchange) settle() (string, error) {
	found, err := x.work.Marked(&x.marker)
	if err != nil {
		return "", err
	}
	if !found {
		return x.sweep()
	}
	here, err := inplace.Identify(x.work.Path)
	if err != nil {
		return "", err
	}
	x.marker.Old, x.marker.New = x.marker.Old.Beside(here), x.marker.New.Beside(here)
	m := x.marker
	now, err := inplace.Identify(x.place)
	if err != nil {
		return "", err
	}
	switch {
	case m.Phase == phaseSwap && now == m.New:
		if err := x.keep(); err != nil {
			return "", err
		}
		return fmt.Sprintf("an earlier restore died after it had put the restored cluster in its place; what was there before is in %s; nothing was started", m.Safety), x.clear()
	case m.Phase == phaseSwap && now == m.Old && now != (inplace.Identity{}):
		_, err := x.sweep()
		return "an earlier restore died before it changed anything; its copy was removed", err
	case m.Phase == phaseSwap || m.Phase == phaseBack:
		if err := x.back(); err != nil {
			return "", err
		}
		return fmt.Sprintf("an earlier restore died on the way; what was there before is in its place again, and what it had restored is in %s", m.Failed), x.clear()
	}
	return "", fmt.Errorf("%s: %w", x.work.Marker(), ErrMoved)
}

// sweep removes a new cluster that did not come to be.
func (x *exchange) sweep() (string, error) {
	if missing(x.fresh()) {
		return "", x.clear()
	}
	s := &spool{dir: filepath.Join(x.fresh(), spoolName)}
	st, err := s.readStage()
	if err != nil {
		st = stage{} // it had none yet
	}
	if err := discard(x.fresh(), st.Tablespaces, false); err != nil {
		return "", err
	}
	return fmt.Sprintf("removed what an earlier restore of %s had left, which did not come to its end", x.place), x.clear()
}

// clear empties the working directory.
func (x *exchange) clear() error {
	x.marker = marker{}
	return x.work.Clear()
}

// Kept names what in-place restores have left beside a data directory.
func Kept(dir string) []string {
	list, err := filepath.Glob(strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir) + ".before-*")
	if err != nil {
		return nil
	}
	return list
}

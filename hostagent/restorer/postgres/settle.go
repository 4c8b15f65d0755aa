package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Recover settles what a restore in place at dir left that died, without restoring anything, and says in words what that
// was; empty: nothing. Errors: [*StepError].
func Recover(dir string, o Options) (string, error) {
	place, err := absolute(dir)
	if err != nil {
		return "", err
	}
	if missing(workOf(place)) {
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
	if err := os.RemoveAll(x.work); err != nil {
		x.build.result.Warnings = append(x.build.result.Warnings, fmt.Sprintf("%s can not be removed: %v", x.work, err))
	}
	_ = x.lock.Close() // only a lock
}

// settle finishes or takes back what a restore that died has left.
func (x *exchange) settle() (string, error) {
	text, err := os.ReadFile(filepath.Join(x.work, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return x.sweep()
	}
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(text, &x.marker); err != nil {
		return "", fmt.Errorf("%s: %w: %w", filepath.Join(x.work, markerName), ErrMoved, err)
	}
	m := x.marker
	now, err := identify(x.place)
	if err != nil {
		return "", err
	}
	switch {
	case m.Phase == phaseSwap && now == m.New:
		if err := x.keep(); err != nil {
			return "", err
		}
		return fmt.Sprintf("an earlier restore died after it had put the restored cluster in its place; what was there before is in %s; nothing was started", m.Safety), x.clear()
	case m.Phase == phaseSwap && now == m.Old && now != (identity{}):
		_, err := x.sweep()
		return "an earlier restore died before it changed anything; its copy was removed", err
	case m.Phase == phaseSwap || m.Phase == phaseBack:
		if err := x.back(); err != nil {
			return "", err
		}
		return fmt.Sprintf("an earlier restore died on the way; what was there before is in its place again, and what it had restored is in %s", m.Failed), x.clear()
	}
	return "", fmt.Errorf("%s: %w", filepath.Join(x.work, markerName), ErrMoved)
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
	list, err := os.ReadDir(x.work)
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(x.work, e.Name())))
	}
	x.marker = marker{}
	return err
}

func (x *exchange) write() error {
	text, err := json.Marshal(x.marker)
	if err != nil {
		return err
	}
	s := &spool{dir: x.work}
	if err := s.write(markerName, text); err != nil {
		return err
	}
	return syncDirectory(x.work)
}

// Kept names what in-place restores have left beside a data directory.
func Kept(dir string) []string {
	list, err := filepath.Glob(strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir) + ".before-*")
	if err != nil {
		return nil
	}
	return list
}

package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

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

// exchange is one restore in place on its way.
type exchange struct {
	place   string // the data directory
	work    string // directory beside it
	lock    *os.File
	build   *build
	options *Options
	marker  marker
}

func workOf(place string) string {
	return filepath.Join(filepath.Dir(place), "."+filepath.Base(place)+".holdfast-restore")
}

func (x *exchange) fresh() string { return filepath.Join(x.work, filepath.Base(x.place)) }

// InPlace restores over the data directory at dir, or to where one was. Errors: [*StepError], which wraps what ToDir's does,
// [ErrInUse], [ErrMoved], [ErrPlace] and those of the hooks.
func InPlace(ctx context.Context, dir string, open Opener, o Options) (*Result, error) {
	o.Pause, o.inPlace = false, true
	x, settled, err := openExchange(dir, &o)
	if err != nil {
		return nil, err
	}
	x.build.result.Settled = settled
	return x.run(ctx, open)
}

// openExchange takes the working directory and settles what an earlier restore left in it.
func openExchange(dir string, o *Options) (*exchange, string, error) {
	place, err := absolute(dir)
	if err != nil {
		return nil, "", err
	}
	x := &exchange{place: place, work: workOf(place), options: o}
	x.build = newBuild(x.fresh(), o)
	x.build.result.Path = place
	fail := func(err error) (*exchange, string, error) {
		if x.lock != nil {
			_ = x.lock.Close() // only a lock
		}
		return nil, "", x.build.failure(err)
	}
	if err := x.movable(); err != nil {
		return fail(err)
	}
	if err := os.Mkdir(x.work, 0o711); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // the server goes through it
		return fail(err)
	}
	if x.lock, err = lockDirectory(x.work); err != nil {
		return fail(err)
	}
	settled, err := x.settle()
	if err != nil {
		return fail(err)
	}
	return x, settled, nil
}

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

// movable refuses a place that can't be renamed.
func (x *exchange) movable() error {
	if st, err := os.Stat(x.place); err == nil && !st.IsDir() {
		return fmt.Errorf("%s: %w: it is no directory", x.place, ErrPlace)
	}
	own, err := identify(x.place)
	if err != nil || own == (identity{}) {
		return err
	}
	above, err := identify(filepath.Dir(x.place))
	if err != nil {
		return err
	}
	if own.Device != above.Device {
		return fmt.Errorf("%s: %w: it is the root of a file system; a data directory in a directory below that can be", x.place, ErrPlace)
	}
	return nil
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
	var st stage
	if text, err := os.ReadFile(s.path(stageName)); err == nil {
		if err := json.Unmarshal(text, &st); err != nil {
			st = stage{}
		}
	}
	if err := discard(x.fresh(), st.Tablespaces); err != nil {
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

// run does the work of InPlace. Until the swap a failure leaves all as it was by itself; from then on it is put back.
func (x *exchange) run(ctx context.Context, open Opener) (*Result, error) {
	b, stopped := x.build, false
	stop := func() error {
		if stopped || x.options.Stop == nil {
			return nil
		}
		stopped = true // whatever it did: what it has stopped must be started again
		return b.step(StepStop, func() error { return x.options.Stop(ctx) })
	}
	err := x.swap(ctx, open, stop)
	if err != nil {
		e := b.failure(err)
		x.takeBack(e)
		if stopped {
			e.Start = x.start(ctx)
		}
		return nil, e
	}
	if err := x.alive(ctx); err != nil {
		return nil, x.revert(ctx, err)
	}
	b.result.Safety = x.marker.Safety
	if x.marker.Old == (identity{}) {
		b.result.Safety = ""
	}
	x.leave()
	return b.result, nil
}

// swap builds the new cluster and puts it in its place.
func (x *exchange) swap(ctx context.Context, open Opener, stop func() error) error {
	b := x.build
	stamp := x.options.now().UTC().Format("20060102T150405Z")
	x.options.spacesBeside = "restored-" + stamp
	if x.options.StopFirst {
		if err := stop(); err != nil {
			return err
		}
	}
	if err := b.make(ctx, open, x.place); err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	if err := b.step(StepInUse, x.idle); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // the last moment at which it costs nothing
	}
	return b.step(StepSwap, func() error { return x.forward(stamp) })
}

// idle makes sure that no server runs on the data directory.
func (x *exchange) idle() error {
	if pid := pgserver.Postmaster(x.place); pid != 0 {
		return fmt.Errorf("%s: %w (process %d)", x.place, ErrInUse, pid)
	}
	if target, err := os.Readlink(filepath.Join(x.place, "pg_wal")); err == nil {
		x.build.result.Warnings = append(x.build.result.Warnings, fmt.Sprintf("pg_wal was a link to %s: in the restored cluster it is a directory", target))
	}
	return nil
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

// start starts the application, whether the restore was interrupted or not.
func (x *exchange) start(ctx context.Context) error {
	if x.options.Start == nil {
		return nil
	}
	return x.options.Start(context.WithoutCancel(ctx))
}

// alive starts the application and waits until it is well.
func (x *exchange) alive(ctx context.Context) error {
	if x.options.Start != nil {
		if err := x.build.step(StepStart, func() error { return x.start(ctx) }); err != nil {
			return err
		}
	}
	if x.options.Healthy != nil {
		return x.build.step(StepHealth, func() error { return x.options.Healthy(ctx) })
	}
	return nil
}

// takeBack undoes a swap that did not come to its end, and removes what was made.
func (x *exchange) takeBack(e *StepError) {
	now, err := identify(x.place)
	if x.marker.Phase != "" && (err != nil || now != x.marker.Old) {
		if e.Back = x.back(); e.Back != nil {
			e.Safety = x.marker.Safety
			_ = x.lock.Close() // the marker stays: the next restore goes on with this
			return
		}
		e.Failed = x.marker.Failed
	} else if err := x.build.drop(); err != nil {
		e.Err = errors.Join(e.Err, fmt.Errorf("what was restored can't be removed: %w", err))
		_ = x.lock.Close() // the next restore removes it
		return
	}
	x.leave()
}

// revert puts the old cluster back because the application is not well with the new one.
func (x *exchange) revert(ctx context.Context, cause error) error {
	e := x.build.failure(cause)
	ctx = context.WithoutCancel(ctx)
	if x.options.Began != nil {
		x.options.Began(StepBack)
	}
	var hook error
	if x.options.Stop != nil {
		hook = x.options.Stop(ctx)
	}
	err := x.waitIdle()
	if err == nil {
		err = x.back()
	}
	if err != nil {
		e.Back, e.Safety = errors.Join(hook, err), x.marker.Safety
		_ = x.lock.Close() // the marker stays
	} else {
		e.Failed = x.marker.Failed
		x.leave()
	}
	e.Start = x.start(ctx)
	return e
}

// waitIdle gives a server that was told to stop a moment.
func (x *exchange) waitIdle() error {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		pid := pgserver.Postmaster(x.place)
		if pid == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %w (process %d)", x.place, ErrInUse, pid)
		}
	}
}

// Kept names what in-place restores have left beside a data directory.
func Kept(dir string) []string {
	list, err := filepath.Glob(strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir) + ".before-*")
	if err != nil {
		return nil
	}
	return list
}

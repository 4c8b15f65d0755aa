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
	pg "github.com/btcdecoded/holdfast/shared/postgres"
)

// build makes one data directory.
type build struct {
	dir     string
	options *Options
	src     *Source
	target  Target
	account pgserver.Account
	program string
	control *pg.Control
	spool   *spool
	lock    *os.File // of the spool; nil: not held
	own     bool     // the directory is this restore's
	feed    *feed
	server  *pgserver.Server
	result  *Result
	at      string // the step
	words   string // of the server, where that is what failed
}

// step does one step and notes how long it took.
func (b *build) step(name string, do func() error) error {
	b.at = name
	if b.options.Began != nil {
		b.options.Began(name)
	}
	if err := b.options.faulty(name); err != nil {
		return err
	}
	began := time.Now()
	err := do()
	b.result.Steps = append(b.result.Steps, Step{name, time.Since(began)})
	return err
}

// stage is what a spool tells of a restore that is under way, for who finds it.
type stage struct {
	Snapshot    string   `json:"snapshot"`
	Tablespaces []string `json:"tablespaces"`      // places that were empty, and are the restore's
	Paused      bool     `json:"paused,omitempty"` // it is with people, who may have made it their own
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
	text, err := os.ReadFile(s.path(stageName))
	if errors.Is(err, fs.ErrNotExist) && len(list) == 1 && list[0].Name() == spoolName {
		text, err = []byte("{}"), nil // it died right at its beginning
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, ErrExists)
	}
	lock, err := s.lock()
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }() // it goes with the directory
	var st stage
	if err := json.Unmarshal(text, &st); err != nil {
		return "", fmt.Errorf("%s: %w: %w", dir, ErrExists, err)
	}
	if st.Paused {
		return "", fmt.Errorf("%s: %w: a restore has left a server there, paused", dir, ErrExists)
	}
	if err := discard(dir, st.Tablespaces); err != nil {
		return "", err
	}
	return fmt.Sprintf("removed what an earlier restore to %s had left, which did not come to its end", dir), nil
}

// discard removes a data directory that a restore has made, with its server and its tablespaces.
func discard(dir string, tablespaces []string) error {
	if err := pgserver.EndStray(dir); err != nil {
		return err
	}
	err := pgserver.Clear(filepath.Join(dir, spoolName))
	for _, place := range tablespaces {
		err = errors.Join(err, os.RemoveAll(place))
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// places are the tablespaces' directories.
func (b *build) places() []string {
	var out []string
	for _, s := range b.result.Tablespaces {
		out = append(out, s.Place)
	}
	return out
}

// make makes the data directory and has it recover, up to a cluster that is proven, stopped and synced; with Pause up to a
// server that is paused. existing is the data directory whose owner counts; it may be empty.
func (b *build) make(ctx context.Context, open Opener, existing string) (err error) {
	b.at = StepPrepare
	if err := b.options.faulty(StepPrepare); err != nil {
		return err
	}
	if b.src, err = open(ctx); err != nil {
		return err
	}
	if err := b.src.Fits(b.options.Target); err != nil {
		return err
	}
	b.target = b.src.settle(b.options.Target)
	if b.program, err = b.options.Program(ctx, b.src.Major); err != nil {
		return err
	}
	if err := b.spaces(ctx); err != nil {
		return err
	}
	if err := b.mark(ctx, existing); err != nil {
		return err
	}
	if err := b.step(StepLayOut, func() error { return b.layOut(ctx) }); err != nil {
		return err
	}
	if err := b.recover(ctx); err != nil {
		return err
	}
	if b.options.Pause {
		return nil
	}
	return b.step(StepFinish, b.finish)
}

// mark makes the directory and says in it what it is.
func (b *build) mark(ctx context.Context, existing string) error {
	root, err := b.src.Base.Lookup(ctx, b.src.Root)
	if err != nil {
		return err
	}
	b.account, err = pgserver.Choose(b.options.RunAs, existing, pgserver.Account{UID: int(root.UID), GID: int(root.GID)})
	if err != nil {
		return err
	}
	b.result.Account = b.account
	if stopped, ok := b.account.Reaches(filepath.Dir(b.dir)); !ok {
		return fmt.Errorf("the server runs as %s, who may not enter %s", b.account.Name(), stopped)
	}
	if stopped, ok := b.account.Reaches(filepath.Dir(b.options.Fetch[0])); !ok {
		return fmt.Errorf("the server runs as %s, who may not enter %s: it fetches its WAL with %s", b.account.Name(), stopped, b.options.Fetch[0])
	}
	plan, err := b.src.plan(b.target)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.dir), 0o755); err != nil { //nolint:gosec // like mkdir -p; the directory has its own mode
		return err
	}
	if err := os.Mkdir(b.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := b.account.Give(b.dir); err != nil {
		return err
	}
	b.spool = &spool{dir: filepath.Join(b.dir, spoolName), account: b.account}
	if err := b.spool.create(); err != nil {
		return err
	}
	if b.lock, err = b.spool.lock(); err != nil {
		return err
	}
	b.own = true
	if err := b.note(false); err != nil {
		return err
	}
	if err := b.spool.writePlan(plan); err != nil {
		return err
	}
	b.feed = newFeed(b.src.Log, plan, b.spool)
	return b.histories()
}

// note writes how far the restore is.
func (b *build) note(paused bool) error {
	text, err := json.Marshal(stage{Snapshot: b.src.ID, Tablespaces: b.places(), Paused: paused})
	if err != nil {
		return err
	}
	return b.spool.write(stageName, text)
}

// histories puts the history files into the spool.
func (b *build) histories() error {
	if b.src.Log == nil {
		return nil
	}
	for timeline, text := range b.src.Log.Histories {
		if err := b.spool.write(filepath.Join(keepName, pg.HistoryName(timeline)), text); err != nil {
			return err
		}
	}
	return nil
}

// finish makes a promoted and stopped cluster one like any other.
func (b *build) finish() error {
	if b.options.scratch {
		return nil
	}
	if err := b.tidy(); err != nil {
		return err
	}
	for _, dir := range append(b.places(), b.dir) {
		if err := syncFileSystem(dir); err != nil {
			return err
		}
	}
	// Now it is one: what says that it is not goes last.
	if err := b.lock.Close(); err != nil {
		return err
	}
	b.lock = nil
	if err := errors.Join(pgserver.Clear(b.spool.dir), os.RemoveAll(b.spool.dir)); err != nil {
		return err
	}
	return syncDirectory(b.dir)
}

// tidy takes out what was there for the recovery.
func (b *build) tidy() error {
	err := b.editAuto(func(text string) string {
		text = removeSettings(text)
		if mode, ok := b.archives(text); ok && mode != "off" && !b.options.inPlace {
			b.result.Warnings = append(b.result.Warnings, fmt.Sprintf("archive_mode was %s: it is off in the restored cluster, so that it does not archive into what is production's; `ALTER SYSTEM RESET archive_mode` where it becomes that", mode))
			text = strings.TrimRight(text, "\n") + "\narchive_mode = 'off'\n"
			text = strings.TrimPrefix(text, "\n")
		}
		return text
	})
	for _, name := range []string{standbyFile, recoveryFile, labelFile + ".old", mapFile + ".old", "postmaster.opts"} {
		if e := os.Remove(filepath.Join(b.dir, name)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// archives finds whether the cluster's own settings, as far as they are in the data directory, let it archive.
func (b *build) archives(auto string) (string, bool) {
	if mode, ok := lookupSetting(auto, "archive_mode"); ok {
		return mode, true
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "postgresql.conf"))
	if err != nil {
		return "", false // it is elsewhere, and stays there
	}
	return lookupSetting(string(text), "archive_mode")
}

// drop removes what was made, after a failure. The server is ended first.
func (b *build) drop() error {
	var err error
	if b.server != nil {
		err = b.server.Stop(false)
	}
	if b.own {
		err = errors.Join(err, discard(b.dir, b.places()))
	}
	if b.lock != nil {
		err = errors.Join(err, b.lock.Close())
		b.lock = nil
	}
	return err
}

func syncFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err = unix.Syncfs(int(d.Fd())); err != nil { //nolint:gosec // a descriptor
		err = &os.PathError{Op: "sync", Path: dir, Err: err}
	}
	return errors.Join(err, d.Close())
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

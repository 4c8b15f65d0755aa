package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
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
	disk    *disk // nil: it is a scratch cluster, which is not synced
	spool   *spool
	lock    *os.File    // of the spool; nil: not held
	own     bool        // the directory is this restore's
	before  fs.FileInfo // of the directory where it was there, empty; nil: it was not
	plan    *Plan
	feed    *feed
	server  *pgserver.Server
	raised  map[string]uint64 // settings of which the primary had more later on
	result  *Result
	course  steps.Course
	words   string // of the server, where that is what failed

	subscribes bool // the cluster has subscriptions
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
	b.course.At = steps.Prepare
	if err := b.options.faulty(steps.Prepare); err != nil {
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
	if err := b.room(ctx); err != nil {
		return err
	}
	if err := b.mark(ctx, existing); err != nil {
		return err
	}
	if !b.options.scratch {
		if b.disk, err = openDisk(append(b.places(), b.dir)); err != nil {
			return err
		}
		defer b.disk.close()
	}
	if err := b.course.Do(StepLayOut, func() error { return b.layOut(ctx) }); err != nil {
		return err
	}
	b.disk.begin() // the processors recover meanwhile
	if err := b.recover(ctx); err != nil {
		return err
	}
	if b.options.Pause {
		return nil
	}
	return b.course.Do(StepFinish, b.finish)
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
	if stopped, ok := b.account.Reaches(filepath.Dir(b.options.Fetch[0])); !ok {
		return fmt.Errorf("the server runs as %s, who may not enter %s: it fetches its WAL with %s", b.account.Name(), stopped, b.options.Fetch[0])
	}
	if b.plan, err = b.src.plan(b.target); err != nil {
		return err
	}
	if err := b.ways(); err != nil {
		return err
	}
	if b.before, err = os.Stat(b.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
	if err := b.spool.writePlan(b.plan); err != nil {
		return err
	}
	b.feed = newFeed(b.src.Log, b.plan, b.spool)
	return b.histories()
}

// ways makes what is missing above the directories, and refuses those that the server could not enter.
func (b *build) ways() error {
	for _, dir := range append(b.places(), b.dir) {
		if stopped, ok := b.account.Reaches(filepath.Dir(dir)); !ok {
			return fmt.Errorf("the server runs as %s, who may not enter %s", b.account.Name(), stopped)
		}
	}
	for _, dir := range append(b.places(), b.dir) {
		if err := pgserver.Way(filepath.Dir(dir), 0o755); err != nil { // like mkdir -p; the directory has its own mode
			return err
		}
	}
	return nil
}

// histories puts the history files into the spool.
func (b *build) histories() error {
	for timeline, text := range b.src.Histories {
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
	if err := b.disk.sync(); err != nil {
		return err
	}
	// Now it is one: what says that it is not goes last.
	if err := b.lock.Close(); err != nil {
		return err
	}
	b.lock = nil
	if err := errors.Join(pgserver.Clear(b.spool.dir), os.RemoveAll(b.spool.dir)); err != nil {
		return err
	}
	return inplace.Sync(b.dir)
}

// tidy takes out what was there for the recovery.
func (b *build) tidy() error {
	err := b.editAuto(func(text string) string {
		text = removeSettings(text)
		if b.options.inPlace {
			return text
		}
		for _, s := range b.apart(text) {
			text = strings.TrimRight(text, "\n") + "\n" + s.Name + " = " + quote(s.Value) + "\n"
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

// apart are settings of a cluster that is not in production's place, so that it does nothing to what is production's.
func (b *build) apart(auto string) []pgserver.Setting {
	var out []pgserver.Setting
	if missing(filepath.Join(b.dir, "postgresql.conf")) {
		b.warn("postgresql.conf, and it may be pg_hba.conf, were outside of the data directory and are not in the backup: it is started with `-c config_file=` one that fits")
	}
	mode, known := b.archives(auto)
	if !known || mode != "off" {
		was := "was " + mode
		if !known {
			was = "may be set in a file that the backup does not have"
		}
		b.warn("archive_mode %s: it is off in the restored cluster, so that it does not archive into what is production's; `ALTER SYSTEM RESET archive_mode` where it becomes that", was)
		out = append(out, pgserver.Setting{Name: "archive_mode", Value: "off"})
	}
	if b.subscribes {
		b.warn("it subscribes to publications: max_logical_replication_workers is 0 in the restored cluster, so that it does not take what is for production's; `ALTER SYSTEM RESET max_logical_replication_workers` where it becomes that")
		out = append(out, pgserver.Setting{Name: "max_logical_replication_workers", Value: "0"})
	}
	return out
}

func (b *build) warn(format string, args ...any) {
	b.result.Warnings = append(b.result.Warnings, fmt.Sprintf(format, args...))
}

// archives finds whether the cluster's own settings let it archive; false: they are elsewhere, as Debian has them.
func (b *build) archives(auto string) (mode string, known bool) {
	if mode, ok := lookupSetting(auto, "archive_mode"); ok {
		return mode, true
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "postgresql.conf"))
	if err != nil {
		return "", false
	}
	for _, name := range []string{"include", "include_dir", "include_if_exists"} {
		if _, ok := lookupSetting(string(text), name); ok {
			return "", false
		}
	}
	if mode, ok := lookupSetting(string(text), "archive_mode"); ok {
		return mode, true
	}
	return "off", true
}

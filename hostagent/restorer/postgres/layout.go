package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Names in a data directory.
const (
	spacesDir    = "pg_tblspc"
	autoConf     = "postgresql.auto.conf"
	labelFile    = "backup_label"
	mapFile      = "tablespace_map"
	standbyFile  = "standby.signal"
	recoveryFile = "recovery.signal"
	controlFile  = "global/pg_control"
)

// Tablespace is one of the restored cluster.
type Tablespace struct {
	OID   uint32 `json:"oid"`
	From  string `json:"from"`  // where it was
	Place string `json:"place"` // where it is
}

// ErrBase says that a snapshot is not the base backup of a cluster.
var ErrBase = errors.New("it does not hold a base backup of a PostgreSQL cluster")

// dropped reports what of a data directory is not restored: it belongs to a server that ran, or to its replicas. The
// content of such directories goes, they stay.
func dropped(rel string) bool {
	switch rel {
	case "postmaster.pid", "postmaster.opts", standbyFile, recoveryFile, spoolName:
		return true
	}
	for _, dir := range []string{"pg_replslot/", "pg_wal/archive_status/", "pg_wal/summaries/", "pg_stat_tmp/", "pg_dynshmem/", spoolName + "/"} {
		if strings.HasPrefix(rel, dir) {
			return true
		}
	}
	return false
}

// spaceOf is the OID of the tablespace that a path below the data directory lies in; 0: none.
func spaceOf(rel string) uint32 {
	rest, ok := strings.CutPrefix(rel, spacesDir+"/")
	if !ok {
		return 0
	}
	number, _, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// without is a snapshot without the entries below root for which skip holds.
type without struct {
	restorer.Snapshot
	root string
	skip func(rel string) bool
}

// Entries yields the entries that are not skipped.
func (w without) Entries(ctx context.Context, from string) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range w.Snapshot.Entries(ctx, from) {
			if err == nil && e.Path != w.root && w.skip(strings.TrimPrefix(strings.TrimPrefix(e.Path, w.root), "/")) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// spaces reads which tablespaces the snapshot has, and decides where they go.
func (b *build) spaces(ctx context.Context) error {
	src := b.src
	text, err := readFile(ctx, src.Base, path.Join(src.Root, mapFile))
	if err != nil {
		return err
	}
	was, err := pg.ParseTablespaceMap(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBase, err)
	}
	used := map[string]bool{}
	for _, w := range was {
		place, err := b.spacePlace(w)
		if err != nil {
			return err
		}
		used[w.Location] = true
		b.result.Tablespaces = append(b.result.Tablespaces, Tablespace{OID: w.OID, From: w.Location, Place: place})
	}
	for from := range b.options.Tablespaces {
		if !used[from] {
			return fmt.Errorf("the snapshot has no tablespace at %s: it has %s", from, locations(was))
		}
	}
	for i, s := range b.result.Tablespaces {
		if slices.ContainsFunc(b.result.Tablespaces[:i], func(o Tablespace) bool { return o.Place == s.Place }) {
			return fmt.Errorf("two tablespaces would go to %s", s.Place)
		}
	}
	return nil
}

func locations(all []pg.Tablespace) string {
	if len(all) == 0 {
		return "none"
	}
	var out []string
	for _, s := range all {
		out = append(out, s.Location)
	}
	return strings.Join(out, ", ")
}

// SpaceError says that a tablespace can't go to where it was.
type SpaceError struct{ From string }

func (e *SpaceError) Error() string {
	return fmt.Sprintf("the tablespace at %s can't be restored there: it is not empty", e.From)
}

// Hint says what to do.
func (e *SpaceError) Hint() string {
	return fmt.Sprintf("--tablespace-mapping %s=DIR sends it to another place", e.From)
}

// spacePlace is where a tablespace goes.
func (b *build) spacePlace(was pg.Tablespace) (string, error) {
	place := was.Location
	mapped, ok := b.options.Tablespaces[was.Location]
	switch {
	case ok:
		place = filepath.Clean(mapped)
		if !filepath.IsAbs(place) {
			return "", fmt.Errorf("the place of a tablespace, %s, must be absolute", mapped)
		}
	case b.options.spacesBelow != "":
		return filepath.Join(b.options.spacesBelow, strconv.FormatUint(uint64(was.OID), 10)), nil
	}
	list, err := os.ReadDir(place)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(list) == 0:
		return place, nil
	case err != nil:
		return "", err
	case ok || b.options.spacesBeside == "":
		return "", &SpaceError{From: place}
	}
	return besidePlace(place, b.options.spacesBeside)
}

// besidePlace is a new place on the same file system: the old tablespace belongs to the old data directory, and both stay
// as they are together.
func besidePlace(place, suffix string) (string, error) {
	var own, above unix.Stat_t
	if err := unix.Stat(place, &own); err != nil {
		return "", &os.PathError{Op: "stat", Path: place, Err: err}
	}
	if err := unix.Stat(filepath.Dir(place), &above); err != nil {
		return "", &os.PathError{Op: "stat", Path: filepath.Dir(place), Err: err}
	}
	if own.Dev != above.Dev {
		return filepath.Join(place, suffix), nil // a file system of its own
	}
	return place + "." + suffix, nil
}

// layOut writes the data directory, up to where a server can be started on it.
func (b *build) layOut(ctx context.Context) error {
	src := b.src
	options := restorer.Options{Target: b.dir}
	// What lies in the data directory itself under the name of a tablespace, and is in no map, is a tablespace "in place".
	apart := func(oid uint32) bool {
		return slices.ContainsFunc(b.result.Tablespaces, func(s Tablespace) bool { return s.OID == oid })
	}
	own := without{src.Base, src.Root, func(rel string) bool { return dropped(rel) || apart(spaceOf(rel)) }}
	if err := b.write(ctx, own, options); err != nil {
		return err
	}
	for _, s := range b.result.Tablespaces {
		from := path.Join(src.Root, spacesDir, strconv.FormatUint(uint64(s.OID), 10))
		all := without{src.Base, src.Root, dropped}
		if err := b.write(ctx, all, restorer.Options{Select: []string{from}, Target: s.Place}); err != nil {
			return err
		}
		if err := errors.Join(os.Chmod(s.Place, 0o700), b.account.GiveAll(s.Place)); err != nil { //nolint:gosec // a directory
			return err
		}
	}
	if err := b.complete(); err != nil {
		return err
	}
	if err := b.check(); err != nil {
		return err
	}
	return b.account.GiveAll(b.dir)
}

// hasWithin reports whether there are tablespaces that lie in the data directory itself.
func (b *build) hasWithin() bool {
	list, err := os.ReadDir(filepath.Join(b.dir, spacesDir))
	return err == nil && slices.ContainsFunc(list, func(e fs.DirEntry) bool { return e.IsDir() && spaceOf(spacesDir+"/"+e.Name()) != 0 })
}

// write restores a part of the snapshot.
func (b *build) write(ctx context.Context, snap restorer.Snapshot, o restorer.Options) error {
	o.Temp, o.Unsynced = b.options.Temp, true // the server writes to it next; all is synced at the end
	result, err := restorer.Restore(ctx, snap, o, b.options.Progress)
	b.result.Files += result.Files
	b.result.Bytes += result.Bytes
	b.result.Written += result.Written
	switch {
	case err != nil:
		return err
	case len(result.Problems) > 0:
		p := result.Problems[0]
		return fmt.Errorf("%w: %d files could not be restored; the first is %s: %s: %w", ErrIncomplete, result.Failed, p.Path, p.Operation, p.Err)
	case result.Failed > 0:
		return ErrIncomplete
	}
	return nil
}

// complete makes what a base backup leaves out, and the tablespaces' links.
func (b *build) complete() error {
	for _, dir := range []string{
		"pg_replslot", "pg_wal", "pg_wal/archive_status", "pg_stat_tmp", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots",
		"pg_subtrans", spacesDir, "pg_twophase", "pg_commit_ts", "pg_stat",
	} {
		if err := os.MkdirAll(filepath.Join(b.dir, dir), 0o700); err != nil {
			return err
		}
	}
	mode := fs.FileMode(0o700)
	if st, err := os.Stat(b.dir); err == nil && st.Mode().Perm() == 0o750 {
		mode = 0o750 // for those who back it up as a member of its group
	}
	if err := os.Chmod(b.dir, mode); err != nil {
		return err
	}
	var moved []pg.Tablespace
	for _, s := range b.result.Tablespaces {
		link := filepath.Join(b.dir, spacesDir, strconv.FormatUint(uint64(s.OID), 10))
		if err := os.RemoveAll(link); err != nil {
			return err
		}
		if err := os.Symlink(s.Place, link); err != nil {
			return err
		}
		moved = append(moved, pg.Tablespace{OID: s.OID, Location: s.Place})
	}
	if len(moved) == 0 {
		return nil
	}
	// The server makes the links by this file, not by what is there.
	return os.WriteFile(filepath.Join(b.dir, mapFile), pg.AppendTablespaceMap(nil, moved), 0o600)
}

// check looks whether it is the base backup that the manifest speaks of.
func (b *build) check() error {
	text, err := os.ReadFile(filepath.Join(b.dir, controlFile))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBase, err)
	}
	if b.control, err = pg.ParseControl(text); err != nil {
		return fmt.Errorf("%w: %w", ErrBase, err)
	}
	version, err := os.ReadFile(filepath.Join(b.dir, "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBase, err)
	}
	label, err := os.ReadFile(filepath.Join(b.dir, labelFile))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBase, err)
	}
	l, err := pg.ParseLabel(label)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBase, err)
	}
	major := strings.TrimSpace(string(version))
	// What was committed before the checkpoint is in the files, and nothing would stop before it. A snapshot's time is that of
	// the host that made it; the checkpoint's is by the clock of those who commit.
	if t := b.options.Target; t.Kind == Time && t.Time.Before(b.control.CheckpointTime) {
		return &TargetError{
			Target: t, Reason: "by the cluster's own clock the snapshot began only at " + stamp(b.control.CheckpointTime) + ": that clock and the one of the host that made the backup differ",
			Near: "take an older snapshot (SOURCE@N), or name an --lsn, which needs no clock; and set the clocks",
		}
	}
	switch {
	case b.control.System != b.src.System:
		return fmt.Errorf("%w: it is of system %d, its manifest of %d", ErrBase, b.control.System, b.src.System)
	case major != strconv.Itoa(b.src.Major):
		return fmt.Errorf("%w: it is of version %s, its manifest of %d", ErrBase, major, b.src.Major)
	case l.Start != b.src.Start || l.Timeline != 0 && l.Timeline != b.src.Timeline:
		return fmt.Errorf("%w: it begins at %s on timeline %d, its manifest at %s on timeline %d", ErrBase, l.Start, l.Timeline, b.src.Start, b.src.Timeline)
	case b.src.Log != nil && b.src.Log.Segment != uint64(b.control.SegmentSize):
		return fmt.Errorf("%w: its WAL segments have %d bytes, those of the log %d", ErrBase, b.control.SegmentSize, b.src.Log.Segment)
	}
	return nil
}

// prepare writes what makes a server recover to the target.
func (b *build) prepare(t Target) error {
	if b.plan.Segment == 0 { // no log told it
		b.plan.Segment = uint64(b.control.SegmentSize)
		if err := b.spool.writePlan(b.plan); err != nil {
			return err
		}
	}
	// Also without a log, so that no other tool's is called, and for the histories.
	settings := append(t.settings(b.src.timeline()), pgserver.Setting{Name: "restore_command", Value: b.command()})
	if b.options.Pause {
		settings = append(settings, pgserver.Setting{Name: "archive_mode", Value: "off"}) // whoever makes it their own
	}
	if err := b.editAuto(func(text string) string { return addSettings(text, settings) }); err != nil {
		return err
	}
	// A standby never promotes by itself, whatever restore_command says and wherever the WAL ends.
	signal := filepath.Join(b.dir, standbyFile)
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return err
	}
	return b.account.Give(signal)
}

// editAuto changes postgresql.auto.conf at once.
func (b *build) editAuto(edit func(text string) string) error {
	at := filepath.Join(b.dir, autoConf)
	text, err := os.ReadFile(at) //nolint:gosec // in the data directory
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	changed := edit(string(text))
	if changed == string(text) {
		return nil
	}
	if err := os.WriteFile(at+".new", []byte(changed), 0o600); err != nil {
		return err
	}
	return errors.Join(b.account.Give(at+".new"), os.Rename(at+".new", at))
}

// command is restore_command: a segment that waits in the spool of this boot is taken without more ado, and one that is just
// being written is waited for, a second at most; all else is asked for. mv and sleep are a tenth of the time that this
// program takes to start, and the server waits for each.
//
// It is run by a shell in the data directory. The file in /proc and not a fixed name: what was written before the machine
// crashed may be torn.
func (b *build) command() string {
	escape := func(s string) string {
		return "'" + strings.NewReplacer("'", `'\''`, "%", "%%").Replace(s) + "'"
	}
	fetch := make([]string, 0, len(b.options.Fetch))
	for _, arg := range b.options.Fetch {
		fetch = append(fetch, escape(arg))
	}
	return fmt.Sprintf(`read -r b </proc/sys/kernel/random/boot_id; d="%[1]s/%[2]s$b"; i=0; until mv -f "$d/%%f" "%%p" 2>/dev/null; do `+
		`[ -e "$d/%%f%[3]s" ] && [ $((i=i+1)) -le 100 ] && sleep 0.01 || exec %[4]s "%[1]s/%[5]s" "%%f" "%%p"; done`,
		spoolName, readyName, unfinishedSuffix, strings.Join(fetch, " "), planName)
}

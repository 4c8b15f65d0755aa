package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/source/files"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// fetchWord makes the test's program do what the command line does as `wal-fetch`.
const fetchWord = "wal-fetch-of-a-test"

func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == fetchWord {
		os.Exit(fetchForTest(os.Args[2], os.Args[3], os.Args[4]))
	}
	if place := os.Getenv(killPlace); place != "" {
		os.Exit(restoreAndDie())
	}
	os.Exit(m.Run())
}

func fetchForTest(plan, name, to string) int {
	found, err := Fetch(context.Background(), plan, name, to, func(context.Context, *Plan) (*Log, error) {
		return nil, errors.New("the log is in another process")
	})
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 126
	case !found:
		return 1
	}
	return 0
}

// world is a cluster, its base backup and its log.
type world struct {
	*cluster.Server
	t       testing.TB
	src     Source
	records []Record
	shipped pg.LSN // WAL up to here is in records
	size    uint64
	program string // of this test, where a server can run it
	place   string // directory for restores
	serial  uint64
	auto    string // more of the base's postgresql.auto.conf

	histories map[uint32][]byte
	store     string // directory of the repository
	identity  string // file
}

// newWorld makes a cluster with a table.
func newWorld(t testing.TB, o cluster.Options) *world {
	t.Helper()
	if o.SegmentSize == 0 {
		o.SegmentSize = 1
	}
	if o.Config == nil {
		o.Config = map[string]string{}
	}
	o.Config["wal_keep_size"] = "1GB"
	o.Checksums = true
	w := &world{Server: cluster.Start(t, o), t: t, size: uint64(o.SegmentSize) << 20} //nolint:gosec // small
	w.Psql("CREATE TABLE kept (n int, what text); CREATE EXTENSION IF NOT EXISTS plpgsql")
	w.program, w.place = reachableProgram(t, w.Owner), placeFor(t, w.Owner)
	return w
}

// placeFor is a directory in which the server's user may go.
func placeFor(t testing.TB, o *cluster.Owner) string { return o.Dir(t) }

// reachableProgram is a copy of the test's program that the server's user can run.
func reachableProgram(t testing.TB, o *cluster.Owner) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return o.Program(t, self, "holdfast")
}

// base makes the base backup and puts it into a repository. The log begins with the segment in which it begins.
func (w *world) base() {
	w.t.Helper()
	dir := filepath.Join(w.Owner.Dir(w.t), "base")
	w.CopyTo(w.t, dir)
	w.stored(dir)
}

// stored puts a base backup into a repository.
func (w *world) stored(dir string) {
	w.t.Helper()
	label, err := os.ReadFile(filepath.Join(dir, labelFile))
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := pg.ParseLabel(label)
	if err != nil {
		w.t.Fatal(err)
	}
	w.onlyItsWAL(dir, l)
	// What a server leaves and a backup over the protocol does not have.
	for _, name := range []string{"postgresql.auto.conf"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("# kept\nwork_mem = '5MB'\n"+w.auto), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	system, err := strconv.ParseUint(w.Psql("SELECT system_identifier FROM pg_control_system()"), 10, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	w.src = Source{
		ID: "host/db@1", Root: dir, System: system, Major: w.Version, Timeline: l.Timeline, Start: l.Start, Stop: w.flushed(), Time: w.now(),
	}
	w.src.Base = w.capture(dir)
	w.shipped = l.Start.SegmentStart(uint32(w.size)) //nolint:gosec // small
	w.ship()
}

// onlyItsWAL removes segments that a copy of a data directory has and a backup has not: of before its beginning, and such as
// were made for WAL to come.
func (w *world) onlyItsWAL(dir string, l *pg.Label) {
	w.t.Helper()
	first := pg.SegmentName(l.Timeline, l.Start.SegmentStart(uint32(w.size)), uint32(w.size))    //nolint:gosec // small
	last := pg.SegmentName(l.Timeline, w.flushed().SegmentStart(uint32(w.size)), uint32(w.size)) //nolint:gosec // small
	all, err := filepath.Glob(filepath.Join(dir, "pg_wal", strings.Repeat("[0-9A-F]", len(first))))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, path := range all {
		if name := filepath.Base(path); name < first || name > last {
			if err := os.Remove(path); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// capture stores a directory and opens the snapshot.
func (w *world) capture(dir string) *repository.Snapshot {
	w.t.Helper()
	ctx := context.Background()
	id, err := keyring.NewIdentity()
	if err != nil {
		w.t.Fatal(err)
	}
	w.store, w.identity = filepath.Join(w.t.TempDir(), "repository"), filepath.Join(w.t.TempDir(), "identity")
	if err := errors.Join(os.Mkdir(w.store, 0o700), id.WriteFile(w.identity)); err != nil {
		w.t.Fatal(err)
	}
	store, err := file.Open(w.store)
	if err != nil {
		w.t.Fatal(err)
	}
	repo, err := repository.Init(ctx, store, id, id.Recipients(), time.Now().UTC())
	if err != nil {
		w.t.Fatal(err)
	}
	session, err := repo.Begin(ctx, repository.BeginOptions{Source: theSource, Kind: "files", State: w.t.TempDir(), Tool: "test", Now: time.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	captured, err := files.Capture(ctx, files.Options{Roots: []string{dir}}, session, silent{})
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = session.Commit(ctx, repository.Result{Roots: captured.Roots, Counts: captured.Counts, Problems: captured.Problems, Started: time.Now().UTC()})
	if err != nil {
		w.t.Fatal(err)
	}
	snap, err := openSnapshot(w.store, w.identity)
	if err != nil {
		w.t.Fatal(err)
	}
	return snap
}

var theSource = snapshot.Source{Host: "host", Name: "db"}

// openSnapshot opens what capture has stored, in whichever process.
func openSnapshot(dir, identity string) (*repository.Snapshot, error) {
	ctx := context.Background()
	id, err := keyring.LoadIdentity(identity)
	if err != nil {
		return nil, err
	}
	store, err := file.Open(dir)
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, store, id)
	if err != nil {
		return nil, err
	}
	all, err := repo.Manifests(ctx, theSource)
	if err != nil {
		return nil, err
	}
	return repo.Snapshot(ctx, all[len(all)-1])
}

type silent struct{}

func (silent) Add(uint64, uint64, uint64) {}
func (silent) Current(string)             {}

func (w *world) flushed() pg.LSN {
	w.t.Helper()
	l, err := pg.ParseLSN(w.Psql("SELECT pg_current_wal_flush_lsn()"))
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// now is the server's clock.
func (w *world) now() time.Time {
	w.t.Helper()
	micros, err := strconv.ParseInt(w.Psql("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"), 10, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	return time.UnixMicro(micros).UTC()
}

// insert commits a row and returns a moment after it.
func (w *world) insert(n int) time.Time {
	w.t.Helper()
	w.Psql(fmt.Sprintf("INSERT INTO kept VALUES (%d, 'row')", n))
	return w.now()
}

// bulk writes so many KiB of WAL at least.
func (w *world) bulk(kib int) {
	w.t.Helper()
	w.Psql(fmt.Sprintf("CREATE TABLE IF NOT EXISTS bulk (x text); ALTER TABLE bulk ALTER x SET STORAGE PLAIN; INSERT INTO bulk SELECT repeat(md5(i::text), 32) FROM generate_series(1, %d) i", kib))
}

// ship puts what was written since the last time into the log.
func (w *world) ship() {
	w.t.Helper()
	to := w.flushed()
	w.shipTo(to, w.now())
}

func (w *world) shipTo(to pg.LSN, at time.Time) {
	w.t.Helper()
	const most = 200 << 10
	timeline := w.src.Timeline
	if len(w.records) > 0 {
		timeline = w.records[len(w.records)-1].Timeline
	}
	for w.shipped < to {
		end := min(to, w.shipped.SegmentEnd(uint32(w.size)), w.shipped+most) //nolint:gosec // small
		name := pg.SegmentName(timeline, w.shipped, uint32(w.size))          //nolint:gosec // small
		f, err := os.Open(filepath.Join(w.Dir, "pg_wal", name))
		if err != nil {
			w.t.Fatal(err)
		}
		b := make([]byte, end-w.shipped)
		_, err = f.ReadAt(b, int64(uint64(w.shipped)%w.size)) //nolint:gosec // small
		_ = f.Close()
		if err != nil {
			w.t.Fatal(err)
		}
		w.serial++
		w.records = append(w.records, Record{Place: w.placeOf(w.serial), Time: at, Timeline: timeline, Start: w.shipped, WAL: b})
		w.shipped = end
	}
}

func (w *world) placeOf(n uint64) snapshot.LogPlace {
	return snapshot.LogPlace{Stream: "stream", Epoch: 1, Sequence: n}
}

// source is the base with the log as it is now.
func (w *world) source() *Source { return w.branch(1 << 31) }

// branch is the base with the log up to the end of a timeline.
func (w *world) branch(timeline uint32) *Source {
	s := w.src
	s.Histories = w.histories
	all := slices.DeleteFunc(slices.Clone(w.records), func(r Record) bool { return r.Timeline > timeline })
	last := all[len(all)-1]
	s.Log = &Log{
		From: w.placeOf(0), Timeline: last.Timeline, End: last.Start + pg.LSN(len(last.WAL)), Segment: w.size,
		Records: func(_ context.Context, after snapshot.LogPlace) iter.Seq2[Record, error] {
			return func(yield func(Record, error) bool) {
				for _, r := range all {
					if r.Place.Sequence > after.Sequence && !yield(r, nil) {
						return
					}
				}
			}
		},
	}
	return &s
}

func (w *world) opener() Opener {
	return func(context.Context) (*Source, error) { return w.source(), nil }
}

func (w *world) options(target Target) Options {
	return Options{
		Target: target, Fetch: []string{w.program, fetchWord},
		Program: func(context.Context, int) (string, error) { return filepath.Join(w.BinDir, "postgres"), nil },
		Temp:    w.t.TempDir(), Note: func(text string) { w.t.Log(text) }, RunAs: strconv.Itoa(w.Owner.UID),
	}
}

// restore restores to a new directory.
func (w *world) restore(target Target) (*Result, error) {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.place, "restored-")
	if err != nil {
		w.t.Fatal(err)
	}
	return ToDir(context.Background(), dir, w.opener(), w.options(target))
}

// rows starts a server on what was restored and gives the rows that it has.
func (w *world) rows(dir string) string {
	w.t.Helper()
	if w.auto != "" { // what it has would be in the way here too
		if err := os.WriteFile(filepath.Join(dir, autoConf), nil, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	s := cluster.Open(w.t, dir, cluster.Options{Superuser: w.Superuser})
	defer s.Stop("fast")
	return s.Psql("SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM kept")
}

// done checks what a finished data directory has, and has not.
func (w *world) done(r *Result) {
	w.t.Helper()
	for _, name := range []string{spoolName, standbyFile, recoveryFile, "postmaster.pid", labelFile} {
		if !missing(filepath.Join(r.Path, name)) {
			w.t.Errorf("%s is there", name)
		}
	}
	text, err := os.ReadFile(filepath.Join(r.Path, autoConf))
	if err != nil || string(text) != "# kept\nwork_mem = '5MB'\n" {
		w.t.Errorf("postgresql.auto.conf: %q, %v", text, err)
	}
	st, err := os.Stat(r.Path)
	if err != nil || st.Mode().Perm() != 0o700 {
		w.t.Errorf("%v, %v", st.Mode(), err)
	}
}

// gone checks that a failed restore has left nothing.
func (w *world) gone(err error, dir string) *StepError {
	w.t.Helper()
	var e *StepError
	if !errors.As(err, &e) {
		w.t.Fatalf("%v", err)
	}
	list, _ := os.ReadDir(dir)
	if len(list) > 0 {
		w.t.Errorf("%s is still there", e.Path)
	}
	if pid := pgserver.Postmaster(e.Path); pid != 0 {
		w.t.Errorf("a server runs: %d", pid)
	}
	return e
}

// flip changes bytes of WAL amid a record. Up to 7 between two records of WAL are nothing, and nobody looks at them.
func flip(r *Record) {
	r.WAL = append([]byte(nil), r.WAL...)
	for at := range r.WAL[:16] {
		r.WAL[len(r.WAL)/2+at] ^= 0x40
	}
}

func (w *world) toDir(dir string, target Target) (*Result, error) {
	return ToDir(context.Background(), dir, w.opener(), w.options(target))
}

// follow goes on with another timeline: its history, then WAL from the segment in which it begins.
func (w *world) follow(timeline uint32) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.Dir, "pg_wal", pg.HistoryName(timeline)))
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := pg.ParseHistory(timeline, text)
	if err != nil {
		w.t.Fatal(err)
	}
	_, at := h.Parent()
	w.histories = map[uint32][]byte{timeline: text}
	w.serial++
	w.records = append(w.records, Record{Place: w.placeOf(w.serial), Time: w.now(), Timeline: timeline, History: text})
	w.shipped = at.SegmentStart(uint32(w.size)) //nolint:gosec // small
}

// baseByProgram is base by pg_basebackup, with the tablespaces as they are in snapshots.
func (w *world) baseByProgram(spaces ...string) {
	w.t.Helper()
	dir := filepath.Join(w.Owner.Dir(w.t), "base")
	args := []string{"-D", dir, "-X", "fetch", "-c", "fast", "-d", w.DSN("postgres")}
	for i, s := range spaces {
		args = append(args, "-T", fmt.Sprintf("%s=%s.%d", s, dir, i))
	}
	w.Run("pg_basebackup", args...)
	var all []pg.Tablespace
	for i := range spaces {
		links, err := filepath.Glob(filepath.Join(dir, spacesDir, "*"))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && to == fmt.Sprintf("%s.%d", dir, i) {
				oid, err := strconv.ParseUint(filepath.Base(link), 10, 32)
				if err := errors.Join(err, os.Remove(link), os.Rename(to, link)); err != nil {
					w.t.Fatal(err)
				}
				all = append(all, pg.Tablespace{OID: uint32(oid), Location: spaces[i]})
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, mapFile), pg.AppendTablespaceMap(nil, all), 0o600); err != nil { // as the server sends it
		w.t.Fatal(err)
	}
	w.stored(dir)
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestOddCluster restores a cluster of which many things are as few have them, and all of them are allowed: another superuser,
// large segments, a transaction with so many subtransactions that nobody can read the recovering server, what another tool's
// recovery has left in postgresql.auto.conf, limits that are for applications, unlogged tables, and a primary that gets more
// connections later on.
func TestOddCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{Superuser: "governance_user", SegmentSize: 64})
	w.auto = "recovery_target_time = '2001-01-01 00:00:00+00'\nrestore_command = 'false'\nstatement_timeout = '1ms'\ndefault_transaction_read_only = 'on'\n"
	w.Psql("CREATE UNLOGGED TABLE lost (n int); INSERT INTO lost VALUES (1); CREATE TABLE under (n int)")
	c, err := pgconn.Connect(context.Background(), w.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	var many strings.Builder
	many.WriteString("BEGIN;")
	for n := range 100 { // a backend remembers 64
		fmt.Fprintf(&many, "SAVEPOINT s%d; INSERT INTO under VALUES (%d);", n, n)
	}
	if _, err := c.Exec(context.Background(), many.String()).ReadAll(); err != nil {
		t.Fatal(err)
	}
	w.base()
	at := w.insert(2)
	w.ship()
	w.insert(3)
	w.ship()
	t.Run("alone", func(t *testing.T) { testAlone(t, w) })
	for target, rows := range map[Target]string{{Kind: Time, Time: at}: "2", {Kind: Time, Time: w.now().Add(time.Hour)}: "2,3", {Kind: Latest}: "2,3"} {
		r, err := w.restore(target)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if got := w.rows(r.Path); got != rows || r.Reached.Now != 2 {
			t.Errorf("%s: rows %s, want %s: %+v", target, got, rows, r.Reached)
		}
		if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "1 unlogged") {
			t.Errorf("%q", r.Warnings)
		}
	}
	o := w.options(Target{Kind: Time, Time: at})
	o.Pause = true
	dir := filepath.Join(w.place, "paused")
	if _, err := ToDir(context.Background(), dir, w.opener(), o); !errors.Is(err, errNoPause) || !missing(dir) {
		t.Errorf("%v", err)
	}

	w.Psql("ALTER SYSTEM SET max_connections = 300")
	w.Restart()
	w.PsqlIn("template1", "DROP DATABASE postgres WITH (FORCE)")
	w.PsqlIn("template1", "CREATE DATABASE postgres")
	w.Psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (4)")
	w.ship()
	r, err := w.restore(Target{Kind: Latest})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.rows(r.Path); got != "4" {
		t.Errorf("%s, %+v", got, r)
	}
}

// testAlone restores a base without its log, which nobody can read while it recovers. Its timeline gets a number that none has.
func testAlone(t *testing.T, w *world) {
	r, err := ToDir(context.Background(), filepath.Join(w.place, "alone"), func(context.Context) (*Source, error) {
		s := w.src
		s.Stop = s.Start // as far as this test knows; the label tells the server
		s.Histories = map[uint32][]byte{2: []byte("1\t0/1\tsomebody else's\n")}
		return &s, nil
	}, w.options(Target{Kind: Latest}))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.rows(r.Path); got != "" || r.Reached.Now != 3 {
		t.Errorf("%q, %+v", got, r.Reached)
	}
}

// TestApart restores clusters beside production: they must not archive for it, nor take what is sent to it.
func TestApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{Config: map[string]string{"max_prepared_transactions": "4", "wal_level": "logical", "autovacuum": "off", "allow_in_place_tablespaces": "on"}})
	w.Psql("CREATE TABLESPACE within LOCATION ''")
	w.Psql("CREATE TABLE inside (n int) TABLESPACE within; INSERT INTO inside VALUES (5)")
	w.Psql("CREATE SUBSCRIPTION feed CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false)")
	w.Psql("ALTER SUBSCRIPTION feed SET (slot_name = 'other'); ALTER SUBSCRIPTION feed ENABLE")
	w.base()
	w.Psql("BEGIN; INSERT INTO kept VALUES (1, 'row'); PREPARE TRANSACTION 'open'")
	w.Psql("BEGIN; CREATE TABLE made (n int); INSERT INTO kept VALUES (2, 'row'); PREPARE TRANSACTION 'done'")
	w.Psql("SELECT pg_create_restore_point('before')") // which is flushed with the commit that follows
	w.Psql("COMMIT PREPARED 'done'")
	xid := w.Psql("SELECT max(xmin::text::bigint) FROM kept")
	w.ship()
	testLocate(t, w, xid)

	config := filepath.Join(w.src.Root, "postgresql.conf")
	for _, c := range []struct {
		name  string
		spoil func() error
		off   bool
	}{
		{"plain", func() error { return nil }, false},
		{"elsewhere", func() error { return os.Remove(config) }, true}, // as Debian has it
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		w.src.Base = w.capture(w.src.Root)
		r, err := w.restore(Target{Kind: Latest})
		if err != nil {
			t.Fatal(err)
		}
		auto, err := os.ReadFile(filepath.Join(r.Path, autoConf))
		if !c.off {
			o := cluster.Open(t, r.Path, cluster.Options{})
			if got := o.Psql("SELECT n FROM inside"); got != "5" {
				t.Errorf("in the tablespace within: %s", got)
			}
			o.Stop("fast")
		}
		_, off := lookupSetting(string(auto), "archive_mode")
		workers, _ := lookupSetting(string(auto), "max_logical_replication_workers")
		if err != nil || off != c.off || workers != "0" {
			t.Errorf("%s: %v\n%s", c.name, err, auto)
		}
		if all := strings.Join(r.Warnings, "\n"); !strings.Contains(all, "'open' in postgres") || !strings.Contains(all, "subscribes") || strings.Contains(all, "archive_mode may be") != c.off || strings.Contains(all, "config_file=") != c.off {
			t.Errorf("%s:\n%s", c.name, all)
		}
	}
	testMade(t, w)
}

// testMade recovers over WAL that makes a tablespace in a place where nothing is: what is thrown away leaves nothing there.
func testMade(t *testing.T, w *world) {
	place := filepath.Join(w.Owner.Dir(t), "made")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	w.Owner.Give(t, place)
	w.Psql("CREATE TABLESPACE made LOCATION '" + place + "'")
	w.Psql("CREATE TABLE there (n int) TABLESPACE made; INSERT INTO there VALUES (7)")
	w.ship()
	w.Stop("fast")
	if err := errors.Join(os.Rename(place, place+".away"), os.Mkdir(place, 0o700)); err != nil {
		t.Fatal(err)
	}
	w.Owner.Give(t, place)
	seen := ""
	o := w.options(Target{Kind: Latest})
	o.Prove = func(ctx context.Context, s *pgserver.Server) error {
		list, err := os.ReadDir(place)
		for _, e := range list {
			seen += e.Name()
		}
		return err
	}
	if _, err := Scratch(context.Background(), filepath.Join(w.place, "scratch"), w.opener(), o); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(place)
	if err != nil || len(list) > 0 || !strings.HasPrefix(seen, "PG_") {
		t.Errorf("%v is left, %v; %q was there", list, err, seen)
	}
}

// testLocate looks for transactions and restore points before anything is recovered.
func testLocate(t *testing.T, w *world, xid string) {
	var number uint64
	if _, err := fmt.Sscan(xid, &number); err != nil {
		t.Fatal(xid, err)
	}
	s := w.source()
	for _, c := range []struct {
		target Target
		found  bool
		near   string
	}{
		{Target{Kind: XID, XID: number}, true, ""}, // it was prepared
		{Target{Kind: XID, XID: number + 1<<32}, true, ""},
		{Target{Kind: Name, Name: "before"}, true, ""},
		{Target{Kind: Name, Name: "after"}, false, `"before" of `},
		{Target{Kind: XID, XID: number + 1000}, false, fmt.Sprintf("transaction %d, committed ", number)},
	} {
		got, err := s.Locate(t.Context(), c.target, 0, LocateMost)
		if err != nil || got.Found != c.found || !got.Sure || !strings.Contains(strings.Join(got.Near, "; "), c.near) {
			t.Errorf("%s: %+v, %v", c.target, got, err)
		}
		if before, err := s.Locate(t.Context(), c.target, got.At, LocateMost); c.found && (err != nil || before.Found || !before.Sure) {
			t.Errorf("%s: before itself: %+v, %v", c.target, before, err)
		}
	}
	if got, err := s.Locate(t.Context(), Target{Kind: Name, Name: "after"}, 0, 1); err != nil || got.Sure {
		t.Errorf("not all was read: %+v, %v", got, err)
	}
}

// huge is a base that has one file more, which fits nowhere.
type huge struct {
	restorer.Snapshot
	path string
}

func (h huge) Entries(ctx context.Context, from string) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range h.Snapshot.Entries(ctx, from) {
			if !yield(e, err) {
				return
			}
		}
		yield(&snapshot.Entry{Path: h.path, Type: snapshot.File, Size: 1 << 60}, nil)
	}
}

// testRoom refuses a base that does not fit before anything is touched.
func testRoom(t *testing.T, w *world) {
	dir := filepath.Join(w.place, "small", "data")
	_, err := ToDir(context.Background(), dir, func(context.Context) (*Source, error) {
		s := w.source()
		s.Base = huge{s.Base, s.Root + "/base/1/1"}
		return s, nil
	}, w.options(Target{Kind: Latest}))
	if !errors.Is(err, ErrRoom) || !missing(filepath.Dir(dir)) {
		t.Errorf("%v", err)
	}
}

// TestStops tells a stop at a target from one at another.
func TestStops(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		target Target
		words  string
		want   bool
	}{
		{Target{Kind: Time, Time: at}, "recovery stopping before commit of transaction 750, time 2026-01-02 03:04:06+00", true},
		{Target{Kind: Latest}, "recovery stopping before commit of transaction 750, time 2001-01-02 03:04:06+00", false},
		{Target{Kind: Time, Time: at}, `recovery stopping at restore point "x", time 2026-01-02 03:04:06+00`, false},
		{Target{Kind: Name, Name: "x"}, `recovery stopping at restore point "x", time 2026-01-02 03:04:06+00`, true},
		{Target{Kind: Name, Name: "x"}, `recovery stopping at restore point "xy", time 2026-01-02 03:04:06+00`, false},
		{Target{Kind: XID, XID: 1<<32 + 750}, "recovery stopping after commit of transaction 750, time 2026-01-02 03:04:06+00", true},
		{Target{Kind: XID, XID: 75}, "recovery stopping after commit of transaction 750, time 2026-01-02 03:04:06+00", false},
		{Target{Kind: LSN, LSN: 0x3000028}, `recovery stopping after WAL location (LSN) "0/3000028"`, true},
		{Target{Kind: Base}, "recovery stopping after reaching consistency", true},
		{Target{Kind: Base}, "", false},
	} {
		if got := c.target.stops(c.words); got != c.want {
			t.Errorf("%s: %q: %v", c.target, c.words, got)
		}
	}
}

// TestDied tells what ended a server: its host, or what it was given.
func TestDied(t *testing.T) {
	for words, want := range map[string]error{
		"FATAL:  could not write to file \"pg_wal/xlogtemp.1\": No space left on device": ErrHost,
		"LOG:  startup process (PID 7) was terminated by signal 9: Killed":               ErrHost,
		"FATAL:  could not restore file \"000000010000000000000003\" from archive":       ErrShort,
	} {
		s := &spool{dir: t.TempDir(), account: pgserver.Self()}
		log := filepath.Join(s.dir, "log")
		if err := os.WriteFile(log, []byte("2026-01-02 03:04:05.678 UTC "+words+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		b := &build{spool: s, feed: newFeed(nil, &Plan{}, s), server: &pgserver.Server{Log: log}}
		if err := b.died(nil); !errors.Is(err, want) || errors.Is(err, ErrHost) == errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", words, err)
		}
		// Where the log could not be read, that is what ended it.
		gone := errors.New("connection refused")
		b.feed.err = gone
		if err := b.died(nil); !errors.Is(err, gone) || errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", words, err)
		}
	}
	text := "LOG:  hot standby is not possible because of insufficient parameter settings\nDETAIL:  max_connections = 200 is a lower setting than on the primary server, where its value was 300.\n" +
		"FATAL:  hot standby is not possible because max_locks_per_transaction = 128 is a lower setting than on the master server (its value was 256)\n"
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &build{server: &pgserver.Server{Log: log}}
	if !b.raise() || b.raise() || b.raisedWords() != "max_connections = 300, max_locks_per_transaction = 256" {
		t.Errorf("%v", b.raised)
	}
}

// TestStage believes nobody who could make root remove what is not a restore's.
func TestStage(t *testing.T) {
	s := &spool{dir: t.TempDir(), account: pgserver.Self()}
	b := &build{spool: s, src: &Source{ID: "db@1"}, result: &Result{Tablespaces: []Tablespace{{OID: 1, Place: "/space"}}}}
	if err := b.note(false); err != nil {
		t.Fatal(err)
	}
	st, err := s.readStage()
	if err != nil || len(st.Tablespaces) != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if os.Geteuid() != 0 {
		return // whoever else wrote there could remove it too
	}
	if err := os.Chown(s.path(stageName), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if st, err = s.readStage(); err != nil || len(st.Tablespaces) != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

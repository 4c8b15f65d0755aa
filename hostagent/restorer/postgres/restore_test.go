package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestTargets restores one cluster to every kind of target, on each version.
func TestTargets(t *testing.T) {
	for _, v := range cluster.Versions(t) {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, cluster.Options{Version: v})
			w.insert(1)
			w.base()
			w.insert(2)
			w.ship()
			between := w.insert(3)
			w.ship()
			w.Psql("DELETE FROM kept WHERE n = 1")
			w.bulk(3 << 10)
			w.ship()
			lsn := w.flushed()
			w.Psql("SELECT pg_create_restore_point('before the mistake')")
			xid := w.Psql("BEGIN; INSERT INTO kept VALUES (4, 'row'); SELECT txid_current() % (2^32)::bigint; COMMIT")
			w.Psql("DELETE FROM kept WHERE n = 2")
			w.ship()
			late := w.now()
			var number uint64
			if _, err := fmt.Sscan(xid, &number); err != nil {
				t.Fatal(xid, err)
			}
			for i, c := range []struct {
				target Target
				rows   string
			}{
				{Target{Kind: Latest}, "3,4"},
				{Target{Kind: Time, Time: between}, "1,2,3"},
				{Target{Kind: Time, Time: late}, "3,4"},
				{Target{Kind: LSN, LSN: lsn}, "2,3"},
				{Target{Kind: XID, XID: number}, "2,3,4"},
				{Target{Kind: XID, XID: number, Exclusive: true}, "2,3"},
				{Target{Kind: Name, Name: "before the mistake"}, "2,3"},
			} {
				if i > 1 && v != cluster.System(t) {
					break // the targets are the server's; that all work is shown on one version
				}
				r, err := w.restore(c.target)
				if err != nil {
					t.Errorf("%s: %v", c.target, err)
					continue
				}
				if r.Reached.Now != 2 || r.Reached.LSN < w.src.Stop || len(r.Warnings) > 0 {
					t.Errorf("%s: %+v, %q", c.target, r.Reached, r.Warnings)
				}
				w.done(r)
				if got := w.rows(r.Path); got != c.rows {
					t.Errorf("%s: rows %s, want %s; %s", c.target, got, c.rows, r.Reached.Words)
				}
			}
		})
	}
}

// TestOneCluster is what does not change a cluster or its log: they are made once.
func TestOneCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{})
	w.base()
	at := w.insert(2)
	w.ship()
	t.Run("refused", func(t *testing.T) { testRefused(t, w) })
	t.Run("clock", func(t *testing.T) { testClock(t, w) })
	t.Run("scratch", func(t *testing.T) { testScratch(t, w) })
	w.insert(3)
	w.ship()
	t.Run("pause", func(t *testing.T) { testPause(t, w, at) })
	t.Run("killed", func(t *testing.T) { testKilled(t, w) })
}

// testRefused asks for targets that can't be had: nothing is touched.
func testRefused(t *testing.T, w *world) {
	for _, target := range []Target{
		{Kind: Time, Time: w.src.Time.Add(-time.Second)},
		{Kind: LSN, LSN: w.src.Stop - 8},
		{Kind: LSN, LSN: w.flushed() + 1<<20},
		{Kind: LSN},
		{Kind: XID, XID: 2},
		{Kind: Name},
	} {
		_, err := w.restore(target)
		var refused *TargetError
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", target, err)
			continue
		}
		t.Log(refused, "/", refused.Hint())
	}
	// What only the log can tell.
	for _, target := range []Target{{Kind: Name, Name: "nobody made it"}} {
		dir := filepath.Join(w.place, "was there")
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		_, err := w.toDir(dir, target)
		if !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", target, err)
		} else {
			t.Log(err)
		}
		w.gone(err, dir)
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o750 {
			t.Errorf("the directory that was there: %v, %v", st, err)
		}
	}
	testRoom(t, w)
}

// TestDamage takes pieces out of the log, cuts, empties and alters them: recovery ends and says where, and never promotes.
func TestDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{})
	w.base()
	for n := range 4 {
		w.insert(n)
		w.bulk(1 << 10)
		w.ship()
	}
	end := w.insert(9)
	w.ship()
	whole := w.records
	// Small ones, as where the server had just flushed, are no measure for what is cut and altered.
	amid := len(whole) / 2
	for len(whole[amid].WAL) < 64<<10 {
		amid++
	}
	for name, spoil := range map[string]func([]Record) []Record{
		"missing":  func(r []Record) []Record { return append(r[:amid:amid], r[amid+1:]...) },
		"cut":      func(r []Record) []Record { r[amid].WAL = r[amid].WAL[:100]; return r },
		"zeros":    func(r []Record) []Record { r[amid].WAL = make([]byte, len(r[amid].WAL)); return r },
		"altered":  func(r []Record) []Record { flip(&r[amid]); return r },
		"swapped":  func(r []Record) []Record { r[amid].WAL, r[amid+1].WAL = r[amid+1].WAL, r[amid].WAL; return r },
		"repeated": func(r []Record) []Record { return append(r[:amid+1:amid+1], r[amid:]...) },
	} {
		w.records = spoil(append([]Record(nil), whole...))
		target := Target{Kind: Latest}
		if name == "missing" || name == "altered" {
			target = Target{Kind: Time, Time: end}
		}
		{
			dir := w.place + "/damaged"
			_, err := w.toDir(dir, target)
			e := w.gone(err, dir)
			var hole *HoleError
			if !errors.As(err, &hole) && !errors.Is(err, ErrShort) {
				t.Errorf("%s: %v", name, err)
			}
			t.Log(name, target, e)
		}
	}
}

// TestTimelines recovers along a promotion, and to the end of the timeline that was left.
func TestTimelines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{})
	w.base()
	w.insert(2)
	w.ship()
	standby := w.Standby(t)
	left := w.insert(3)
	w.ship()
	standby.Follow(w.Server)
	w.Stop("fast")
	standby.Promote()
	w.Server = standby
	w.follow(2)
	w.insert(4)
	w.bulk(2 << 10)
	w.ship()

	r, err := w.restore(Target{Kind: Latest})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.rows(r.Path); got != "2,3,4" || r.Reached.Timeline != 2 || r.Reached.Now != 3 {
		t.Errorf("%s, %+v", got, r.Reached)
	}
	// The new timeline gets a number that no stored one has.
	for _, target := range []Target{{Kind: Latest}, {Kind: Time, Time: left}} {
		dir := filepath.Join(w.place, "old-"+string(target.Kind))
		r, err = ToDir(context.Background(), dir, func(context.Context) (*Source, error) { return w.branch(1), nil }, w.options(target))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.rows(r.Path); got != "2,3" || r.Reached.Timeline != 1 || r.Reached.Now != 3 {
			t.Errorf("%s, %+v", got, r.Reached)
		}
	}
	// A branch that left before the base was complete.
	_, err = ToDir(context.Background(), filepath.Join(w.place, "wrong"), func(context.Context) (*Source, error) {
		s := w.source()
		s.Stop += 1 << 30
		s.Log.End += 1 << 31
		return s, nil
	}, w.options(Target{Kind: Latest}))
	if !errors.Is(err, ErrBranch) {
		t.Error(err)
	}
}

// testPause leaves a server at the target, which people can look at and promote.
func testPause(t *testing.T, w *world, at time.Time) {
	dir := filepath.Join(w.place, "paused")
	o := w.options(Target{Kind: Time, Time: at})
	o.Pause = true
	r, err := ToDir(context.Background(), dir, w.opener(), o)
	if err != nil {
		t.Fatal(err)
	}
	pid := pgserver.Postmaster(dir)
	if pid == 0 {
		t.Fatal("no server runs")
	}
	t.Cleanup(func() { _ = pgserver.EndStray(dir) })
	sql := func(text string) string {
		out, err := w.TryRun("psql", "-AtX", "-h", r.Socket, "-p", pgserver.Port, "-U", "postgres", "-c", text, "postgres")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	if got := sql("SELECT string_agg(n::text, ',') || pg_is_in_recovery() FROM kept"); got != "2true" {
		t.Error(got)
	}
	if got := sql("SELECT current_setting('archive_mode') || current_setting('fsync')"); got != "offon" {
		t.Error(got)
	}
	// Whoever makes it their own starts it without these settings.
	if text, err := os.ReadFile(filepath.Join(dir, autoConf)); err != nil || !strings.Contains(string(text), "archive_mode = 'off'") {
		t.Errorf("%v\n%s", err, text)
	}
	// It is with people now: no restore takes it away.
	if _, err := ToDir(context.Background(), dir, w.opener(), o); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	sql("SELECT pg_wal_replay_resume()")
	for sql("SELECT pg_is_in_recovery()") != "f" {
		time.Sleep(20 * time.Millisecond)
	}
	sql("INSERT INTO kept VALUES (5)")
	if got := sql("SELECT string_agg(n::text, ',') FROM kept"); got != "2,5" {
		t.Error(got)
	}
}

// testScratch looks at a cluster, and leaves nothing: neither after a success, nor after a failure, nor of one that was
// killed.
func testScratch(t *testing.T, w *world) {
	scratch := filepath.Join(w.place, "scratch")
	o := w.options(Target{Kind: Latest})
	seen := ""
	o.Prove = func(ctx context.Context, s *pgserver.Server) error {
		c, err := s.Connect(ctx, "", "")
		if err != nil {
			return err
		}
		defer func() { _ = c.Close(ctx) }()
		got, err := pgserver.Row(ctx, c, "SELECT count(*), current_setting('listen_addresses'), current_setting('archive_mode') FROM kept")
		seen = strings.Join(got, "|")
		return err
	}
	empty := func() {
		t.Helper()
		if list, err := os.ReadDir(scratch); err != nil || len(list) > 0 {
			t.Errorf("left: %v, %v", list, err)
		}
	}
	if err := os.MkdirAll(scratch, 0o711); err != nil {
		t.Fatal(err)
	}
	r, err := Scratch(context.Background(), scratch, w.opener(), o)
	if err != nil || seen != "1||off" {
		t.Fatal(err, seen, r)
	}
	empty()
	bad := errors.New("a query says no")
	o.Prove = func(context.Context, *pgserver.Server) error { return bad }
	if _, err = Scratch(context.Background(), scratch, w.opener(), o); !errors.Is(err, bad) {
		t.Error(err)
	}
	empty()
	ctx, cancel := context.WithCancel(context.Background())
	o.Prove = func(context.Context, *pgserver.Server) error { cancel(); return ctx.Err() }
	if _, err = Scratch(ctx, scratch, w.opener(), o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	empty()
}

// TestTablespaces sends a tablespace to another place, and refuses one whose place is taken.
func TestTablespaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{})
	place := filepath.Join(w.Owner.Dir(t), "fast disk")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	w.Owner.Give(t, place)
	w.Psql("CREATE TABLESPACE fast LOCATION '" + place + "'; CREATE TABLE there (n int) TABLESPACE fast; INSERT INTO there VALUES (7)")
	w.baseByProgram(place)
	w.Psql("INSERT INTO there VALUES (8)")
	w.ship()
	o := w.options(Target{Kind: Latest})
	_, err := ToDir(context.Background(), filepath.Join(w.place, "refused"), w.opener(), o)
	var taken *SpaceError
	if !errors.As(err, &taken) || !strings.Contains(taken.Hint(), "--tablespace-mapping") {
		t.Errorf("%v", err)
	}
	o.Tablespaces = map[string]string{"/nowhere": "/tmp/x"}
	if _, err := ToDir(context.Background(), filepath.Join(w.place, "refused"), w.opener(), o); err == nil || !strings.Contains(err.Error(), place) {
		t.Errorf("%v", err)
	}
	moved := filepath.Join(w.place, "moved")
	o.Tablespaces = map[string]string{place: moved}
	r, err := ToDir(context.Background(), filepath.Join(w.place, "restored"), w.opener(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := cluster.Open(t, r.Path, cluster.Options{})
	if got := s.Psql("SELECT string_agg(n::text, ','), (SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast') FROM there"); got != "7,8|"+moved {
		t.Error(got)
	}
	s.Stop("fast")
	// A failed one takes its tablespace with it.
	o.Tablespaces = map[string]string{place: moved + "2"}
	o.Target = Target{Kind: Name, Name: "none"}
	if _, err := ToDir(context.Background(), filepath.Join(w.place, "failed"), w.opener(), o); !errors.Is(err, ErrShort) {
		t.Error(err)
	}
	if !missing(moved + "2") {
		t.Error("the tablespace of a failed restore is there")
	}
}

// TestSnapshotAlone restores a base without any log.
func TestSnapshotAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cluster.Options{})
	w.insert(1)
	w.base()
	for _, target := range []Target{{Kind: Base}, {Kind: Time, Time: w.src.Time.Add(time.Hour)}} {
		dir := filepath.Join(w.place, "alone-"+string(target.Kind))
		r, err := ToDir(context.Background(), dir, func(context.Context) (*Source, error) {
			s := w.src
			s.Stop = s.Start // as far as this test knows; the label tells the server
			return &s, nil
		}, w.options(target))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.rows(r.Path); got != "1" {
			t.Error(got)
		}
	}
}

package postgres_test

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// accounts is a small bank: the sum of all accounts is always 0, also in the midst of transfers.
const accounts = `CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, filler text);
INSERT INTO account SELECT i, 0, repeat(md5(i::text), 6) FROM generate_series(1, 20000) i;`

// transfer moves 7 from one account to another, many times.
const transfer = `DO $$ BEGIN FOR i IN 1..50 LOOP
UPDATE account SET balance = balance - 7 WHERE id = (SELECT 1 + floor(random() * 10000)::int);
UPDATE account SET balance = balance + 7 WHERE id = (SELECT 10001 + floor(random() * 10000)::int);
END LOOP; END $$`

const audit = `SELECT sum(balance), count(*) FROM account`

func TestUnderLoad(t *testing.T) {
	versions(t, func(t *testing.T, version int) {
		s := cluster.Start(t, cluster.Options{Version: version, Checksums: true, Config: map[string]string{"autovacuum": "off"}})
		s.Psql(accounts)
		moved := atomic.Int64{}
		stop := aside(t, func(context.Context) error {
			_, err := s.TryPsql("postgres", transfer)
			moved.Add(1)
			return err
		})
		first := newSession()
		r := capture(t, s, first)
		stop()
		if r.Damaged != 0 || len(r.Problems) > 0 || r.Counts.Errors > 0 {
			t.Errorf("%d damaged pages: %v", r.Damaged, r.Problems)
		}
		if !r.Checksums || r.Standby || r.Timeline != 1 || r.Stop < r.Start || r.Version.Major != version || r.Roots[0] != s.Dir {
			t.Errorf("got %+v", r)
		}
		if want := s.Psql("SELECT system_identifier FROM pg_control_system()"); strconv.FormatUint(r.System, 10) != want {
			t.Errorf("system %d, want %s", r.System, want)
		}
		restored := start(t, first, s.Dir)
		if got := restored.Psql(audit); got != "0|20000" {
			t.Errorf("after %d transfers the restored server says %s", moved.Load(), got)
		}
		restored.Stop("immediate")
		onlyChangedPagesAreAdded(t, s)
	})
}

func onlyChangedPagesAreAdded(t *testing.T, s *cluster.Server) {
	t.Helper()
	s.Psql("VACUUM FREEZE; CHECKPOINT")
	before := s.Psql("SELECT sum(balance) FROM account WHERE id <> 777")
	first := newSession()
	began := time.Now()
	full := capture(t, s, first)
	if full.Until.Before(began) || full.Until.After(time.Now()) || full.WALEnd < full.Stop {
		t.Errorf("by the server's clock all was committed by %s, with WAL up to %s", full.Until, full.WALEnd)
	}
	s.Psql("UPDATE account SET balance = 1 WHERE id = 777; CHECKPOINT")
	second := first.child()
	next := capture(t, s, second)
	// The changed heap page and its map, what every checkpoint and backup writes anew: control file, label, manifest.
	const most = 1 << 20
	if added := second.Added() - int(next.WALBytes); added > most || second.Added() == 0 {
		t.Errorf("%d bytes beside WAL were added, of %d", added, next.Counts.Bytes)
	}
	if full.Counts.NewFiles < 500 || next.Counts.NewFiles > 10 || next.Counts.ChangedFiles > 60 {
		t.Errorf("full: %+v\nnext: %+v", full.Counts, next.Counts)
	}

	// A database that is copied as files has old LSNs: what changed is told by content, not by them.
	s.Psql("CREATE DATABASE copied STRATEGY FILE_COPY")
	third := second.child()
	last := capture(t, s, third)
	if added := third.Added() - int(last.WALBytes); added > 2*most || last.Counts.NewFiles < 200 {
		t.Errorf("the copy of a database: %d bytes, %+v", added, last.Counts)
	}
	restored := start(t, third, s.Dir)
	if got := restored.PsqlIn("copied", "SELECT count(*) > 300 FROM pg_class"); got != "t" {
		t.Errorf("the copied database says %s", got)
	}
	if got := restored.Psql("SELECT balance, (SELECT sum(balance) FROM account WHERE id <> 777) FROM account WHERE id = 777"); got != "1|"+before {
		t.Errorf("the restored server says %s, want 1|%s", got, before)
	}
}

// damage flips a bit in a page of a relation of a server that stands.
func damage(t *testing.T, dir, rel string, block int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, rel), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	at := block*postgres.BlockSize + 8000
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedPageIsNamed(t *testing.T) {
	versions(t, func(t *testing.T, version int) {
		s := cluster.Start(t, cluster.Options{Version: version, Checksums: true})
		s.Psql("CREATE DATABASE bank; CREATE SCHEMA ledger")
		s.PsqlIn("bank", accounts+"; CREATE SCHEMA ledger; CREATE TABLE ledger.entry AS SELECT i FROM generate_series(1, 2000) i; CHECKPOINT")
		large := s.PsqlIn("bank", "SELECT pg_relation_filepath('account')")
		small := s.PsqlIn("bank", "SELECT pg_relation_filepath('ledger.entry')")
		s.Stop("fast")
		damage(t, s.Dir, large, 17)
		damage(t, s.Dir, large, 400)
		damage(t, s.Dir, small, 2)
		s.Restart()
		into := newSession()
		r := capture(t, s, into)
		if r.Damaged != 3 || r.Counts.Errors != 3 || len(r.Problems) != 3 {
			t.Fatalf("%d damaged pages, %d errors: %v", r.Damaged, r.Counts.Errors, r.Problems)
		}
		got := map[string]bool{}
		for _, p := range r.Problems {
			if p.Operation != pgsource.OperationPage {
				t.Errorf("operation %q", p.Operation)
			}
			text, _, _ := strings.Cut(p.Error, ": its checksum")
			got[string(p.Path)+" "+text] = true
		}
		for _, want := range []string{
			path.Join(s.Dir, large) + " relation public.account of database bank: block 17",
			path.Join(s.Dir, large) + " relation public.account of database bank: block 400",
			path.Join(s.Dir, small) + " relation ledger.entry of database bank: block 2",
		} {
			if !got[want] {
				t.Errorf("want %q among %v", want, got)
			}
		}
		if e := into.entry(s.Dir, large); e == nil || e.Size == 0 {
			t.Error("the file with the damaged pages was left out")
		}
	})
}

func TestWithoutChecksums(t *testing.T) {
	s := cluster.Start(t, cluster.Options{SegmentSize: 1})
	s.Psql(accounts + "; CHECKPOINT")
	file := s.Psql("SELECT pg_relation_filepath('account')")
	s.Stop("fast")
	damage(t, s.Dir, file, 17) // which nobody can notice
	s.Restart()
	into := newSession()
	r := capture(t, s, into)
	if r.Checksums || r.Damaged != 0 || len(r.Problems) > 0 || r.SegmentSize != 1<<20 {
		t.Errorf("got %+v", r)
	}
	if got := start(t, into, s.Dir).Psql("SELECT count(*) FROM account"); got != "20000" {
		t.Errorf("%s rows", got)
	}
}

func TestTablespacesAndUnlogged(t *testing.T) {
	versions(t, func(t *testing.T, version int) {
		s := cluster.Start(t, cluster.Options{Version: version, Checksums: true})
		place := filepath.Join(s.Owner.Dir(t), "fast disk")
		if err := os.Mkdir(place, 0o700); err != nil {
			t.Fatal(err)
		}
		s.Owner.Give(t, place)
		s.Psql("CREATE TABLESPACE fast LOCATION '" + place + "'")
		s.Psql("CREATE TABLE here TABLESPACE fast AS SELECT i FROM generate_series(1, 100000) i")
		s.Psql("CREATE UNLOGGED TABLE cache AS SELECT i FROM generate_series(1, 1000) i; CREATE INDEX ON cache (i)")
		s.Psql("SELECT pg_create_physical_replication_slot('stays', true)")
		oid := s.Psql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")
		file := s.Psql("SELECT pg_relation_filepath('here')")
		into := newSession()
		r := capture(t, s, into)
		if r.Tablespaces != 1 || r.Unlogged != 2 {
			t.Errorf("%d tablespaces, %d unlogged relations", r.Tablespaces, r.Unlogged)
		}
		if e := into.entry(s.Dir, file); e == nil || e.Size < 100000*32 {
			t.Errorf("%s: %+v", file, e)
		}
		if e := into.entry(s.Dir, "pg_tblspc/"+oid); e == nil || e.Type != snapshot.Directory {
			t.Errorf("the tablespace's directory: %+v", e)
		}
		text, err := into.Content(into.entry(s.Dir, "tablespace_map").Extents, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := oid + " " + place + "\n"; string(text) != want {
			t.Errorf("tablespace_map has %q, want %q", text, want)
		}
		// As a restore does it: to another place.
		dir := lay(t, into, s.Dir)
		moved := filepath.Join(filepath.Dir(dir), "moved")
		link := filepath.Join(dir, "pg_tblspc", oid)
		if err := os.Rename(link, moved); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(moved, link); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tablespace_map"), []byte(oid+" "+moved+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Owner.Give(t, moved)
		restored := cluster.Open(t, dir, cluster.Options{})
		if got := restored.Psql("SELECT count(*) FROM here"); got != "100000" {
			t.Errorf("%s rows in the tablespace", got)
		}
		if got := restored.Psql("SELECT count(*) FROM pg_replication_slots"); got != "0" {
			t.Errorf("%s replication slots came along", got)
		}
		if got := restored.Psql("SELECT count(*) FROM cache"); got != "0" {
			t.Errorf("%s rows in the unlogged table", got)
		}
	})
}

func TestStandby(t *testing.T) {
	versions(t, func(t *testing.T, version int) {
		primary := cluster.Start(t, cluster.Options{Version: version, Checksums: true})
		primary.Psql(accounts + "; CHECKPOINT")
		standby := primary.Standby(t)
		stop := aside(t, func(context.Context) error {
			_, err := primary.TryPsql("postgres", transfer)
			return err
		})
		standby.Follow(primary)
		into := newSession()
		began := time.Now()
		r := capture(t, standby, into)
		if !r.Standby || r.Roots[0] != standby.Dir || r.Until.Before(began) || r.Until.After(time.Now()) || r.WALEnd < r.Stop {
			t.Errorf("got %+v", r)
		}
		stop()
		dir := lay(t, into, standby.Dir)
		if err := os.Remove(filepath.Join(dir, "standby.signal")); err != nil {
			t.Fatal(err)
		}
		if got := cluster.Open(t, dir, cluster.Options{}).Psql(audit); got != "0|20000" {
			t.Errorf("the restored server says %s", got)
		}
	})
}

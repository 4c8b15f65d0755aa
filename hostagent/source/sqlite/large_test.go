package sqlite_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	format "github.com/btcdecoded/holdfast/shared/sqlite"
)

// TestOver1GiB has a database that grows over the page of the lock bytes, which nothing ever writes, and then changes
// behind it. Nearly all of its pages are holes that belong to no table: it takes little of the disk.
func TestOver1GiB(t *testing.T) {
	t.Parallel()
	const page = 64 << 10
	lockPage := format.LockPage(page)
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	a.run("PRAGMA page_size = 65536; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0")
	a.run("CREATE TABLE cells(id INTEGER PRIMARY KEY, v INTEGER, data BLOB)")
	a.run("PRAGMA wal_checkpoint(TRUNCATE)")
	stop(a.cmd)
	enlarge(t, path, page, lockPage-2)
	a = startApp(t, path)
	a.run("PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 10")
	a.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20) INSERT INTO cells SELECT i, 0, randomblob(60000) FROM n")

	s := pagedtest.New()
	o := sqlite.Options{Path: path}
	for v, text := range []string{"SELECT 1", set(1)} {
		a.run(text)
		r := capture(t, s, o)
		if r.Pages <= lockPage+10 || len(r.Problems) > 0 || r.Mode != sqlite.ModeWAL {
			t.Errorf("%+v", r)
		}
		a.run("PRAGMA wal_checkpoint(TRUNCATE)") // what was captured is all in the file then
		sameAsFile(t, s, path)
		if limit := 24 * (v + 1) * page; v > 0 && s.Added() > limit {
			t.Errorf("%d bytes added", s.Added())
		}
		s = s.Child(time.Time{})
	}
}

// enlarge makes a database have so many pages. Those that are new are in no table and not free, which SQLite does not mind
// as long as nobody asks for an integrity_check.
func enlarge(t *testing.T, path string, page int64, pages uint32) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(binary.BigEndian.AppendUint32(nil, pages), 28); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(page * int64(pages)); err != nil {
		t.Fatal(err)
	}
}

// sameAsFile compares what was captured with a file: its beginning, and the maps around the page of the lock bytes.
func sameAsFile(t *testing.T, s *pagedtest.Session, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	e := s.Entries[0]
	if info, err := f.Stat(); err != nil || uint64(info.Size()) != e.Size {
		t.Fatalf("%d bytes of %d, %v", e.Size, info.Size(), err)
	}
	if n := len(e.Maps); n < 128 {
		t.Fatalf("%d maps", n)
	}
	for i, m := range e.Maps {
		if i > 0 && i < 126 {
			continue
		}
		extents, err := s.ParentMap(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Content(extents, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, m.Length)
		if _, err := f.ReadAt(want, int64(i)*snapshot.MapSpan); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("map %d differs, %v", i, err)
		}
	}
}

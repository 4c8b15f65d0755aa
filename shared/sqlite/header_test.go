package sqlite

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestHeaderOfRealDatabases(t *testing.T) {
	for _, c := range []struct {
		name, sql string
		want      Header
	}{
		{"default", "", Header{PageSize: 4096, WriteVersion: 1, ReadVersion: 1, Encoding: UTF8}},
		{"512 bytes", "PRAGMA page_size=512", Header{PageSize: 512, WriteVersion: 1, ReadVersion: 1, Encoding: UTF8}},
		{"64 KiB", "PRAGMA page_size=65536", Header{PageSize: 65536, WriteVersion: 1, ReadVersion: 1, Encoding: UTF8}},
		{"WAL", "PRAGMA journal_mode=WAL", Header{PageSize: 4096, WriteVersion: 2, ReadVersion: 2, Encoding: UTF8}},
		{"UTF-16 LE", "PRAGMA encoding='UTF-16le'", Header{PageSize: 4096, WriteVersion: 1, ReadVersion: 1, Encoding: UTF16LE}},
		{"UTF-16 BE", "PRAGMA encoding='UTF-16be'", Header{PageSize: 4096, WriteVersion: 1, ReadVersion: 1, Encoding: UTF16BE}},
		{"auto-vacuum", "PRAGMA auto_vacuum=FULL", Header{PageSize: 4096, WriteVersion: 1, ReadVersion: 1, Encoding: UTF8, Vacuum: VacuumFull}},
		{"incremental", "PRAGMA auto_vacuum=INCREMENTAL", Header{PageSize: 4096, WriteVersion: 1, ReadVersion: 1, Encoding: UTF8, Vacuum: VacuumIncremental}},
		{
			"numbers", "PRAGMA user_version=7; PRAGMA application_id=305419896",
			Header{PageSize: 4096, WriteVersion: 1, ReadVersion: 1, Encoding: UTF8, UserVersion: 7, ApplicationID: 0x12345678},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			run(t, path, c.sql, "CREATE TABLE t(a)", "INSERT INTO t VALUES (zeroblob(3000))")
			b := read(t, path)
			got, err := ParseHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			if !got.PagesKnown || int(got.Pages)*int(got.PageSize) != len(b) || got.LibraryVersion < 3_040_000 {
				t.Errorf("%+v of a file of %d bytes", got, len(b))
			}
			own := cmpopts.IgnoreFields(Header{}, "Pages", "PagesKnown", "Change", "SchemaCookie", "VersionValidFor", "LibraryVersion", "firstPageLooksOK", "FreePages")
			if diff := cmp.Diff(c.want, got, own, cmp.AllowUnexported(Header{})); diff != "" {
				t.Error(diff)
			}
			if Identify(b[:min(len(b), 4096)], int64(len(b))) != Database || Identify(b[:HeaderSize], int64(len(b))) != Database {
				t.Error("not taken for a database")
			}
		})
	}
}

func TestWhatIsNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	run(t, path, "CREATE TABLE t(a)")
	good := read(t, path)[:4096]
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	noisy := make([]byte, 4096)
	_, _ = rand.Read(noisy)
	plainHead := bytes.Clone(noisy) // SQLCipher with cipher_plaintext_header_size
	copy(plainHead, good[:HeaderSize])
	plainHead[HeaderSize] = 0x77
	for name, c := range map[string]struct {
		head []byte
		size int64
		want Identity
	}{
		"empty":              {nil, 0, Empty},
		"encrypted":          {noisy, 8192, Encrypted},
		"encrypted but head": {plainHead, 8192, Encrypted},
		"noise of odd size":  {noisy, 8191, Foreign},
		"text":               {bytes.Repeat([]byte("hello, world\n"), 300), 4096, Foreign},
		"zeros":              {make([]byte, 4096), 4096, Foreign},
		"short":              {good[:50], 50, Foreign},
		"page size 1000":     {change(16, 3, 232), 4096, Broken},
		"reserved":           {change(16, 2, 0, 1, 1, 100), 4096, Broken},
		"fractions":          {change(21, 65), 4096, Broken},
		"version 0":          {change(18, 0), 4096, Broken},
		"version 3":          {change(18, 3, 3), 4096, Unsupported},
		"encoding 4":         {change(59, 4), 4096, Broken},
		"good":               {good, 4096, Database},
	} {
		if got := Identify(c.head, c.size); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestLockPage(t *testing.T) {
	for size, want := range map[uint32]uint32{512: 2097153, 4096: 262145, 65536: 16385} {
		if got := LockPage(size); got != want || (Header{PageSize: size}).LockPage() != want {
			t.Errorf("%d: %d, want %d", size, got, want)
		}
	}
}

func FuzzHeader(f *testing.F) {
	path := filepath.Join(f.TempDir(), "db")
	run(f, path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)")
	f.Add(read(f, path)[:200], int64(4096))
	f.Add([]byte(Magic), int64(16))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		h, err := ParseHeader(b)
		if err != nil && !errors.Is(err, ErrNotDatabase) && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if err == nil && (!ValidPageSize(h.PageSize) || h.LockPage() == 0) {
			t.Fatalf("%+v", h)
		}
		if err == nil && uint32(binary.BigEndian.Uint16(b[16:])) != h.PageSize&0xffff|h.PageSize>>16 {
			t.Fatalf("page size %d", h.PageSize)
		}
		id := Identify(b, size)
		if id == Database && err != nil || size == 0 && id != Empty {
			t.Fatal(fmt.Sprint(id, err))
		}
	})
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

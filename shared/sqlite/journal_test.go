package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hot makes a database whose transaction was killed after it had written to the file, with a journal of several segments.
func hot(t testing.TB, parameters string, pragmas ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	p := startPython(t)
	uri := "file:" + path + parameters
	p.run(t, uri, append(pragmas, "PRAGMA cache_size=10", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "BEGIN")...)
	fill := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) INSERT INTO t SELECT %d+i, randomblob(900) FROM n"
	p.run(t, uri, fmt.Sprintf(fill, 400, 0), "COMMIT", "BEGIN", "UPDATE t SET b = randomblob(900) WHERE a % 3 = 0", fmt.Sprintf(fill, 200, 1000))
	p.kill()
	return path
}

// rolledBack is what SQLite makes of it.
func rolledBack(t testing.TB, path string) []byte {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "db")
	copyTo(t, path, copied, "", "-journal")
	if got := query(t, copied, "SELECT count(*)||max(a) FROM t"); got != "400400" {
		t.Fatalf("%s", got)
	}
	return read(t, copied)
}

// played is what this package makes of it.
func played(t testing.TB, path string) ([]byte, Journal) {
	t.Helper()
	file, journal := read(t, path), read(t, path+"-journal")
	j, err := ReadJournal(bytes.NewReader(journal), int64(len(journal)), func(number uint32, data []byte) error {
		copy(file[int(number-1)*len(data):], data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return file[:j.Pages*j.PageSize], j
}

func TestHotJournalsOfRealDatabases(t *testing.T) {
	for name, c := range map[string]struct {
		parameters string
		pragmas    []string
		sector     uint32
		segments   bool
	}{
		"sectors of 512":     {"", nil, 512, true},
		"sectors of 4096":    {"?psow=0", nil, 4096, true},
		"pages of 1024":      {"", []string{"PRAGMA page_size=1024"}, 512, true},
		"pages of 512":       {"?psow=0", []string{"PRAGMA page_size=512"}, 4096, true},
		"never synced":       {"", []string{"PRAGMA synchronous=OFF"}, 512, false},
		"persistent journal": {"", []string{"PRAGMA journal_mode=PERSIST"}, 512, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := hot(t, c.parameters, c.pragmas...)
			got, j := played(t, path)
			want := rolledBack(t, path)
			// SQLite sets nothing in the file by a roll back but the pages.
			if !bytes.Equal(got, want) {
				t.Errorf("not what SQLite makes of it: %+v", j)
			}
			if j.SectorSize != c.sector || c.segments != (j.Segments > 1) || j.Restored == 0 {
				t.Errorf("%+v", j)
			}
			journal := read(t, path+"-journal")
			if !Hot(JournalFacts{Size: int64(len(journal)), FirstByte: journal[0], DatabaseSize: 1}) {
				t.Error("not hot")
			}
			// A torn record ends it.
			for _, cut := range []int{1, 100, 2000, len(journal) / 2, len(journal) - JournalHeaderSize} {
				torn := journal[:len(journal)-cut]
				if _, err := ReadJournal(bytes.NewReader(torn), int64(len(torn)), func(uint32, []byte) error { return nil }); err != nil && !errors.Is(err, ErrNoJournal) {
					t.Errorf("%d bytes less: %v", cut, err)
				}
			}
		})
	}
}

func TestTornJournalIsReadAsSQLiteDoes(t *testing.T) {
	path := hot(t, "")
	whole := read(t, path+"-journal")
	// The record in which a byte is wrong, and all behind it in this and later segments, are not restored by SQLite.
	for _, at := range []int{512 + 4 + 4096 - 200, len(whole) / 3, len(whole) / 2} {
		broken := bytes.Clone(whole)
		at -= (at-512-4-96)%4104 - 4096 + 200 // a byte that the checksum has
		broken[max(0, at)] ^= 0xff
		if err := os.WriteFile(path+"-journal", broken, 0o600); err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "db")
		copyTo(t, path, copied, "", "-journal")
		p := startPython(t)
		p.run(t, copied, "PRAGMA schema_version")
		p.kill()
		if got, j := played(t, path); !bytes.Equal(got, read(t, copied)) {
			t.Errorf("byte %d: not what SQLite makes of it: %+v", at, j)
		}
	}
}

func TestColdJournals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	run(t, path, "PRAGMA journal_mode=PERSIST", "CREATE TABLE t(a)", "INSERT INTO t VALUES (1)")
	journal := read(t, path+"-journal")
	if Hot(JournalFacts{Size: int64(len(journal)), FirstByte: journal[0], DatabaseSize: 8192}) {
		t.Error("a zeroed journal is hot")
	}
	if _, err := ReadJournal(bytes.NewReader(journal), int64(len(journal)), nil); !errors.Is(err, ErrNoJournal) {
		t.Errorf("%v", err)
	}
	hot := JournalFacts{Size: 1, FirstByte: 0xd9, DatabaseSize: 1, Super: true, SuperExists: true}
	if !Hot(hot) {
		t.Error("not hot")
	}
	for name, change := range map[string]func(*JournalFacts){
		"empty":            func(f *JournalFacts) { f.Size = 0 },
		"zeroed":           func(f *JournalFacts) { f.FirstByte = 0 },
		"locked":           func(f *JournalFacts) { f.Reserved = true },
		"no database":      func(f *JournalFacts) { f.DatabaseSize = 0 },
		"no super-journal": func(f *JournalFacts) { f.SuperExists = false },
	} {
		f := hot
		if change(&f); Hot(f) {
			t.Errorf("%s: hot", name)
		}
	}
}

func TestSuperJournal(t *testing.T) {
	h := JournalHeader{Records: 1, Nonce: 77, Pages: 2, SectorSize: 512, PageSize: 512}
	page := bytes.Repeat([]byte{0xf1}, 512)
	b := append(h.Append(nil), make([]byte, 512-JournalHeaderSize)...)
	b = binary.BigEndian.AppendUint32(b, 2)
	b = append(b, page...)
	b = binary.BigEndian.AppendUint32(b, h.PageChecksum(page))
	for _, name := range []string{"/tmp/ä-mj1234", "/tmp/plain"} {
		for _, signed := range []bool{true, false} {
			sum := uint32(0)
			for _, c := range []byte(name) {
				if signed {
					sum += uint32(int32(int8(c)))
				} else {
					sum += uint32(c)
				}
			}
			all := binary.BigEndian.AppendUint32(bytes.Clone(b), LockPage(512))
			all = append(all, name...)
			all = binary.BigEndian.AppendUint32(all, uint32(len(name)))
			all = binary.BigEndian.AppendUint32(all, sum)
			all = append(all, journalMagic...)
			j, err := ReadJournal(bytes.NewReader(all), int64(len(all)), func(n uint32, data []byte) error {
				if n != 2 || !bytes.Equal(data, page) {
					return fmt.Errorf("page %d", n)
				}
				return nil
			})
			if err != nil || j.Super != name || j.Restored != 1 || j.Segments != 1 {
				t.Errorf("%q, %v: %+v, %v", name, signed, j, err)
			}
		}
	}
	if j, err := ReadJournal(bytes.NewReader(b), int64(len(b)), func(uint32, []byte) error { return nil }); err != nil || j.Super != "" {
		t.Errorf("%+v, %v", j, err)
	}
	stop := errors.New("stop")
	if _, err := ReadJournal(bytes.NewReader(b), int64(len(b)), func(uint32, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func FuzzJournal(f *testing.F) {
	h := JournalHeader{Records: allRest, Nonce: 5, Pages: 9, SectorSize: 32, PageSize: 512}
	page := []byte(strings.Repeat("x", 512))
	b := append(h.Append(nil), make([]byte, 4)...)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = append(b, page...)
	b = binary.BigEndian.AppendUint32(b, h.PageChecksum(page))
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseJournalHeader(b); err == nil && !bytes.Equal(h.Append(nil), b[:JournalHeaderSize]) {
			t.Fatalf("%+v", h)
		}
		records := 0
		j, err := ReadJournal(bytes.NewReader(b), int64(len(b)), func(n uint32, data []byte) error {
			records++
			if n == 0 || len(data) < minPage {
				t.Fatal(n, len(data))
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrNoJournal) || records != j.Restored {
			t.Fatal(err, records, j.Restored)
		}
	})
}

package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestMoments restores a database of each page size and encoding to each of its moments: growing, shrinking by VACUUM, and
// growing again over what was cut off.
func TestMoments(t *testing.T) {
	for _, tt := range []struct {
		pageSize int
		settings string
	}{
		{512, ""},
		{1024, "PRAGMA encoding='UTF-16le';"},
		{4096, "PRAGMA auto_vacuum=FULL;"},
		{8192, "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA encoding='UTF-16be';"},
		{65536, ""},
	} {
		t.Run(fmt.Sprint(tt.pageSize), func(t *testing.T) {
			dir := t.TempDir()
			live := filepath.Join(dir, "live.db")
			sqlite(t, live, fmt.Sprintf("PRAGMA page_size=%d; %s CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b);", tt.pageSize, tt.settings))
			fill := "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<400) INSERT INTO t(b) SELECT hex(randomblob(200)) FROM c;"
			states := [][]byte{read(t, live)}
			var records []Record
			for n, sql := range []string{fill, "UPDATE t SET b='x' WHERE a%7=0;", "DELETE FROM t WHERE a>30; VACUUM;", fill, "DELETE FROM t;", "VACUUM;"} {
				sqlite(t, live, sql)
				states = append(states, read(t, live))
				records = append(records, difference(states[n], states[n+1], tt.pageSize, n+1))
			}
			for n, want := range states {
				target := filepath.Join(dir, fmt.Sprintf("restored-%d.db", n))
				r, err := ToFile(context.Background(), target, opener(source(states[0], records[:n]...)), Options{})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(read(t, target), want) {
					t.Errorf("moment %d is not as it was", n)
				}
				if r.Records != n || !r.Reached.Equal(stamp(n)) || r.Bytes != uint64(len(want)) {
					t.Errorf("moment %d: %+v", n, r)
				}
				if got := sqlite(t, target, "PRAGMA integrity_check;"); got != "ok" {
					t.Errorf("moment %d: %s", n, got)
				}
			}
		})
	}
}

// TestLargeTransaction gives one in many records: none of it is there before the last of them.
func TestLargeTransaction(t *testing.T) {
	before, after := restoredBytes(t, 10), restoredBytes(t, 500)
	whole := difference(before, after, 1024, 2)
	var parts []Record
	for n := range 3 {
		part := whole
		part.More = n < 2
		part.Each = func(page func(uint32, []byte) error) error {
			return whole.Each(func(number uint32, data []byte) error {
				if int(number)%3 != n {
					return nil
				}
				return page(number, data)
			})
		}
		parts = append(parts, part)
	}
	dir := t.TempDir()
	target := filepath.Join(dir, "db")
	if _, err := ToFile(context.Background(), target, opener(source(before, parts...)), Options{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, target), after) {
		t.Error("it is not as it was")
	}
	_, err := ToFile(context.Background(), filepath.Join(dir, "cut"), opener(source(before, parts[:2]...)), Options{})
	var e *StepError
	if !errors.As(err, &e) || !errors.Is(err, ErrLog) || e.Step != StepBuild || !e.Good.Equal(stamp(0)) {
		t.Errorf("%v, reached %v", err, e.Good)
	}
	if got := names(t, dir); got != "db" {
		t.Errorf("left: %s", got)
	}
}

func TestEmptyBase(t *testing.T) {
	after := restoredBytes(t, 3)
	target := filepath.Join(t.TempDir(), "db")
	if _, err := ToFile(context.Background(), target, opener(source(nil, difference(nil, after, 1024, 1))), Options{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, target), after) {
		t.Error("it is not as it was")
	}
}

func TestLogThatDoesNotFit(t *testing.T) {
	base := restoredBytes(t, 10)
	good := difference(base, restoredBytes(t, 20), 1024, 1)
	hole := errors.New("record 2 is missing")
	other := good
	other.PageSize = 4096
	none := good
	none.Pages = 0
	short := good
	short.Each = func(page func(uint32, []byte) error) error { return page(1, make([]byte, 512)) }
	zero := good
	zero.Each = func(page func(uint32, []byte) error) error { return page(0, make([]byte, 1024)) }
	damaged := good
	damaged.Each = func(func(uint32, []byte) error) error { return errDamaged }
	for name, tt := range map[string]struct {
		records []Record
		end     error
		want    error
		reached int
	}{
		"a hole":                  {[]Record{good}, hole, hole, 1},
		"another page size":       {[]Record{other}, nil, ErrLog, 0},
		"no pages":                {[]Record{none}, nil, ErrLog, 0},
		"a short page":            {[]Record{short}, nil, ErrLog, 0},
		"page 0":                  {[]Record{zero}, nil, ErrLog, 0},
		"a record that is rotten": {[]Record{good, damaged}, nil, errDamaged, 1},
	} {
		dir := t.TempDir()
		src := source(base)
		src.Records = sequence(tt.records, tt.end)
		_, err := ToFile(context.Background(), filepath.Join(dir, "db"), opener(src), Options{})
		var e *StepError
		if !errors.As(err, &e) || !errors.Is(err, tt.want) || !e.Good.Equal(stamp(tt.reached)) {
			t.Errorf("%s: %v, reached %v", name, err, e.Good)
		}
		if got := names(t, dir); got != "" {
			t.Errorf("%s: left: %s", name, got)
		}
	}
	// A base that is no database can't have a log.
	_, err := ToFile(context.Background(), filepath.Join(t.TempDir(), "db"), opener(source(bytes.Repeat([]byte("x"), 4096), good)), Options{})
	if !errors.Is(err, ErrLog) {
		t.Error(err)
	}
}

func TestBaseThatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "db")
	src := source(restoredBytes(t, 100))
	src.Base.(*fake).damaged = true
	if _, err := ToFile(context.Background(), target, opener(src), Options{}); !errors.Is(err, errDamaged) {
		t.Error(err)
	}
	src = source(restoredBytes(t, 100))
	src.Entry.Size++
	if _, err := ToFile(context.Background(), target, opener(src), Options{}); !errors.Is(err, errSize) {
		t.Error(err)
	}
	src = source(restoredBytes(t, 100))
	src.Entry.Extents[0].Offset = 1
	if _, err := ToFile(context.Background(), target, opener(src), Options{}); !errors.Is(err, errExtent) {
		t.Error(err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestSparse restores a database of more than a gigabyte, past the page that SQLite keeps free for its locks.
func TestSparse(t *testing.T) {
	const pages = (1<<30)/4096 + 1000
	base := make([]byte, 4096)
	copy(base, restoredBytes(t, 1)[:100])
	base[16], base[17] = 0x10, 0
	last := bytes.Repeat([]byte("z"), 4096)
	r := Record{Time: stamp(1), PageSize: 4096, Pages: pages, Each: func(page func(uint32, []byte) error) error { return page(pages, last) }}
	target := filepath.Join(t.TempDir(), "db")
	got, err := ToFile(context.Background(), target, opener(source(base, r)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	page := make([]byte, 4096)
	if _, err := f.ReadAt(page, (pages-1)*4096); err != nil || !bytes.Equal(page, last) || got.Bytes != pages*4096 {
		t.Errorf("%v, %+v", err, got)
	}
}

// TestRoomForTheLog has logs that let a database grow to more than there is room for: nothing of that is written, whether
// it is known before or only found on the way.
func TestRoomForTheLog(t *testing.T) {
	huge := Record{Time: stamp(1), PageSize: 65536, Pages: 1<<32 - 1, Each: func(func(uint32, []byte) error) error {
		t.Error("it is read")
		return nil
	}}
	for name, known := range map[string]uint64{"known": 1 << 60, "found": 0} {
		dir := t.TempDir()
		target := filepath.Join(dir, "db")
		_, err := ToFile(context.Background(), target, func(context.Context) (*Source, error) {
			s := source(nil, huge)
			if s.Bytes = known; known > 0 {
				s.Records = nil
			}
			return s, nil
		}, Options{})
		if !errors.Is(err, ErrFull) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", name, left, err)
		}
	}
}

package postgres_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

func TestLSN(t *testing.T) {
	for s, want := range map[string]postgres.LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1, "0/3000028": 0x3000028} {
		l, err := postgres.ParseLSN(s)
		if err != nil || l != want || l.String() != s {
			t.Errorf("%s is %s, %v", s, l, err)
		}
		b, err := json.Marshal(l)
		var back postgres.LSN
		if err != nil || string(b) != `"`+s+`"` || json.Unmarshal(b, &back) != nil || back != l {
			t.Errorf("%s in JSON is %s", l, b)
		}
	}
	for _, s := range []string{"", "0", "/", "0/", "/0", "0/123456789", "-0/1", "0/+1", "0/0x1", "0/1_0", "0/1 ", "1/2/3", "0/g"} {
		if l, err := postgres.ParseLSN(s); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%q is %s, %v", s, l, err)
		}
	}
	if err := json.Unmarshal([]byte(`"0/3000028a"`), new(postgres.LSN)); err == nil {
		t.Error("lower-case digits can't be written again")
	}
	l := postgres.LSN(0x5FFFFFF)
	if l.SegmentStart(16<<20) != 0x5000000 || l.SegmentEnd(16<<20) != 0x6000000 || postgres.LSN(0x6000000).SegmentEnd(16<<20) != 0x7000000 {
		t.Errorf("segment of %s: %s to %s", l, l.SegmentStart(16<<20), l.SegmentEnd(16<<20))
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		size uint32
		want postgres.Name
	}{
		{"000000010000000000000002", 16 << 20, postgres.Name{Kind: postgres.Segment, Timeline: 1, Start: 0x2000000}},
		{"0000000A00000003000000FF", 16 << 20, postgres.Name{Kind: postgres.Segment, Timeline: 10, Start: 0x3FF000000}},
		{"000000010000000300000FFF", 1 << 20, postgres.Name{Kind: postgres.Segment, Timeline: 1, Start: 0x3FFF00000}},
		{"000000010000000300000003", 1 << 30, postgres.Name{Kind: postgres.Segment, Timeline: 1, Start: 0x3C0000000}},
		{"000000010000000000000002.partial", 16 << 20, postgres.Name{Kind: postgres.Partial, Timeline: 1, Start: 0x2000000}},
		{"0000000B.history", 16 << 20, postgres.Name{Kind: postgres.History, Timeline: 11}},
		{"000000010000000000000002.00000028.backup", 16 << 20, postgres.Name{Kind: postgres.BackupHistory, Timeline: 1, Start: 0x2000000, Backup: 0x2000028}},
	} {
		n, err := postgres.ParseName(tt.name, tt.size)
		if err != nil || n != tt.want || n.String(tt.size) != tt.name {
			t.Errorf("%s is %+v, %v", tt.name, n, err)
		}
	}
	for _, name := range []string{
		"", "1", "00000001", "00000001.histor", "00000000.history", "0000000b.history", "00000001000000000000000", "0000000100000000000000020",
		"000000010000000000000100", "000000000000000000000002", "00000001000000000000000g", "000000010000000000000002.Partial", "../0000010000000000000002",
		"000000010000000000000002.0000028.backup", "000000010000000000000002.history", "RECOVERYXLOG", "000000010000000000000002.",
	} {
		if n, err := postgres.ParseName(name, 16<<20); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%q is %+v, %v", name, n, err)
		}
	}
	if _, err := postgres.ParseName("000000010000000000000002", 3<<20); err == nil {
		t.Error("segments of 3 MiB")
	}
}

func TestRelations(t *testing.T) {
	for path, want := range map[string]postgres.Relation{
		"base/5/16384":     {Tablespace: postgres.DefaultTablespace, Database: 5, Filenode: 16384},
		"base/5/16384.12":  {Tablespace: postgres.DefaultTablespace, Database: 5, Filenode: 16384, Segment: 12},
		"base/5/2619_fsm":  {Tablespace: postgres.DefaultTablespace, Database: 5, Filenode: 2619, Fork: "fsm"},
		"base/5/2619_vm.1": {Tablespace: postgres.DefaultTablespace, Database: 5, Filenode: 2619, Fork: "vm", Segment: 1},
		"base/5/t3_16390":  {Tablespace: postgres.DefaultTablespace, Database: 5, Filenode: 16390, Temporary: true},
		"global/1260":      {Tablespace: postgres.GlobalTablespace, Filenode: 1260},
		"pg_tblspc/16400/PG_15_202209061/5/16401_init": {Tablespace: 16400, Database: 5, Filenode: 16401, Fork: "init"},
	} {
		if r, ok := postgres.ParseRelation(path); !ok || r != want {
			t.Errorf("%s is %+v", path, r)
		}
	}
	for _, path := range []string{
		"", "global/pg_control", "base/5/PG_VERSION", "base/5/pg_filenode.map", "base/5/16384_tmp", "base/05/16384", "base/5/016384", "base/5/16384.", "base/5/16384.x",
		"base/pgsql_tmp/pgsql_tmp1.0", "pg_xact/0000", "base/5/t_1", "base/5/t3_", "pg_tblspc/16400/other/5/1", "base/5/99999999999", "base/5/16384/1",
	} {
		if r, ok := postgres.ParseRelation(path); ok {
			t.Errorf("%s is %+v", path, r)
		}
	}
	if n := (postgres.Relation{Segment: 2}).FirstBlock(postgres.RelationSegment); n != 262144 {
		t.Errorf("segment 2 begins with block %d", n)
	}
}

func TestHistory(t *testing.T) {
	h, err := postgres.ParseHistory(4, []byte("1\t0/3000000\tno recovery target specified\n\n# a comment\n  2\t0/5000000\tbefore 2026-11-20 12:00:00+00\n3 0/5000000\n"))
	want := &postgres.TimelineHistory{Timeline: 4, Entries: []postgres.HistoryEntry{
		{Parent: 1, Switch: 0x3000000, Reason: "no recovery target specified"}, {Parent: 2, Switch: 0x5000000, Reason: "before 2026-11-20 12:00:00+00"}, {Parent: 3, Switch: 0x5000000},
	}}
	if err != nil || !cmp.Equal(h, want) {
		t.Fatal(err, cmp.Diff(h, want))
	}
	for l, want := range map[postgres.LSN]uint32{1: 1, 0x2FFFFFF: 1, 0x3000000: 2, 0x4FFFFFF: 2, 0x5000000: 4, 1 << 40: 4} {
		if got := h.At(l); got != want {
			t.Errorf("%s is of timeline %d, not %d", l, got, want)
		}
	}
	if at, ok := h.SwitchOf(2); !ok || at != 0x5000000 {
		t.Error(at, ok)
	}
	if _, ok := h.SwitchOf(4); ok {
		t.Error("the last timeline was left")
	}
	for _, s := range []string{"", "#\n", "4\t0/1\tx\n", "0\t0/1\tx\n", "1 x\n", "1\n", "2\t0/1\t\n1\t0/2\t\n", "1\t0/2\t\n2\t0/1\t\n", "x\t0/1\t\n", "5\t0/1\n"} {
		if h, err := postgres.ParseHistory(4, []byte(s)); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%q is %+v, %v", s, h, err)
		}
	}
	if h, err := postgres.ParseHistory(1, nil); err != nil || h.At(7) != 1 {
		t.Error(h, err)
	}
}

func TestLabel(t *testing.T) {
	text := "START WAL LOCATION: 0/5000028 (file 000000020000000000000005)\nCHECKPOINT LOCATION: 0/5000060\nBACKUP METHOD: streamed\nBACKUP FROM: standby\n" +
		"START TIME: 2026-11-20 12:00:00 UTC\nLABEL: a: b\nSTART TIMELINE: 2\nINCREMENTAL FROM LSN: 0/3000028\nINCREMENTAL FROM TLI: 1\n"
	l, err := postgres.ParseLabel([]byte(text))
	want := &postgres.Label{
		Start: 0x5000028, Segment: "000000020000000000000005", Checkpoint: 0x5000060, Method: "streamed", From: "standby",
		Time: "2026-11-20 12:00:00 UTC", Name: "a: b", Timeline: 2, IncrementalFrom: 0x3000028, IncrementalTimeline: 1,
	}
	if err != nil || !cmp.Equal(l, want) {
		t.Error(err, cmp.Diff(l, want))
	}
	lines := strings.SplitAfter(text, "\n")
	for i := range lines[:7] {
		cut := strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), "")
		_, err := postgres.ParseLabel([]byte(cut))
		if needed := i == 0 || i == 1 || i == 6; needed != (err != nil) {
			t.Errorf("without %q: %v", lines[i], err)
		}
	}
	for _, s := range []string{"", text[:len(text)-1], text + lines[0], text + "x\n", strings.Replace(text, "0/5000028", "0.5", 1)} {
		if l, err := postgres.ParseLabel([]byte(s)); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%q is %+v, %v", s, l, err)
		}
	}
}

func TestTablespaceMap(t *testing.T) {
	all := []postgres.Tablespace{{16384, "/a b"}, {16400, "/x\ny\\z\r"}}
	b := postgres.AppendTablespaceMap(nil, all)
	if string(b) != "16384 /a b\n16400 /x\\\ny\\\\z\\\r\n" {
		t.Errorf("%q", b)
	}
	if got, err := postgres.ParseTablespaceMap(b); err != nil || !cmp.Equal(got, all) {
		t.Error(got, err)
	}
	for _, s := range []string{"x /a\n", "16384 a\n", "16384 /a", "16384\n", "16384 /a\n16384 /b\n", "016384 /a\n", "\n"} {
		if got, err := postgres.ParseTablespaceMap([]byte(s)); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%q is %v, %v", s, got, err)
		}
	}
}

// sign ends a manifest with its checksum.
func sign(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return []byte(text + `"Manifest-Checksum": "` + hex.EncodeToString(sum[:]) + "\"}\n")
}

func TestManifest(t *testing.T) {
	const file = `{ "Path": "base/5/1", "Size": 8192, "Last-Modified": "2026-11-20 12:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "01020304" }`
	two := "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7412345678901234567,\n\"Files\": [\n" + file +
		",\n{ \"Encoded-Path\": \"ff62\", \"Size\": 0, \"Last-Modified\": \"2026-11-20 12:00:00 GMT\" }],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n"
	m, err := postgres.ParseManifest(sign(two))
	if err != nil {
		t.Fatal(err)
	}
	if m.System != 7412345678901234567 || len(m.Files) != 2 || m.Files[1].Path != "\xffb" || !bytes.Equal(m.Files[0].Checksum, []byte{1, 2, 3, 4}) ||
		!cmp.Equal(m.Ranges, []postgres.WALRange{{Timeline: 1, Start: 0x2000028, End: 0x2000100}}) {
		t.Errorf("%+v", m)
	}
	if _, err := postgres.ParseManifest([]byte(strings.Replace(string(sign(two)), "8192", "8193", 1))); !errors.Is(err, postgres.ErrManifestChecksum) {
		t.Errorf("another size: %v", err)
	}
	for name, change := range map[string][2]string{
		"version": {"Version\": 2", "Version\": 3"}, "version 1 with a system": {"Version\": 2", "Version\": 1"}, "no size": {`"Size": 0, `, ""},
		"negative size": {"8192", "-1"}, "path above": {"base/5/1", "../5/1"}, "absolute path": {"base/5/1", "/base/5/1"}, "no path": {`"Path": "base/5/1", `, ""},
		"encoding": {"ff62", "ff6"}, "both paths": {`"Encoded-Path"`, `"Path": "x", "Encoded-Path"`},
		"algorithm only": {`, "Checksum": "01020304"`, ""}, "time": {"2026-11-20 12", "2026-11-20 25"}, "range": {"0/2000100", "0/2000000"}, "timeline": {`"Timeline": 1`, `"Timeline": 0`},
	} {
		changed := strings.Replace(two, change[0], change[1], 1)
		if m, err := postgres.ParseManifest(sign(changed)); !errors.Is(err, postgres.ErrFormat) || changed == two {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if _, err := postgres.ParseManifest(append(sign(two), " {}"...)); err == nil {
		t.Error("something behind the manifest")
	}
}

// TestChecksum compares with a second way to compute it, word by word, for the sizes of pages that there are.
func TestChecksum(t *testing.T) {
	for size := 1024; size <= 32768; size *= 2 {
		page := make([]byte, size)
		for i := range page {
			page[i] = byte(i*7 + i>>8)
		}
		for _, block := range []uint32{0, 1, 131072, 1<<32 - 2} {
			got := postgres.Checksum(page, block)
			page[8], page[9] = ^page[8], ^page[9]
			if again := postgres.Checksum(page, block); again != got || got == 0 {
				t.Errorf("the checksum counts itself: %04X, then %04X", got, again)
			}
			page[900]++
			if postgres.Checksum(page, block) == got {
				t.Error("another page has the same checksum")
			}
			page[900]--
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	page := make([]byte, postgres.BlockSize)
	b.SetBytes(postgres.BlockSize)
	for b.Loop() {
		postgres.Checksum(page, 1)
	}
}

// maker makes WAL of a system from the beginning of a segment of 1 MiB on.
type maker struct {
	postgres.Origin
	start, previous postgres.LSN
	b               []byte
}

// page begins a page.
func (m *maker) page(flags byte, rest int) {
	le := binary.LittleEndian
	at := m.start + postgres.LSN(len(m.b))
	h := make([]byte, 24)
	if at%postgres.LSN(m.SegmentSize) == 0 {
		h = make([]byte, 40)
		le.PutUint64(h[24:], m.System)
		le.PutUint32(h[32:], m.SegmentSize)
		le.PutUint32(h[36:], postgres.BlockSize)
		flags |= 2
	}
	le.PutUint16(h, 0xD110)
	h[2] = flags
	le.PutUint32(h[4:], m.Timeline)
	le.PutUint64(h[8:], uint64(at))
	le.PutUint32(h[16:], uint32(rest))
	m.b = append(m.b, h...)
}

// record appends a record of a size.
func (m *maker) record(size int) {
	le, table := binary.LittleEndian, crc32.MakeTable(crc32.Castagnoli)
	if len(m.b)%postgres.BlockSize == 0 {
		m.page(0, 0)
	}
	r := bytes.Repeat([]byte{0x5A}, size)
	le.PutUint32(r, uint32(size))
	le.PutUint64(r[8:], uint64(m.previous))
	r[16], r[17] = 0, 10
	le.PutUint32(r[20:], crc32.Update(crc32.Checksum(r[24:], table), table, r[:20]))
	m.previous = m.start + postgres.LSN(len(m.b))
	for len(r) > 0 {
		if len(m.b)%postgres.BlockSize == 0 {
			m.page(1, len(r))
		}
		n := min(len(r), postgres.BlockSize-len(m.b)%postgres.BlockSize)
		m.b, r = append(m.b, r[:n]...), r[n:]
	}
	for len(m.b)%8 != 0 {
		m.b = append(m.b, 0)
	}
}

// wal is WAL with records of the sizes given, then nothing.
func wal(o postgres.Origin, start postgres.LSN, sizes ...int) []byte {
	m := maker{Origin: o, start: start}
	for _, size := range sizes {
		m.record(size)
	}
	return append(m.b, make([]byte, 3*postgres.BlockSize-len(m.b)%postgres.BlockSize)...)
}

// TestWalkerOverwritten has a crash cut off a record: the next page says that it will never be finished.
func TestWalkerOverwritten(t *testing.T) {
	o := postgres.Origin{System: 7, Timeline: 1, SegmentSize: 1 << 20}
	m := maker{Origin: o, start: 0x500000}
	m.record(100)
	first := m.previous
	m.record(9000)
	m.b, m.previous = m.b[:postgres.BlockSize], first
	m.page(8, 0)
	m.record(40)
	m.record(50)
	for _, piece := range []int{1 << 20, 11} {
		w := postgres.NewWalker(o, m.start)
		for rest := m.b; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if w.Last() != m.previous || w.End() != m.start+postgres.LSN(len(m.b)) {
			t.Errorf("the last record is at %s, and ends at %s", w.Last(), w.End())
		}
	}
	// Without the flag it is a record that does not go on.
	m.b[postgres.BlockSize+2] = 0
	if _, err := postgres.NewWalker(o, m.start).Write(m.b); err == nil || !strings.Contains(err.Error(), "does not go on here") {
		t.Error(err)
	}
}

// TestWalkerSplits lets records end and begin at each place near the end of a page.
func TestWalkerSplits(t *testing.T) {
	o := postgres.Origin{System: 7, Timeline: 1, SegmentSize: 1 << 20}
	const start = 0x500000
	for first := 8000; first < 8192; first++ {
		b := wal(o, start, first, 24, 25, 100, 20000, 31)
		var ends []postgres.LSN
		for _, piece := range []int{1 << 20, 5, 8192} {
			w := postgres.NewWalker(o, start)
			var err error
			for rest := b; len(rest) > 0 && err == nil; {
				n := min(piece, len(rest))
				_, err = w.Write(rest[:n])
				rest = rest[n:]
			}
			var end *postgres.WALError
			if !errors.As(err, &end) || !end.Empty || w.Last() == 0 {
				t.Fatalf("records of %d bytes and others, in pieces of %d: %v", first, piece, err)
			}
			ends = append(ends, w.End())
		}
		if ends[0] != ends[1] || ends[0] != ends[2] || ends[0] < start+28000 {
			t.Fatalf("a record of %d bytes: the ends are %v", first, ends)
		}
	}
}

func FuzzWAL(f *testing.F) {
	o := postgres.Origin{System: 7, Timeline: 3, SegmentSize: 1 << 20}
	f.Add(wal(o, 0x500000, 100, 8000, 30000), uint16(100), uint32(0x5000))
	f.Add(wal(o, 0x500000, 8100, 24, 9000), uint16(1), uint32(0x5000))
	f.Add(wal(o, 0x500000, 20000)[8192:], uint16(9), uint32(0x5002))
	f.Fuzz(func(t *testing.T, b []byte, piece uint16, at uint32) {
		start := postgres.LSN(at) << 8
		_ = o.Check(start, b)
		whole := postgres.NewWalker(o, start)
		n, err := whole.Write(b)
		if err == nil && n != len(b) || n > len(b) || whole.End() != 0 && whole.End() < start {
			t.Fatalf("%d of %d bytes, end %s: %v", n, len(b), whole.End(), err)
		}
		parts := postgres.NewWalker(o, start)
		parts.Observe(func(e postgres.Event) {
			if e.At < start || e.Kind < postgres.Committed || e.Kind > postgres.TablespaceMade {
				t.Errorf("%+v", e)
			}
		})
		_, second := parts.Write(nil)
		for rest := b; len(rest) > 0 && second == nil; {
			k := min(int(piece)+1, len(rest))
			_, second = parts.Write(rest[:k])
			rest = rest[k:]
		}
		if parts.End() != whole.End() || parts.Last() != whole.Last() || fmt.Sprint(err) != fmt.Sprint(second) {
			t.Fatalf("whole: %s, %v; in pieces: %s, %v", whole.End(), err, parts.End(), second)
		}
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{
		"0/3000028", "000000010000000000000002", "0000000B.history", "base/5/16384_fsm.1", "1\t0/3000000\tno recovery target specified\n", "16384 /a\\\nb\n",
		"START WAL LOCATION: 0/5000028 (file 000000020000000000000005)\nCHECKPOINT LOCATION: 0/5000060\nSTART TIMELINE: 2\n",
	} {
		f.Add([]byte(s))
	}
	f.Add(sign("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [],\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := string(b)
		if l, err := postgres.ParseLSN(s); err == nil {
			if again, err := postgres.ParseLSN(l.String()); err != nil || again != l {
				t.Errorf("%q is %s and then %s", s, l, again)
			}
		}
		if n, err := postgres.ParseName(s, 16<<20); err == nil && n.String(16<<20) != s {
			t.Errorf("%q is %+v", s, n)
		}
		if all, err := postgres.ParseTablespaceMap(b); err == nil {
			if again, err := postgres.ParseTablespaceMap(postgres.AppendTablespaceMap(nil, all)); err != nil || !cmp.Equal(again, all) {
				t.Errorf("%q is %v and then %v", s, all, again)
			}
		}
		postgres.ParseRelation(s)
		_, _ = postgres.ParseHistory(9, b)
		_, _ = postgres.ParseLabel(b)
		_, _ = postgres.ParseManifest(b)
	})
}

func FuzzControl(f *testing.F) {
	f.Add(make([]byte, 8192), uint32(1300))
	f.Fuzz(func(t *testing.T, b []byte, version uint32) {
		_, _ = postgres.ParseControl(b)
		if len(b) < 300 {
			return
		}
		// With a version and a CRC that fit, the rest is looked at.
		le := binary.LittleEndian
		le.PutUint32(b[8:], version)
		at := 288
		if version >= 1800 {
			at = 292
		}
		le.PutUint32(b[at:], crc32.Checksum(b[:at], crc32.MakeTable(crc32.Castagnoli)))
		if c, err := postgres.ParseControl(b); err == nil && (c.BlockSize == 0 || postgres.CheckSegmentSize(c.SegmentSize) != nil) {
			t.Errorf("%+v", c)
		}
	})
}

package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// frames reads a whole log and returns what counts: the last commit's number of frames and pages.
func frames(t testing.TB, log []byte, each func(f Frame, data []byte)) (committed, pages uint32) {
	t.Helper()
	h, err := ParseWALHeader(log)
	if err != nil {
		t.Fatal(err)
	}
	size := int(FrameHeaderSize + h.PageSize)
	chain := h.Chain()
	for n := uint32(1); n <= Frames(int64(len(log)), h.PageSize); n++ {
		at := FrameOffset(n, h.PageSize)
		f, ok := chain.Next(log[at : at+int64(size)])
		if !ok {
			break
		}
		if each != nil {
			each(f, log[at+FrameHeaderSize:at+int64(size)])
		}
		if f.Commit > 0 {
			committed, pages = n, f.Commit
		}
	}
	return committed, pages
}

func TestLogOfARealDatabase(t *testing.T) {
	path := logged(t, "INSERT INTO t VALUES (1, zeroblob(20000))", "INSERT INTO t VALUES (2, 'x')", "DELETE FROM t WHERE a = 1", "VACUUM")
	log, file := read(t, path+"-wal"), read(t, path)
	committed, pages := frames(t, log, func(f Frame, data []byte) {
		end := int(f.Page) * 4096
		if end > len(file) {
			file = append(file, make([]byte, end-len(file))...)
		}
		copy(file[end-4096:], data)
	})
	if committed < 8 || int64(committed) != (int64(len(log))-WALHeaderSize)/4120 {
		t.Fatalf("%d frames in a log of %d bytes", committed, len(log))
	}
	mine := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(mine, file[:pages*4096], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := query(t, mine, "SELECT group_concat(a||b) FROM t"); got != "2x" {
		t.Errorf("%q", got)
	}
	if got := query(t, mine, "PRAGMA integrity_check"); got != "ok" {
		t.Error(got)
	}
	checkIndex(t, path, log, committed, pages)
}

// checkIndex compares the wal-index that a killed process left with the log.
func checkIndex(t *testing.T, path string, log []byte, committed, pages uint32) {
	t.Helper()
	x, err := ParseIndex(read(t, path+"-shm"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := ParseWALHeader(log)
	if err != nil {
		t.Fatal(err)
	}
	last := ParseFrame(log[FrameOffset(committed, h.PageSize):])
	want := Index{
		Change: x.Change, BigEndian: h.BigEndian, PageSize: h.PageSize, MaxFrame: committed, Pages: pages,
		Frame: last.Sum, Salt: h.Salt,
	}
	if x != want || x.Change < 5 {
		t.Errorf("%+v, want %+v", x, want)
	}
}

// reversed encodes a log again with checksums of the other byte order.
func reversed(t testing.TB, log []byte) []byte {
	t.Helper()
	h, err := ParseWALHeader(log)
	if err != nil {
		t.Fatal(err)
	}
	h.BigEndian = !h.BigEndian
	out := h.Append(nil)
	if h, err = ParseWALHeader(out); err != nil {
		t.Fatal(err)
	}
	chain := h.Chain()
	frames(t, log, func(f Frame, data []byte) { out = chain.Append(out, f.Page, f.Commit, data) })
	return out
}

func TestBothByteOrders(t *testing.T) {
	path := logged(t, "INSERT INTO t VALUES (1, 'one')", "INSERT INTO t VALUES (2, zeroblob(9000))")
	log := read(t, path+"-wal")
	other := reversed(t, log)
	if bytes.Equal(other, log) || !bytes.Equal(reversed(t, other), log) {
		t.Fatal("reversed twice is not the same")
	}
	a, _ := frames(t, log, nil)
	b, _ := frames(t, other, nil)
	if a == 0 || a != b {
		t.Fatalf("%d and %d frames", a, b)
	}
	// SQLite itself takes it for good.
	copied := filepath.Join(t.TempDir(), "db")
	copyTo(t, path, copied, "")
	if err := os.WriteFile(copied+"-wal", other, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := query(t, copied, "SELECT count(*) FROM t"); got != "2" {
		t.Errorf("%s rows", got)
	}
}

// TestTornAndStaleFrames cuts and damages a log at every kind of place; what is left are whole transactions.
func TestTornAndStaleFrames(t *testing.T) {
	path := logged(t, "INSERT INTO t VALUES (1, 'one')", "INSERT INTO t VALUES (2, 'two')", "INSERT INTO t VALUES (3, zeroblob(30000))")
	log := read(t, path+"-wal")
	all, _ := frames(t, log, nil)
	commits := map[uint32]bool{0: true}
	n := uint32(0)
	frames(t, log, func(f Frame, _ []byte) {
		if n++; f.Commit > 0 {
			commits[n] = true
		}
	})
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		torn := bytes.Clone(log)
		at := WALHeaderSize + random.IntN(len(log)-WALHeaderSize)
		frame := uint32((at-WALHeaderSize)/4120) + 1
		switch random.IntN(3) {
		case 0:
			torn = torn[:at]
		case 1:
			torn[at] ^= byte(1 + random.IntN(255))
		case 2: // what an earlier generation left
			clear(torn[FrameOffset(frame, 4096)+8 : FrameOffset(frame, 4096)+16])
		}
		got, _ := frames(t, torn, nil)
		if !commits[got] || got >= frame || got > all {
			t.Fatalf("damaged in frame %d: %d frames count", frame, got)
		}
	}
	for at := range WALHeaderSize {
		torn := bytes.Clone(log)
		torn[at] ^= 0x40
		if _, err := ParseWALHeader(torn); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotDatabase) {
			t.Errorf("byte %d of the header: %v", at, err)
		}
	}
}

func TestPlaces(t *testing.T) {
	if FrameOffset(1, 4096) != 32 || FrameOffset(3, 65536) != 32+2*(24+65536) {
		t.Error("offsets")
	}
	for size, want := range map[int64]uint32{0: 0, 32: 0, 32 + 535: 0, 32 + 536: 1, 32 + 536*7 + 535: 7} {
		if got := Frames(size, 512); got != want {
			t.Errorf("%d bytes: %d frames, want %d", size, got, want)
		}
	}
}

func TestUnsettledIndex(t *testing.T) {
	x := Index{Change: 3, PageSize: 65536, MaxFrame: 9, Pages: 4, Frame: Checksum{1, 2}, Salt: Salt{3, 4}, Backfilled: 5}
	good := x.Append(nil)
	if got, err := ParseIndex(good); err != nil || got != x {
		t.Fatalf("%+v, %v", got, err)
	}
	for at := range 2 * indexCopy {
		torn := bytes.Clone(good)
		torn[at]++
		if _, err := ParseIndex(torn); !errors.Is(err, ErrUnsettled) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	for _, b := range [][]byte{nil, good[:3], make([]byte, IndexSize)} {
		if _, err := ParseIndex(b); !errors.Is(err, ErrUnsettled) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}

func FuzzLog(f *testing.F) {
	chainOf := func(big bool, pages ...uint32) []byte {
		h, err := ParseWALHeader(WALHeader{BigEndian: big, PageSize: 512, Salt: Salt{1, 2}}.Append(nil))
		if err != nil {
			f.Fatal(err)
		}
		b := h.Append(nil)
		c := h.Chain()
		for i, p := range pages {
			b = c.Append(b, p, uint32(i%2), bytes.Repeat([]byte{byte(i)}, 512))
		}
		return b
	}
	f.Add(chainOf(false, 1, 2, 3))
	f.Add(chainOf(true, 1, 1))
	f.Add(chainOf(true))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseWALHeader(b)
		if err != nil {
			return
		}
		if got := h.Append(nil); !bytes.Equal(got, b[:WALHeaderSize]) {
			t.Fatalf("%x is encoded as %x", b[:WALHeaderSize], got)
		}
		chain := h.Chain()
		size := int64(FrameHeaderSize + h.PageSize)
		for n := uint32(1); n <= Frames(int64(len(b)), h.PageSize); n++ {
			frame := b[FrameOffset(n, h.PageSize):][:size]
			before := chain
			fr, ok := chain.Next(frame)
			if !ok {
				if chain != before {
					t.Fatal("the chain moved on")
				}
				break
			}
			if got := before.Append(nil, fr.Page, fr.Commit, frame[FrameHeaderSize:]); !bytes.Equal(got, frame) || before != chain {
				t.Fatal("a frame is encoded in another way")
			}
		}
		chain.Next(b)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add(Index{Change: 3, PageSize: 4096, MaxFrame: 9}.Append(nil))
	f.Add(make([]byte, IndexSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseIndex(b, binary.BigEndian)
		x, err := ParseIndex(b)
		if err != nil {
			return
		}
		again, err := ParseIndex(x.Append(nil))
		if err != nil || again != x {
			t.Fatalf("%+v, again %+v, %v", x, again, err)
		}
	})
}

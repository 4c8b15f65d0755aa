package log

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func FuzzEntry(f *testing.F) {
	e := entry{sequence: 7, previous: snapshot.Hash{1, 2}, time: -5, more: true, body: []byte("body")}
	f.Add(e.append(nil))
	first := entry{sequence: 1}
	f.Add(first.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			if !errors.Is(err, snapshot.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if got := e.append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
	})
}

// encode is the body of a record that fits in one.
func encode(t testing.TB, r *Record) []byte {
	t.Helper()
	var out []byte
	err := r.bodies(func(body []byte, last bool) error {
		if !last {
			t.Fatal("it does not fit")
		}
		out = bytes.Clone(body)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func FuzzPages(f *testing.F) {
	r := &Record{PageSize: 512, Pages: 9, Position: []byte("here"), Each: func(yield func(uint32, []byte) error) error {
		return errors.Join(yield(1, make([]byte, 512)), yield(9, bytes.Repeat([]byte{7}, 512)))
	}}
	f.Add(encode(f, r))
	f.Add(encode(f, &Record{PageSize: 65536, Each: func(func(uint32, []byte) error) error { return nil }}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if err := decodePages(b, &r); err != nil {
			if !errors.Is(err, snapshot.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if len(b) > splitAt {
			return
		}
		if got := encode(t, &r); !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
	})
}

func FuzzRecords(f *testing.F) {
	var plain []byte
	var before snapshot.Hash
	for n := range uint64(3) {
		e := entry{sequence: n + 1, previous: before, time: int64(n), body: []byte{byte(n)}}
		plain, before = e.frame(plain)
	}
	f.Add(plain, uint64(1), uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, first, last uint64) {
		l, err := parseRecords(b, layout.LogObject{First: first, Last: last})
		if err != nil {
			return
		}
		var again []byte
		for _, e := range l.entries {
			again, _ = e.frame(again)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzPiece(f *testing.F) {
	keys := seal.NewKeys(seal.DataKey{1}, seal.Context{})
	codec := seal.NewCodec()
	f.Add(sealPiece(keys, codec, []byte("records")))
	f.Add(sealPiece(keys, codec, bytes.Repeat([]byte("records "), chunkSize/4)))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = openPiece(keys, codec, b)
		sum := sha256.Sum256(b) // what follows must stand alone: the sum is no defence
		_, _ = openPiece(keys, codec, append(bytes.Clone(b), sum[:]...))
	})
}

// TestPieceBytes has every byte of a piece changed: nothing of it may go unnoticed, and nothing may panic.
func TestPieceBytes(t *testing.T) {
	keys := seal.NewKeys(seal.NewDataKey(), seal.Context{})
	codec := seal.NewCodec()
	piece := sealPiece(keys, codec, []byte("records, whatever they are"))
	if plain, err := openPiece(keys, codec, piece); err != nil || string(plain) != "records, whatever they are" {
		t.Fatalf("%q, %v", plain, err)
	}
	for i := range piece {
		bad := bytes.Clone(piece)
		bad[i] ^= 4
		if _, err := openPiece(keys, codec, bad); err == nil {
			t.Errorf("byte %d can be changed", i)
		}
		// Also by somebody who knows how the sum is made.
		if i < len(piece)-sha256.Size {
			sum := sha256.Sum256(bad[:len(bad)-sha256.Size])
			copy(bad[len(bad)-sha256.Size:], sum[:])
			if _, err := openPiece(keys, codec, bad); err == nil {
				t.Errorf("byte %d can be changed with the sum", i)
			}
		}
		if _, err := openPiece(keys, codec, piece[:i]); err == nil {
			t.Errorf("it can be cut to %d bytes", i)
		}
	}
}

func TestLayoutOfKeys(t *testing.T) {
	src := snapshot.Source{Host: "h", Name: "s"}
	stream := "000102030405060708090a0b0c0d0e0f"
	for _, o := range []layout.LogObject{
		{Stream: stream, Epoch: 3},
		{Stream: stream, Epoch: 3, First: 1, Last: 1},
		{Stream: stream, Epoch: 3, First: 1, Last: 900, Joined: true},
	} {
		if got, err := layout.ParseLog(src, layout.LogKey(src, o)); err != nil || got != o {
			t.Errorf("%+v became %+v, %v", o, got, err)
		}
		if got, err := layout.ParseDamagedLog(src, layout.DamagedLogKey(src, o)); err != nil || got != o {
			t.Errorf("%+v became %+v, %v", o, got, err)
		}
	}
	key := layout.ExpiredLogKey(src, stream, 2, 7)
	if s, e, l, err := layout.ParseCut(layout.ExpiredLogPrefix(src), key); err != nil || s != stream || e != 2 || l != 7 {
		t.Errorf("%s %d %d %v", s, e, l, err)
	}
	// What has the number 12,345 or a higher one is under exactly one of the prefixes, what has a lower one under none.
	prefixes := layout.PiecePrefixes(src, stream, 1, 12345)
	for n := uint64(1); n < 10_000_000_000; n = n*3 + 1 {
		for _, m := range []uint64{n, n + 12343} {
			key, under := layout.LogKey(src, layout.LogObject{Stream: stream, Epoch: 1, First: m, Last: m}), 0
			for _, p := range prefixes {
				if len(key) >= len(p) && key[:len(p)] == p {
					under++
				}
			}
			if want := map[bool]int{true: 1}[m >= 12345]; under != want && m < 10_000_000_000 {
				t.Errorf("record %d is under %d prefixes", m, under)
			}
		}
	}
}

var update = flag.Bool("update", false, "rewrite the golden file")

// TestWALBytes fixes the bytes of records of WAL.
func TestWALBytes(t *testing.T) {
	for name, r := range map[string]*Record{
		"wal":     {WAL: &WAL{Start: 0x16B374D848, Bytes: bytes.Repeat([]byte("WAL "), 20)}},
		"history": {History: &History{Timeline: 3, Content: []byte("1\t0/3000000\tno recovery target specified\n2\t0/5000028\t\n")}},
	} {
		e := entry{sequence: 77, previous: sha256.Sum256([]byte("the one before")), time: 1_790_000_000_123_456_789, body: encode(t, r)}
		golden(t, name, KindPostgres, e.append(nil))
		part := e
		part.more = true
		if err := CheckRecord(KindPostgres, part.append(nil)); !errors.Is(err, snapshot.ErrFormat) {
			t.Errorf("%s that is not all of a transaction: %v", name, err)
		}
		var back Record
		if err := decodeWAL(&e, 16<<20, &back); err != nil || !cmp.Equal(back, *r) {
			t.Errorf("%s: %v, %+v", name, err, back)
		}
	}
}

func FuzzWAL(f *testing.F) {
	f.Add(encode(f, &Record{WAL: &WAL{Start: 0x16B374D848, Bytes: []byte("WAL")}}), uint32(16<<20))
	f.Add(encode(f, &Record{History: &History{Timeline: 3, Content: []byte("1\t0/3000000\n")}}), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, segment uint32) {
		var r Record
		if postgres.CheckSegmentSize(segment) != nil {
			segment = 0
		}
		if err := decodeWAL(&entry{body: b}, segment, &r); err != nil {
			if !errors.Is(err, snapshot.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if got := encode(t, &r); !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
		var p Position
		p.Enter("stream", &record.PostgresLog{System: 1, Timeline: 3, SegmentSize: 1 << 20}, true)
		_ = p.Take(&r, 1<<20)
	})
}

// TestRecordBytes fixes the bytes of a record; test/compat sets the reader in Python against them.
func TestRecordBytes(t *testing.T) {
	body := encode(t, &Record{PageSize: 512, Pages: 300, Position: []byte(`{"frames":12}`), Each: func(yield func(uint32, []byte) error) error {
		return errors.Join(yield(1, bytes.Repeat([]byte{0xa5}, 512)), yield(200, bytes.Repeat([]byte{0x5a}, 512)))
	}})
	e := entry{sequence: 1234, previous: sha256.Sum256([]byte("the one before")), time: 1_790_000_000_123_456_789, more: true, body: body}
	golden(t, "record", KindSQLite, e.append(nil))
}

func golden(t *testing.T, name, kind string, got []byte) {
	t.Helper()
	name = "testdata/" + name + ".hex"
	if *update {
		if err := os.WriteFile(name, lines(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, want %x, %v", got, want, err)
	}
	if err := CheckRecord(kind, got); err != nil {
		t.Error(err)
	}
}

// lines is hex of 64 digits a line.
func lines(b []byte) []byte {
	var out strings.Builder
	for len(b) > 0 {
		n := min(32, len(b))
		out.WriteString(hex.EncodeToString(b[:n]) + "\n")
		b = b[n:]
	}
	return []byte(out.String())
}

func TestHoleError(t *testing.T) {
	damage := &repository.DamageError{Key: "k", Err: ErrTorn}
	gone := &repository.DamageError{Key: "k", Err: objstore.ErrNotExist}
	for _, tt := range []struct {
		first, last uint64
		err         error
		want        string
	}{
		{7, 7, nil, "record 7 of epoch 2 of stream s is missing"},
		{7, 9, nil, "records 7 to 9 of epoch 2 of stream s are missing"},
		{7, 0, nil, "record 7 and later ones of epoch 2 of stream s are missing"},
		{7, 7, damage, "record 7 of epoch 2 of stream s is damaged: " + damage.Error()},
		{7, 7, gone, "record 7 of epoch 2 of stream s is missing: " + gone.Error()},
		{1, 9, ErrNoHead, "records 1 to 9 of epoch 2 of stream s can't be read: the epoch has no head that counts"},
		{7, 7, &PositionError{Timeline: 1, Want: 1 << 24, Got: 1 << 25}, "record 7 of epoch 2 of stream s can't be applied: WAL of timeline 1 from 0/1000000 to 0/2000000 is missing"},
	} {
		if got := (&HoleError{Stream: "s", Epoch: 2, First: tt.first, Last: tt.last, Err: tt.err}).Error(); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}

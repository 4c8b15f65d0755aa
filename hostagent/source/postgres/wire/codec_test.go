package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"15.18 (Debian 15.18-0+deb12u1)": {Major: 15, Minor: 18},
		"18rc1":                          {Major: 18}, "19devel": {Major: 19}, "18beta3": {Major: 18}, "13.4": {Major: 13, Minor: 4}, "9.6.24": {Major: 9, Minor: 6},
	} {
		got, err := ParseVersion(text)
		want.Text = text
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
	if v, _ := ParseVersion("15.18 (Debian 15.18-0+deb12u1)"); v.String() != "15.18" {
		t.Error(v)
	}
	for _, text := range []string{"", "x15", "(Debian)", "."} {
		if v, err := ParseVersion(text); err == nil {
			t.Errorf("%q: got %+v", text, v)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{"16MB": 16 << 20, "8192": 8192, "-1": math.MaxUint64, "1GB": 1 << 30, "64kB": 64 << 10, "2TB": 2 << 40, "0": 0} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MB", "16 MB", "16mb", "-5", "9007199254740991TB", "16MBkB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
}

func TestQuoting(t *testing.T) {
	if got := quote(`a"b`); got != `"a""b"` {
		t.Error(got)
	}
	if got := literal(`it's \`); got != `'it''s \'` {
		t.Error(got)
	}
}

// frame is a message of the protocol.
func frame(kind byte, body string) string {
	return string(kind) + string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))) + body
}

// The frontend of pgproto3 and the frames read from one connection in turns.
func TestFramesAndFrontendTakeTurns(t *testing.T) {
	long := strings.Repeat("x", 3*frameBuffer)
	stream := frame('C', "SELECT\x00") + frame('d', "data") + frame('d', long) + frame('Z', "I") + frame('C', "COPY\x00") + frame('d', "") + frame('Z', "I")
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(stream), "bytes": iotest.OneByteReader(strings.NewReader(stream)), "halves": iotest.HalfReader(strings.NewReader(stream)),
		"end with data": iotest.DataErrReader(strings.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFrames(r)
			front := pgproto3.NewFrontend(f, io.Discard)
			byFront := func(want string) {
				t.Helper()
				m, err := front.Receive()
				if err != nil {
					t.Fatal(err)
				}
				if c, ok := m.(*pgproto3.CommandComplete); !ok || string(c.CommandTag) != want {
					t.Fatalf("got %+v", m)
				}
			}
			byFrames := func(kind byte, want string) {
				t.Helper()
				k, body, err := f.next()
				if err != nil || k != kind || string(body) != want {
					t.Fatalf("got %q of %d bytes, %v", k, len(body), err)
				}
			}
			byFront("SELECT")
			byFrames('d', "data")
			byFrames('d', long)
			byFrames('Z', "I")
			byFront("COPY")
			byFrames('d', "")
			byFrames('Z', "I")
			if _, _, err := f.next(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestFramesThatEnd(t *testing.T) {
	for _, stream := range []string{"d", "d\x00\x00\x00\x08ab", "d\x00\x00\x00\x08"} {
		if _, _, err := newFrames(strings.NewReader(stream)).next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", stream, err)
		}
	}
	for _, stream := range []string{"SSH-2.0-OpenSSH", "d\x00\x00\x00\x03", "d\xff\xff\xff\xff"} {
		if _, _, err := newFrames(strings.NewReader(stream)).next(); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", stream, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(frame('d', "abc") + frame('Z', "I")))
	f.Add([]byte("d\x00\x00\x00\x03"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		fr := newFrames(bytes.NewReader(stream))
		var again []byte
		for {
			kind, body, err := fr.next()
			if err != nil {
				break
			}
			again = append(again, frame(kind, string(body))...)
		}
		if !bytes.HasPrefix(stream, again) {
			t.Errorf("%x became %x", stream, again)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte("w\x00\x00\x00\x00\x03\x00\x00\x28\x00\x00\x00\x00\x03\x00\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00WAL"))
	f.Add([]byte("k\x00\x00\x00\x00\x03\x00\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := parseMessage(body)
		if err != nil {
			return
		}
		var again []byte
		stamp := uint64(m.Time.Sub(epoch).Microseconds())
		if body[0] == 'w' {
			again = binary.BigEndian.AppendUint64([]byte{'w'}, uint64(m.Start))
			again = binary.BigEndian.AppendUint64(again, uint64(m.ServerEnd))
			again = append(binary.BigEndian.AppendUint64(again, stamp), m.WAL...)
		} else {
			again = binary.BigEndian.AppendUint64([]byte{'k'}, uint64(m.ServerEnd))
			again = append(binary.BigEndian.AppendUint64(again, stamp), body[17])
		}
		// A time that is further away than a duration can say is not what it was.
		const far = math.MaxInt64 / 1000
		at := 9
		if body[0] == 'w' {
			at = 17
		}
		if s := int64(binary.BigEndian.Uint64(body[at:])); s > far || s < -far {
			return
		}
		if !bytes.Equal(again, body) {
			t.Errorf("%x became %x", body, again)
		}
	})
}

func FuzzBackup(f *testing.F) {
	f.Add([]byte("nbase.tar\x00\x00"))
	f.Add([]byte("n16384.tar\x00/mnt\x00"))
	f.Add([]byte("p\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte("m"))
	f.Add([]byte("dcontent"))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := &Backup{c: &Conn{version: Version{Major: 15}}, Tablespaces: []Tablespace{{OID: 16384, Location: "/mnt"}, {}}}
		if err := b.tagged(body); err == nil && body[0] == 'd' && string(b.data) != string(body[1:]) {
			t.Errorf("%q is not %q", b.data, body)
		}
		_, _ = parseRow(body, 2)
		_, _, _ = parseNext(body)
		_ = serverFailure("fuzz", body)
	})
}

func TestTablespaceRows(t *testing.T) {
	row := func(v ...string) (out [][]byte) {
		for _, s := range v {
			if s == "NULL" {
				out = append(out, nil)
			} else {
				out = append(out, []byte(s))
			}
		}
		return out
	}
	// More KiB than fit into an int32, as pglogrepl would have it.
	got, err := parseTablespace(row("16384", "/mnt/fast", "5000000000"))
	if err != nil || got != (Tablespace{OID: 16384, Location: "/mnt/fast", Size: 5000000000 << 10}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := parseTablespace(row("NULL", "NULL", "NULL")); err != nil || got != (Tablespace{}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range [][][]byte{row("0", "/", "1"), row("x", "/", "1"), row("1", "/", "-1"), row("5000000000", "/", "1")} {
		if got, err := parseTablespace(bad); err == nil {
			t.Errorf("%q: got %+v", bad, got)
		}
	}
	if at, timeline, err := parsePosition(row("0/2000028", "3")); err != nil || at != postgres.LSN(0x2000028) || timeline != 3 {
		t.Errorf("got %s, %d, %v", at, timeline, err)
	}
}

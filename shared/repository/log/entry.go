package log

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const flagMore = 1

// entry is one record as it is stored, whatever its kind. Its body is that of the kind.
type entry struct {
	sequence uint64
	previous snapshot.Hash // of the record before it; zero for the first of a stream
	time     int64         // of the newest commit, in nanoseconds since 1970
	more     bool          // before the next record without this there is no point in time
	body     []byte
}

// append appends the record's bytes, without their length.
func (e *entry) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, e.sequence)
	dst = append(dst, e.previous[:]...)
	dst = binary.AppendVarint(dst, e.time)
	flags := byte(0)
	if e.more {
		flags = flagMore
	}
	return append(append(dst, flags), e.body...)
}

// frame appends the record with its length, as pieces hold it, and returns its hash.
func (e *entry) frame(dst []byte) ([]byte, snapshot.Hash) {
	b := e.append(make([]byte, 0, len(e.body)+64))
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...), sha256.Sum256(b)
}

// decodeEntry parses the bytes of a record; the body aliases them.
func decodeEntry(b []byte) (entry, error) {
	d := decoder{b: b}
	e := entry{sequence: d.uvarint()}
	copy(e.previous[:], d.bytes(len(e.previous)))
	e.time = d.varint()
	flags := d.bytes(1)
	if d.err == nil {
		e.more = flags[0] == flagMore
		if flags[0] > flagMore {
			d.fail("flags %d", flags[0])
		}
		if e.sequence == 0 || e.sequence > snapshot.MaxSequence {
			d.fail("record number %d", e.sequence)
		}
	}
	if d.err != nil {
		return entry{}, fmt.Errorf("decode record: %w", d.err)
	}
	e.body = d.b[d.off:]
	return e, nil
}

// nextFrame takes the next record off b: its bytes and how many b is shorter afterwards; 0 if b ends before it does.
func nextFrame(b []byte) (record []byte, n int, err error) {
	length, size := binary.Uvarint(b)
	switch {
	case size == 0 && len(b) < binary.MaxVarintLen64:
		return nil, 0, nil
	case size <= 0, size > 1 && b[size-1] == 0, length == 0, length > MaxRecord:
		return nil, 0, fmt.Errorf("decode record: %w: length %d", snapshot.ErrFormat, length)
	case uint64(len(b)-size) < length:
		return nil, 0, nil
	}
	n = size + int(length)
	return b[size:n:n], n, nil
}

// decoder takes apart the bytes of a record. The first mistake sticks.
type decoder struct {
	b   []byte
	off int
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", snapshot.ErrFormat, fmt.Sprintf(format, args...))
	}
}

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.off:])
	if n <= 0 || n > 1 && d.b[d.off+n-1] == 0 {
		d.fail("a number is truncated, too long or not in its shortest form")
		return 0
	}
	d.off += n
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// bytes returns the next n bytes, which alias the input.
func (d *decoder) bytes(n int) []byte {
	if d.err == nil && (n < 0 || n > len(d.b)-d.off) {
		d.fail("truncated")
	}
	if d.err != nil {
		return nil
	}
	d.off += n
	return d.b[d.off-n : d.off : d.off]
}

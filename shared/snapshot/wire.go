package snapshot

import (
	"encoding/binary"
	"fmt"
	"math"
)

// reader takes apart the bytes of one chunk or list. The first mistake sticks: after it, every method returns zero values,
// so that decoders check the error once per record and not once per field.
type reader struct {
	b   []byte // what is left
	err error
}

// fail records the first mistake and makes the reader empty.
func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

// done reports the first mistake; bytes that are left over are one.
func (r *reader) done() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d trailing bytes", len(r.b))
	}
	return r.err
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("truncated")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// uvarint reads an unsigned LEB128 number in its shortest form.
func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := uint64(r.b[0])
		r.b = r.b[1:]
		return v
	}
	return r.longUvarint()
}

func (r *reader) longUvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	switch {
	case n == 0:
		r.fail("truncated")
		return 0
	case n < 0:
		r.fail("number over 64 bits")
		return 0
	case n > 1 && r.b[n-1] == 0:
		r.fail("number not in its shortest form")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// varint reads a zigzag number.
func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// uint32 reads a uvarint that must fit 32 bits.
func (r *reader) uint32(what string) uint32 {
	v := r.uvarint()
	if v > math.MaxUint32 {
		r.fail("%s %d is over 32 bits", what, v)
		return 0
	}
	return uint32(v)
}

// bytes returns the next n bytes; they alias the input.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail("truncated")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// str returns the bytes of a string; they alias the input.
func (r *reader) str() []byte { return r.bytes(r.uvarint()) }

func (r *reader) hash() (h Hash) {
	copy(h[:], r.bytes(uint64(len(h))))
	return h
}

// count reads how many items follow and refuses more than the bytes that are left can hold, so that a few bytes never make
// a decoder reserve much memory. atLeast is the size of the smallest item.
func (r *reader) count(what string, atLeast int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/atLeast) {
		r.fail("%d %s do not fit in %d bytes", n, what, len(r.b))
		return 0
	}
	return int(n)
}

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

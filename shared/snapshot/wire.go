package snapshot

import (
	"encoding/binary"
	"fmt"
	"math"
)

// reader takes apart the bytes of one chunk or list. The first mistake sticks: after it, every method returns zero values,
// so that decoders check the error once per record and not once per field.
//
// It moves an offset and not the slice: that would cost a write barrier per field while the garbage collector runs.
type reader struct {
	b   []byte
	off int // into b
	err error
}

// left returns how many bytes are left.
func (r *reader) left() int { return len(r.b) - r.off }

// fail records the first mistake and makes the reader empty.
func (r *reader) fail(format string, args ...any) {
	r.refuse(fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...)))
}

// refuse is fail with an error that is there already.
func (r *reader) refuse(err error) {
	if r.err == nil {
		r.err = err
	}
	r.off = len(r.b)
}

// done reports the first mistake; bytes that are left over are one.
func (r *reader) done() error {
	if r.err == nil && r.left() != 0 {
		r.fail("%d trailing bytes", r.left())
	}
	return r.err
}

func (r *reader) byte() byte {
	if r.left() == 0 {
		r.fail("truncated")
		return 0
	}
	c := r.b[r.off]
	r.off++
	return c
}

// uvarint reads an unsigned LEB128 number in its shortest form.
func (r *reader) uvarint() uint64 {
	if uint(r.off) < uint(len(r.b)) && r.b[r.off] < 0x80 {
		r.off++
		return uint64(r.b[r.off-1])
	}
	return r.longUvarint()
}

func (r *reader) longUvarint() uint64 {
	v, n := binary.Uvarint(r.b[r.off:])
	switch {
	case n == 0:
		r.fail("truncated")
		return 0
	case n < 0:
		r.fail("number over 64 bits")
		return 0
	case n > 1 && r.b[r.off+n-1] == 0:
		r.fail("number not in its shortest form")
		return 0
	}
	r.off += n
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
	if n > uint64(r.left()) {
		r.fail("truncated")
		return nil
	}
	b := r.b[r.off:][:n:n]
	r.off += int(n)
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
	if n > uint64(r.left()/atLeast) {
		r.fail("%d %s do not fit in %d bytes", n, what, r.left())
		return 0
	}
	return int(n)
}

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

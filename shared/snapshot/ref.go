package snapshot

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Overhead is what sealing adds to a plain chunk that is stored uncompressed: the method byte and the tag. No chunk is
// larger: what compression does not make smaller is stored as it is.
const Overhead = 1 + 16

// MaxPackNumber is the highest pack number. A chain never gets there; the limit bounds what sets of pack numbers cost.
const MaxPackNumber = 1<<32 - 1

// minRef is the size of the shortest ref in bytes, minExtent that of the shortest extent.
const (
	minRef    = 4 + 32
	minExtent = 2
)

// Check reports a ref that no pack can hold.
func (r *Ref) Check() error {
	switch {
	case r.Pack == 0 || r.Pack > MaxPackNumber:
		return fmt.Errorf("%w: ref to pack number %d", ErrFormat, r.Pack)
	case r.Offset < PackHeaderSize:
		return fmt.Errorf("%w: ref to offset %d, inside the header of pack %d", ErrFormat, r.Offset, r.Pack)
	case uint64(r.Offset)+uint64(r.Sealed) > MaxPack:
		return fmt.Errorf("%w: ref to offset %d, length %d, over the limit of a pack", ErrFormat, r.Offset, r.Sealed)
	}
	return checkLengths(r.Sealed, r.Plain)
}

func checkLengths(sealed, plain uint32) error {
	switch {
	case plain == 0 || plain > MaxChunk:
		return fmt.Errorf("%w: chunk of %d bytes", ErrFormat, plain)
	case sealed <= Overhead || sealed > plain+Overhead:
		return fmt.Errorf("%w: chunk of %d bytes sealed in %d", ErrFormat, plain, sealed)
	}
	return nil
}

// JSON returns the ref as manifests write it.
func (r Ref) JSON() JSONRef {
	return JSONRef{Pack: r.Pack, Offset: r.Offset, Sealed: r.Sealed, Plain: r.Plain, ID: r.ID.String()}
}

// Ref returns the checked ref.
func (j JSONRef) Ref() (Ref, error) {
	id, err := ParseHash(j.ID)
	if err != nil {
		return Ref{}, fmt.Errorf("chunk id: %w", err)
	}
	r := Ref{Pack: j.Pack, Offset: j.Offset, Sealed: j.Sealed, Plain: j.Plain, ID: id}
	return r, r.Check()
}

func appendRef(dst []byte, r *Ref) []byte {
	dst = binary.AppendUvarint(dst, r.Pack)
	dst = binary.AppendUvarint(dst, uint64(r.Offset))
	dst = binary.AppendUvarint(dst, uint64(r.Sealed))
	dst = binary.AppendUvarint(dst, uint64(r.Plain))
	return append(dst, r.ID[:]...)
}

func (r *reader) ref(to *Ref) {
	to.Pack = r.uvarint()
	to.Offset = r.uint32("offset")
	to.Sealed = r.uint32("sealed length")
	to.Plain = r.uint32("plain length")
	to.ID = r.hash()
	if r.err != nil {
		return
	}
	if err := to.Check(); err != nil {
		r.refuse(err)
	}
}

// CheckExtents reports extents that the format does not allow and returns the number of bytes that they cover.
func CheckExtents(extents []Extent) (length uint64, err error) {
	for i := range extents {
		if err := extents[i].check(); err != nil {
			return 0, err
		}
		if length += extents[i].Length; length > math.MaxInt64 {
			return 0, fmt.Errorf("%w: extents of more than %d bytes", ErrFormat, int64(math.MaxInt64))
		}
	}
	return length, nil
}

func (e *Extent) check() error {
	if e.Length == 0 || e.Length > math.MaxInt64 {
		return fmt.Errorf("%w: extent of %d bytes", ErrFormat, e.Length)
	}
	if e.Hole {
		return nil
	}
	if err := e.Ref.Check(); err != nil {
		return err
	}
	return e.checkRun()
}

// checkRun checks that the run lies within the chunk.
func (e *Extent) checkRun() error {
	if e.Length > uint64(e.Ref.Plain) || uint64(e.Offset)+e.Length > uint64(e.Ref.Plain) {
		return fmt.Errorf("%w: extent of %d bytes at %d of a chunk of %d bytes", ErrFormat, e.Length, e.Offset, e.Ref.Plain)
	}
	return nil
}

// appendExtents writes the count and the extents. Holes that follow each other are written as one, and empty extents are
// left out: decoders refuse both.
func appendExtents(dst []byte, extents []Extent) []byte {
	dst = binary.AppendUvarint(dst, uint64(countExtents(extents)))
	for i := 0; i < len(extents); i++ {
		e := &extents[i]
		if e.Length == 0 {
			continue
		}
		if !e.Hole {
			dst = appendRef(append(dst, 1), &e.Ref)
			dst = binary.AppendUvarint(dst, uint64(e.Offset))
			dst = binary.AppendUvarint(dst, e.Length)
			continue
		}
		length := e.Length
		for i+1 < len(extents) && (extents[i+1].Hole || extents[i+1].Length == 0) {
			i++
			length += extents[i].Length
		}
		dst = binary.AppendUvarint(append(dst, 0), length)
	}
	return dst
}

// countExtents counts the extents that appendExtents writes.
func countExtents(extents []Extent) int {
	n, hole := 0, false
	for i := range extents {
		e := &extents[i]
		if e.Length == 0 || e.Hole && hole {
			continue
		}
		n++
		hole = e.Hole
	}
	return n
}

// extents reads a count and that many extents into room, if that suffices, and returns how many bytes they cover.
func (r *reader) extents(room []Extent) (list []Extent, length uint64) {
	n := r.count("extents", minExtent)
	if n == 0 {
		return nil, 0
	}
	list = room[:0]
	if n > cap(list) {
		// Holes alternate with data, which takes 40 bytes: the bytes left bound the memory.
		list = make([]Extent, 0, min(n, r.left()/(minExtent+minRef+1)*2+2))
	}
	hole := false
	for range n {
		list = append(list, Extent{})
		e := &list[len(list)-1]
		r.extent(e)
		if r.err == nil && e.Hole && hole {
			r.fail("a hole follows a hole")
		}
		hole = e.Hole
		if length += e.Length; length > math.MaxInt64 {
			r.fail("extents of more than %d bytes", int64(math.MaxInt64))
		}
		if r.err != nil {
			return nil, 0
		}
	}
	return list, length
}

func (r *reader) extent(e *Extent) {
	switch tag := r.byte(); tag {
	case 0:
		e.Hole = true
	case 1:
		r.ref(&e.Ref)
		e.Offset = r.uint32("offset in the chunk")
	default:
		r.fail("extent of kind %d", tag)
	}
	e.Length = r.uvarint()
	if r.err != nil {
		return
	}
	var err error
	if e.Length == 0 || e.Length > math.MaxInt64 {
		err = fmt.Errorf("%w: extent of %d bytes", ErrFormat, e.Length)
	} else if !e.Hole {
		err = e.checkRun()
	}
	if err != nil {
		r.refuse(err)
	}
}

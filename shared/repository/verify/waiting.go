package verify

import (
	"fmt"
	"hash/crc32"
	"os"
	"slices"
)

// waitingHeld is how many bytes wait in memory; more are in the file.
const waitingHeld = 1 << 20

// waitingRoom keeps byte slices until they are wanted: a few in memory, more in a file that has no name and goes with the
// process. Where it can't be written all stay in memory.
type waitingRoom struct {
	held   int // bytes in memory
	f      *os.File
	end    int64
	inFile int // slices
	failed bool
}

// waiter is a slice in the waiting room.
type waiter struct {
	held []byte // nil: it is in the file
	from int64
	size int
	sum  uint32
}

// put keeps a copy of b.
func (r *waitingRoom) put(b []byte) waiter {
	if r.held+len(b) > waitingHeld && !r.failed {
		w := waiter{from: r.end, size: len(b), sum: crc32.ChecksumIEEE(b)}
		if r.write(b) == nil {
			r.inFile++
			r.end += int64(len(b))
			return w
		}
		r.failed = true
	}
	r.held += len(b)
	return waiter{held: slices.Clone(b), size: len(b)}
}

func (r *waitingRoom) write(b []byte) error {
	if r.f == nil {
		f, err := os.CreateTemp("", "holdfast-verify-*")
		if err != nil {
			return fmt.Errorf("make a file for maps: %w", err)
		}
		r.f = f
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("take a file's name: %w", err)
		}
	}
	if _, err := r.f.WriteAt(b, r.end); err != nil {
		return fmt.Errorf("write maps: %w", err)
	}
	return nil
}

// take returns what was put, once.
func (r *waitingRoom) take(w waiter) ([]byte, error) {
	if w.held != nil || w.size == 0 {
		r.held -= w.size
		return w.held, nil
	}
	b := make([]byte, w.size)
	_, err := r.f.ReadAt(b, w.from)
	if r.inFile--; r.inFile == 0 {
		r.end = 0
	}
	if err != nil {
		return nil, fmt.Errorf("read maps again: %w", err)
	}
	if crc32.ChecksumIEEE(b) != w.sum {
		return nil, fmt.Errorf("read maps again: %d bytes are not what was written", w.size)
	}
	return b, nil
}

func (r *waitingRoom) close() {
	if r.f != nil {
		_ = r.f.Close() // nothing of it is needed any more
	}
	*r = waitingRoom{}
}

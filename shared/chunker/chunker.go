// Package chunker cuts content into chunks at places that the content itself determines, so that an insertion changes only
// the chunks around it (FastCDC: a gear hash with normalised chunking). The gear table is derived from the chain's data key,
// so that the lengths of chunks tell nothing about known content.
//
// Readers need none of this: where content is cut is no part of the format. But a chain shares its chunks only as long as
// they are cut alike, so the places must not change between versions; a test pins them.
package chunker

import (
	"fmt"
	"math/bits"
)

// window is how many bytes before a place decide about it: the gear hash shifts older ones out.
const window = 64

// Sizes are the sizes of chunks in bytes.
type Sizes struct {
	Min, Avg, Max int // Avg must be a power of two, Min at least 64 and less than Avg, Avg less than Max
}

// Default returns the sizes for files: 256 KiB, 1 MiB, 4 MiB.
func Default() Sizes { return Sizes{Min: 256 << 10, Avg: 1 << 20, Max: 4 << 20} }

// Check reports sizes that do not work.
func (s Sizes) Check() error {
	if s.Min < window || s.Min >= s.Avg || s.Avg >= s.Max || s.Avg > 1<<30 || bits.OnesCount(uint(s.Avg)) != 1 {
		return fmt.Errorf("chunk sizes %d, %d, %d: want 64 ≤ min < avg < max, and avg a power of two", s.Min, s.Avg, s.Max)
	}
	return nil
}

// Chunker finds the ends of chunks. It is safe for concurrent use.
type Chunker struct {
	gear   *[256]uint64
	sizes  Sizes
	strict uint64 // before Avg: a chunk ends where the hash is below it
	loose  uint64 // from Avg on
}

// New returns a chunker with a chain's gear table. It panics on sizes that fail [Sizes.Check].
func New(gear *[256]uint64, sizes Sizes) *Chunker {
	if err := sizes.Check(); err != nil {
		panic("chunker: " + err.Error())
	}
	// Normalised chunking, level 2: a quarter of the usual chance to end before the average size, four times the chance
	// after it. The high bits of the hash have seen the most bytes, so "below a power of two" is the mask.
	n := bits.TrailingZeros(uint(sizes.Avg))
	return &Chunker{gear: gear, sizes: sizes, strict: 1 << (64 - (n + 2)), loose: 1 << (64 - (n - 2))}
}

// Cut returns the length of the first chunk of data. data has at least Max bytes, or is all that is left of the content.
func (c *Chunker) Cut(data []byte) int {
	n := min(len(data), c.sizes.Max)
	if n <= c.sizes.Min {
		return n
	}
	// Whether a chunk ends at a place depends on the 64 bytes before it, not on where the chunk began.
	hash := uint64(0)
	for _, b := range data[c.sizes.Min-window : c.sizes.Min] {
		hash = hash<<1 + c.gear[b]
	}
	avg := min(n, c.sizes.Avg)
	length, hash := scan(c.gear, data[c.sizes.Min:avg], hash, c.strict)
	if hash < c.strict || n == avg {
		return c.sizes.Min + length
	}
	length, _ = scan(c.gear, data[avg:n], hash, c.loose)
	return avg + length
}

// scan returns how many bytes it takes from data until the hash falls below limit, all of them if it never does.
func scan(gear *[256]uint64, data []byte, hash, limit uint64) (int, uint64) {
	i := 0
	for ; i+8 <= len(data); i += 8 {
		d := (*[8]byte)(data[i:])
		if hash = hash<<1 + gear[d[0]]; hash < limit {
			return i + 1, hash
		}
		if hash = hash<<1 + gear[d[1]]; hash < limit {
			return i + 2, hash
		}
		if hash = hash<<1 + gear[d[2]]; hash < limit {
			return i + 3, hash
		}
		if hash = hash<<1 + gear[d[3]]; hash < limit {
			return i + 4, hash
		}
		if hash = hash<<1 + gear[d[4]]; hash < limit {
			return i + 5, hash
		}
		if hash = hash<<1 + gear[d[5]]; hash < limit {
			return i + 6, hash
		}
		if hash = hash<<1 + gear[d[6]]; hash < limit {
			return i + 7, hash
		}
		if hash = hash<<1 + gear[d[7]]; hash < limit {
			return i + 8, hash
		}
	}
	for ; i < len(data); i++ {
		if hash = hash<<1 + gear[data[i]]; hash < limit {
			return i + 1, hash
		}
	}
	return i, hash
}

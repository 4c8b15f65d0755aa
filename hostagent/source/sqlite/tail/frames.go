package tail

import (
	"context"
	"errors"
	"io"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// readSize is about how much of a log is read at once, in bytes.
const readSize = 512 << 10

type pageFunc = func(number uint32, data []byte) error

// errStop ends a walk without an error.
var errStop = errors.New("stop")

// part is a run of frames of one generation.
type part struct {
	chain    sqlite.Chain // before from
	from, to uint32       // numbers of frames, both included; to = 0: as far as the chain goes
}

// walk calls each for the frames of p as long as they continue the chain. It returns the chain and the number of the last
// frame that did; if nothing of p is there, that before it.
func (t *Tail) walk(ctx context.Context, p part, each func(n uint32, f sqlite.Frame, data []byte) error) (sqlite.Chain, uint32, error) {
	size := sqlite.FrameHeaderSize + int(t.page)
	at, chain := p.from, p.chain
	info, err := held(t.files.wal)
	if err != nil {
		return chain, at - 1, stateOf(t.path, err)
	}
	end := sqlite.Frames(info.stamp.Size, t.page)
	if p.to > 0 {
		end = min(end, p.to)
	}
	for at <= end {
		if err := ctx.Err(); err != nil {
			return chain, at - 1, err
		}
		count := min(max(1, readSize/size), int(end-at)+1)
		if len(t.buf) < count*size {
			t.buf = make([]byte, count*size)
		}
		n, err := t.files.wal.ReadAt(t.buf[:count*size], sqlite.FrameOffset(at, t.page))
		if err != nil && !errors.Is(err, io.EOF) {
			return chain, at - 1, stateOf(t.path, err)
		}
		for b := t.buf[:n]; len(b) >= size; b = b[size:] {
			before := chain
			f, ok := chain.Next(b[:size])
			if !ok {
				return chain, at - 1, nil
			}
			if err := each(at, f, b[sqlite.FrameHeaderSize:size]); errors.Is(err, errStop) {
				return chain, at, nil
			} else if err != nil {
				return before, at - 1, err
			}
			at++
		}
		if n < count*size {
			break // shorter than it was
		}
	}
	return chain, at - 1, nil
}

// tally counts the transactions in frames. A last frame that comes again, byte for byte, is padding to the end of a
// sector (PRAGMA synchronous=FULL where writes are not power-safe), or a transaction that wrote the same again: the
// frames do not tell, so there are two counts.
type tally struct {
	least, most int
	last        sqlite.Frame // the newest frame
	page        []byte       // of the newest frame, if it ends a transaction

	frames uint32 // number of the newest frame that ends a transaction
	sum    sqlite.Checksum
	before mark // before the newest transaction
	pages  uint32
}

// tallyFrom begins to count before the first frame of p.
func tallyFrom(p part) tally {
	m := mark{frames: p.from - 1, sum: p.chain.Sum}
	return tally{frames: m.frames, sum: m.sum, before: m}
}

// add takes frame number n in.
func (c *tally) add(n uint32, f sqlite.Frame, data []byte) {
	again := c.last.Commit > 0 && f.Commit == c.last.Commit && f.Page == c.last.Page && string(data) == string(c.page)
	c.last = f
	if f.Commit == 0 {
		return
	}
	c.most++
	if !again {
		c.least++
		c.page = append(c.page[:0], data...)
		c.before = mark{frames: c.frames, sum: c.sum}
	}
	c.frames, c.sum, c.pages = n, f.Sum, f.Commit
}

// doubling is what is known of frames that come again.
type doubling int

const (
	unknown      doubling = iota
	transactions          // each is one of its own
	padding               // or some are
)

// learn takes in that a span of frames had that many commits by the index.
func (d *doubling) learn(c *tally, commits uint32) {
	if c.least == c.most || commits < uint32(c.least) || commits > uint32(c.most) {
		return
	}
	if commits == uint32(c.most) && *d != padding {
		*d = transactions
	} else if commits < uint32(c.most) {
		*d = padding
	}
}

// count is how many transactions a tally stands for. If it is not sure there are at least that many.
func (d doubling) count(c *tally) (n int, sure bool) {
	if d == transactions {
		return c.most, true
	}
	return c.least, d == padding || c.least == c.most
}

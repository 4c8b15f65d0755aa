package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/spool"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// errOver says that a lineage ended while somebody made a snapshot of it.
var errOver = errors.New("the log of the database can not be followed any more")

// Capture is the tail of a snapshot that is made while the database is followed: what the follower reads goes to both. Its
// methods are for one goroutine.
type Capture struct {
	l     *lineage
	whole bool // the log's present generation was given out
	base  bool // the snapshot begins the stream
	size  uint32
	taken func() // lets others make snapshots; nil: the follower does that

	// Guarded by the lineage's mu.
	pages    *spool.Spool // newest versions since the last Poll
	commits  int
	behind   uint64 // records that end where the last look by Last did: what the snapshot holds, and nothing else
	polled   bool
	position tail.Position // of the last look by Last
	broken   error         // the spool failed

	spare *spool.Spool
}

// Capture begins a capture that goes on beside the records. It returns nil where no log is written, so that a snapshot
// must see for itself. The caller ends with [Capture.Close]. No other snapshot is made by the follower meanwhile.
func (f *Follower) Capture(ctx context.Context) (*Capture, error) {
	taken, err := f.Take(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	l := f.live
	f.mu.Unlock()
	if l == nil {
		return &Capture{l: &lineage{f: f}, taken: taken}, nil
	}
	c := l.capture(false)
	c.taken = taken
	return c, nil
}

// Tail reports whether there is a log to poll; without, the snapshot is made for itself.
func (c *Capture) Tail() bool { return c.l.tail != nil }

// Close ends the capture. It can be called more than once.
func (c *Capture) Close() {
	if c.l == nil {
		return
	}
	c.l.release(c)
	if c.taken != nil {
		c.taken()
	}
	c.l = nil
}

const (
	// captureMemory is how much of what is committed during a capture waits in memory, in bytes; the rest is in a file.
	captureMemory = 2 << 20
	// captureDisk is how much of it waits on disk: all, as the snapshot needs room for it anyway.
	captureDisk = 1 << 60
)

// capture registers a capture: what is read from now on goes to it as well.
func (l *lineage) capture(base bool) *Capture {
	pages := spool.Options{Dir: l.f.o.Dir, Memory: captureMemory, Disk: captureDisk}
	c := &Capture{l: l, base: base, whole: base, pages: spool.New(pages), spare: spool.New(pages)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.captures = append(l.captures, c)
	return c
}

func (l *lineage) release(c *Capture) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.captures {
		if l.captures[i] == c {
			l.captures = append(l.captures[:i:i], l.captures[i+1:]...)
			break
		}
	}
	if c.pages != nil {
		c.pages.Close()
		c.spare.Close()
	}
}

// Poll gives out the pages that were committed since the last call; the first call those of the whole generation of the
// log.
func (c *Capture) Poll(ctx context.Context, page func(number uint32, data []byte) error) (tail.Batch, error) {
	return c.look(ctx, page, false)
}

// Last is Poll after which the snapshot may be complete: a record ends exactly here. Where a snapshot had more than the
// record after which it stands, another history could go on from that record, of a machine that was put back to an earlier
// state or of its clone, and would be laid over what it does not know.
func (c *Capture) Last(ctx context.Context, page func(number uint32, data []byte) error) (tail.Batch, error) {
	return c.look(ctx, page, true)
}

func (c *Capture) look(ctx context.Context, page func(number uint32, data []byte) error, last bool) (tail.Batch, error) {
	if !c.whole {
		// The follower has read past what the database file may not have yet. What it reads beside this comes again in the
		// next round, in a version that is as new or newer: the look below is later than this one.
		var err error
		if c.size, err = c.wholeLog(ctx, page); err != nil {
			return tail.Batch{}, err
		}
		c.whole = true
	}
	b, drained, err := c.l.drain(ctx, c, last)
	if err != nil {
		return tail.Batch{}, err
	}
	defer drained.Reset()
	return b, drained.Each(page)
}

// wholeTries is how often the log is read that changes while it is.
const wholeTries = 50

// wholeLog gives out the pages of the present generation of the log, and returns the size of the database in pages; 0 if
// there is no log.
func (c *Capture) wholeLog(ctx context.Context, page func(number uint32, data []byte) error) (size uint32, err error) {
	t, err := tail.Open(c.l.f.o.Path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	defer c.spare.Reset()
	for tries := 1; ; tries++ {
		var b tail.Batch
		if err = t.Start(); err == nil {
			b, err = t.Poll(ctx, c.spare.Put)
		}
		if err == nil {
			c.spare.Keep()
			return b.Pages, c.spare.Each(page)
		}
		c.spare.Drop()
		var gap *tail.GapError
		var state *tail.StateError
		if tries == wholeTries || !errors.As(err, &gap) && !errors.As(err, &state) {
			return 0, err
		}
		replicate.Sleep(ctx, busyTick)
	}
}

// drain looks at the database once more, and takes what the capture has. With last a record ends there.
func (l *lineage) drain(ctx context.Context, c *Capture, last bool) (tail.Batch, *spool.Spool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lookNow(ctx)
	switch {
	case c.broken != nil:
		return tail.Batch{}, nil, c.broken
	case l.over != nil:
		return tail.Batch{}, nil, l.over
	case ctx.Err() != nil:
		return tail.Batch{}, nil, ctx.Err()
	}
	if last && !c.base {
		if err := l.sealOpen(); err != nil {
			return tail.Batch{}, nil, err
		}
	}
	b := tail.Batch{Commits: c.commits, Pages: l.last.Pages, PageSize: l.last.PageSize, Position: l.last.Position, Time: l.last.Time}
	if b.Pages == 0 {
		b.Pages = c.size // nothing was committed since the follower began
	}
	c.pages, c.spare, c.commits = c.spare, c.pages, 0
	if last {
		c.behind, c.polled, c.position = l.cuts+uint64(len(l.sealed)), true, b.Position
	}
	if c.base {
		// The snapshot holds it: the stream begins after it.
		l.open.reset()
	}
	return b, c.spare, nil
}

// Place waits until all records that the snapshot holds are durable, which are shipped at once, and returns the place of
// the last; nil if the log ended before: then the snapshot stands for itself.
func (c *Capture) Place(ctx context.Context) (*log.Place, error) {
	if !c.Tail() {
		return nil, nil //nolint:nilnil // a snapshot without a log is what the caller asked about
	}
	if !c.polled {
		return nil, errors.New("place in the log: the log was not read")
	}
	place, err := c.l.placed(ctx, c.behind)
	if err != nil {
		if ctx.Err() != nil || c.base {
			return nil, fmt.Errorf("place in the log: %w", err)
		}
		return nil, nil //nolint:nilerr,nilnil // the snapshot is good without
	}
	return &place, nil
}

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/sqlite"
)

const (
	// pollEvery is how often the log is looked at while the file is read. What a connection commits and at once moves into
	// the file by a checkpoint that empties the log must have been seen between: that takes it some writes and a sync.
	pollEvery = time.Millisecond
	// How often something may be missed before a capture gives up: in any case, and once all was read so many times.
	mostMissed = 1000
	maxMissed  = 20
	maxPasses  = 8
	// lastTries is how often the last look is tried, as the log may change faster than can be looked.
	lastTries = 1000
)

// ownTail is a tail that can begin anew.
type ownTail struct {
	*tail.Tail
}

// tail opens the log, from its beginning.
func (c *capture) tail() (*ownTail, error) {
	t, err := tail.Open(c.real)
	if err != nil {
		return nil, err
	}
	if err := t.Start(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return &ownTail{t}, nil
}

func (t *ownTail) close() {
	if t.Tail != nil {
		_ = t.Close()
	}
}

// following looks at the log while the file is read.
type following struct {
	c      *capture
	tail   Tail
	batch  tail.Batch  // of the last look
	pages  uint32      // of the database, after the newest commit; 0: there was none
	file   uint64      // bytes of the file before the last look, which is all there is if there was no commit
	failed atomic.Bool // err is set; valid when the goroutine has ended
	err    error
	stop   context.CancelFunc
	done   chan struct{}
}

// errTainted says that a look failed which had delivered pages: they may be of no commit.
var errTainted = errors.New("the log could not be read to its end")

// look looks at the log once; last: perhaps for the last time. Errors: those of Poll; with errTainted if what is known of
// the pages does not count any more.
func (f *following) look(ctx context.Context, last bool) error {
	delivered, poll := false, f.tail.Poll
	if e, ok := f.tail.(Ender); ok && last {
		poll = e.Last
	}
	b, err := poll(ctx, func(number uint32, data []byte) error {
		delivered = true
		if uint32(len(data)) != f.c.page {
			return errAgain
		}
		return f.c.over.put(number, data)
	})
	var state *tail.StateError
	if err != nil && delivered && errors.As(err, &state) {
		return errors.Join(errTainted, err)
	}
	if err != nil {
		return err
	}
	if f.batch = b; b.Pages > 0 {
		f.pages = b.Pages
	}
	if b.PageSize != 0 && b.PageSize != f.c.page {
		return errAgain
	}
	return nil
}

// first begins with what is in the log. From here on whatever the file gets is in the log as well: so it is only now that
// the file is measured. A tail that was given may have begun with this first look, and not before.
func (f *following) first(ctx context.Context) error {
	f.pages = 0
	if err := f.last(ctx); err != nil {
		return err
	}
	if err := unix.Fstat(int(f.c.file.Fd()), &f.c.stat); err != nil {
		return &Error{Path: f.c.Path, Err: fmt.Errorf("stat: %w", err)}
	}
	p := f.batch.Position
	if p.Inode != 0 && (p.Inode != f.c.stat.Ino || p.Device != uint64(f.c.stat.Dev)) { //nolint:unconvert // not a uint64 everywhere
		return errAgain
	}
	return nil
}

// last looks until it has seen all that there is: also what is in a log that has taken the place of the one that was
// followed. When the log was written to is noted before, unless there is nothing in it, and so is the size of the file.
func (f *following) last(ctx context.Context) error {
	for tries := 1; ; tries++ {
		size, err := f.c.fileSize(f.c.file)
		if err != nil {
			return err
		}
		f.file = size
		f.c.statLog()
		err = f.look(ctx, true)
		if f.c.over.len() == 0 {
			f.c.log = nil
		}
		switch {
		case err == nil && !f.batch.More:
			return nil
		case err == nil && tries == lastTries:
			return &Error{
				Path: f.c.Path, Err: errors.New("its log is removed and made anew faster than it can be read"),
				hint: "let the application keep its connections open, or stop it for the backup with hooks",
			}
		case err != nil && (!passing(err) || tries == lastTries):
			return err
		}
		if err := f.wait(ctx); err != nil {
			return err
		}
	}
}

// passing reports whether a look has only failed, and the next one may succeed.
func passing(err error) bool {
	var state *tail.StateError
	return errors.As(err, &state) && !errors.Is(err, errTainted)
}

// start looks again and again until end.
func (f *following) start(ctx context.Context) {
	waiting, stop := context.WithCancel(ctx)
	f.stop = stop
	f.done = make(chan struct{})
	f.failed.Store(false)
	go func() {
		defer close(f.done)
		// A look that has begun goes on to its end: of one that was broken off, what it delivered would not count.
		for f.wait(waiting) == nil {
			if err := f.look(ctx, false); err != nil && ctx.Err() == nil && !passing(err) {
				f.err = err
				f.failed.Store(true)
				return
			}
		}
	}()
}

// wait waits for the time of the next look, or until a checkpoint begins.
func (f *following) wait(ctx context.Context) error {
	if t, ok := f.tail.(interface {
		Wait(ctx context.Context, d time.Duration) error
	}); ok {
		return t.Wait(ctx, pollEvery)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollEvery):
		return nil
	}
}

// end stops looking and returns what was wrong.
func (f *following) end() error {
	f.stop()
	<-f.done
	if f.failed.Load() {
		return f.err
	}
	return nil
}

// statLog notes when the log was written to last, before it is looked at.
func (c *capture) statLog() {
	var st unix.Stat_t
	if c.log = nil; unix.Stat(c.real+"-wal", &st) == nil && st.Size > 0 {
		c.log = &st
	}
}

// wal captures a database in WAL mode.
func (c *capture) wal(ctx context.Context, t Tail) error {
	page, err := c.pageSize()
	if err != nil {
		return err
	}
	if err := c.begin(page, uint64(c.stat.Size)); err != nil {
		return err
	}
	c.result.Mode = ModeWAL
	f := &following{c: c, tail: t}
	own, _ := t.(*ownTail)
	err = f.first(ctx)
	for tries := 1; own != nil && missed(err) && tries <= mostMissed; tries++ { // between beginning and the first look
		err = c.again(ctx, f, own)
	}
	if err != nil {
		return c.foreign(err)
	}
	if size := f.size(); c.unchanged(size) {
		// Not since it was opened either: the position is that of now.
		var now unix.Stat_t
		if unix.Fstat(int(c.file.Fd()), &now) == nil && stampOf(&now) == stampOf(&c.stat) && now.Size == c.stat.Size {
			c.takeOver(page, uint32(size/uint64(page)))
			c.result.Position = f.batch.Position
			return nil
		}
	}
	if err := c.copy(ctx, f, own); err != nil {
		return c.foreign(err)
	}
	c.result.Position = f.batch.Position
	if err := c.finish(ctx, f.size()); err != nil {
		return err
	}
	if c.blank > 0 {
		c.problem("check", fmt.Sprintf("the database is damaged: %d of its %d pages are neither in its file nor in its log, and are saved as zeros", c.blank, c.result.Pages))
	}
	return nil
}

// missed reports whether something of the log was missed, so that a tail has to begin anew.
func missed(err error) bool {
	var gap *tail.GapError
	return errors.As(err, &gap) || errors.Is(err, errTainted)
}

// foreign makes an error such as who has given a tail wants it: only a new one could go on.
func (c *capture) foreign(err error) error {
	var gap *tail.GapError
	if c.follow != nil && errors.Is(err, errAgain) && !errors.As(err, &gap) {
		return &tail.GapError{Cause: tail.Replaced, Why: err.Error()}
	}
	return err
}

// copy reads all regions while the log is followed. When something of the log was missed, what was read before counts no
// more: it goes on where it is, round and round, until all were read since.
func (c *capture) copy(ctx context.Context, f *following, own *ownTail) error {
	at, reads, lost := 0, 0, 0
	for {
		size := uint64(c.stat.Size)
		n := c.regions(size)
		f.start(ctx)
		read, err := c.cycle(ctx, f, at, n, size)
		if ferr := f.end(); err == nil || ferr != nil {
			err = ferr
		}
		if err == nil {
			err = f.last(ctx)
		}
		if err == nil && c.moved() {
			err = errAgain
		}
		if err == nil || own == nil || !missed(err) {
			return err
		}
		lost++
		c.result.Repeated++
		if reads += read; lost > maxMissed && reads > maxPasses*n || lost > mostMissed {
			return &Error{
				Path: c.Path, Err: fmt.Errorf("its log was emptied %d times while it was read, each time with changes that could not be seen before: %w", lost, err),
				hint: "let the application make fewer checkpoints of mode TRUNCATE, or stop it for the backup with hooks",
			}
		}
		if at += read; at >= n {
			at = 0
		}
		err = c.again(ctx, f, own)
		for ; missed(err) && lost <= mostMissed; lost++ {
			err = c.again(ctx, f, own)
		}
		if err != nil {
			return err
		}
	}
}

// cycle reads n regions, beginning with one, and stops when the log can't be followed any more. It returns how many were
// read.
func (c *capture) cycle(ctx context.Context, f *following, first, n int, size uint64) (read int, err error) {
	for ; read < n && !f.failed.Load(); read++ {
		if err := c.region(ctx, c.file, (first+read)%n, size); err != nil {
			return read, err
		}
	}
	return read, nil
}

// again begins to follow anew after something was missed. It returns errAgain where that can't be, because there is another
// database, or it is not in WAL mode any more.
func (c *capture) again(ctx context.Context, f *following, own *ownTail) error {
	own.close()
	next, err := c.tail()
	if err != nil {
		own.Tail = nil
		return errors.Join(errAgain, err)
	}
	*own = *next
	if err := c.over.reset(); err != nil {
		return err
	}
	return f.first(ctx)
}

// pageSize reads the size of the pages. In WAL mode it does not change.
func (c *capture) pageSize() (uint32, error) {
	h, err := c.header()
	return h.PageSize, err
}

// header reads the header of the file.
func (c *capture) header() (sqlite.Header, error) {
	head := make([]byte, sqlite.HeaderSize)
	n, err := c.read(c.file, head, 0)
	if err != nil {
		return sqlite.Header{}, err
	}
	h, err := sqlite.ParseHeader(head[:n])
	if err != nil {
		return h, &Error{Path: c.Path, Err: err, hint: "what was backed up before stays restorable"}
	}
	return h, nil
}

// size is the size of the database in bytes: after the newest commit of the log, if there is one, or else that of the
// file, which nobody had written to when it was measured.
func (f *following) size() uint64 {
	if f.pages > 0 {
		f.c.result.Problems = nil
		return uint64(f.pages) * uint64(f.c.page)
	}
	return f.file
}

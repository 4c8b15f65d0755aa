package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// patience is how long a writer that is at work is waited for, as a multiple of the time that writers may be made to wait.
const patience = 5

// errTooLong says that the lock was held as long as is allowed, and the comparison was not at its end.
var errTooLong = errors.New("the lock was held as long as max_lock allows, and was given up")

// rollback captures a database in a rollback mode: nobody writes into its file while the lock for readers is held.
func (c *capture) rollback(ctx context.Context) error {
	c.begun = time.Now()
	j, err := c.openJournal()
	if err != nil {
		return err
	}
	j.close()
	page, err := c.pageSize()
	if err != nil {
		return err
	}
	if j.ok {
		page = j.head.PageSize // of a transaction that changes it, the file may have the new one already
	}
	if err := c.begin(page, uint64(c.stat.Size)); err != nil {
		return err
	}
	// What is in memory only is written now, not while others wait.
	_ = unix.Fdatasync(int(c.file.Fd()))
	if done, err := c.reflink(ctx); done || err != nil {
		return err
	}
	c.result.Mode = ModeLock
	size := uint64(c.stat.Size)
	known := !j.ok && c.unchanged(size)
	put, err := c.foresee()
	if err != nil {
		return err
	}
	if put.hot {
		size = min(size, put.size)
	}
	for number := range c.regions(size) {
		if known {
			break
		}
		// Without the lock: what is read may not fit together, but most of it will still be right.
		if err := c.region(ctx, c.file, number, size); err != nil {
			return err
		}
	}
	if err := c.writer.Settle(ctx); err != nil {
		return err
	}
	return c.compare(ctx, known, put)
}

// foresee puts back what a transaction has written that never ended, before the lock is there: nothing of it is to be
// stored. What comes of it is proven under the lock, like all that was read.
func (c *capture) foresee() (rolled, error) {
	put, err := c.rollBack()
	if err != nil {
		return rolled{}, c.over.reset() // as if there were none
	}
	return put, nil
}

// reflink clones the file under the lock, in a moment, and captures the clone. It is not done where the file system can't.
func (c *capture) reflink(ctx context.Context) (done bool, err error) {
	clone, err := c.unnamed()
	if err != nil {
		return false, nil //nolint:nilerr // then there is another way
	}
	defer func() { _ = clone.Close() }()
	// Once without the lock: it shows whether it works, and the second time there is less to do.
	if unix.IoctlFileClone(int(clone.Fd()), int(c.file.Fd())) != nil {
		return false, nil
	}
	h, err := c.lock(ctx)
	if err != nil {
		return false, err
	}
	defer h.release()
	if err := unix.IoctlFileClone(int(clone.Fd()), int(c.file.Fd())); err != nil {
		return false, &Error{Path: c.Path, Err: fmt.Errorf("clone: %w", err)}
	}
	// The first clone may have been longer, and its end is still there.
	if err := clone.Truncate(c.stat.Size); err != nil {
		return false, &Error{Path: c.Path, Err: fmt.Errorf("clone: %w", err)}
	}
	back, err := c.rollBack()
	h.release()
	if err != nil {
		return false, err
	}
	c.noteRollBack(back)
	c.result.Mode = ModeReflink
	size, there := back.size, uint64(c.stat.Size)
	if !back.hot {
		if size, err = c.fileSize(clone); err != nil {
			return false, err
		}
		if c.unchanged(size) {
			c.takeOver(c.page, uint32(size/uint64(c.page)))
			return true, nil
		}
	}
	for number := range c.regions(there) {
		if err := c.region(ctx, clone, number, there); err != nil {
			return false, err
		}
	}
	return true, c.finish(ctx, size)
}

// unnamed makes a file without a name where a clone may be possible: in the state directory, if it is on the same file
// system, or else beside the database, where nothing of it is ever seen.
func (c *capture) unnamed() (*os.File, error) {
	dir := filepath.Dir(c.real)
	var st unix.Stat_t
	if c.Temp != "" && unix.Stat(c.Temp, &st) == nil && st.Dev == c.stat.Dev {
		dir = c.Temp
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "clone"), nil
}

// held is the lock, while it is held.
type held struct {
	c     *capture
	since time.Time
	drop  func()
}

// lock takes the lock, and looks whether the database is still the one that was opened.
func (c *capture) lock(ctx context.Context) (*held, error) {
	drop, err := lockShared(ctx, int(c.file.Fd()), patience*c.MaxLock)
	if errors.Is(err, errLocked) {
		return nil, &Error{
			Path: c.Path, Err: fmt.Errorf("%w, for %s and longer", err, patience*c.MaxLock),
			hint: "an application with PRAGMA locking_mode=EXCLUSIVE, or a very long transaction, keeps everybody out: stop it for the backup with hooks, or use WAL mode",
		}
	}
	if err != nil {
		return nil, &Error{Path: c.Path, Err: err}
	}
	h := &held{c, time.Now(), drop}
	if err := c.same(); err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

// same looks whether the file is still the one that was opened, in the same mode; nobody writes into it now.
func (c *capture) same() error {
	if err := unix.Fstat(int(c.file.Fd()), &c.stat); err != nil {
		return &Error{Path: c.Path, Err: fmt.Errorf("stat: %w", err)}
	}
	if c.moved() || c.stat.Size == 0 {
		return errAgain
	}
	h, err := c.header()
	if err != nil {
		return err
	}
	j, err := c.openJournal()
	if err != nil {
		return err
	}
	j.close()
	if h.WAL() || h.PageSize != c.page && !(j.ok && j.head.PageSize == c.page) {
		return errAgain
	}
	return nil
}

func (h *held) release() {
	if h.drop != nil {
		h.drop()
		h.drop = nil
		h.c.result.Locked = max(h.c.result.Locked, time.Since(h.since))
	}
}

// compare takes the lock, keeps every page that is not as it was read, drops the lock, and lays those pages over. Of what
// is known to be as the parent has it nothing was read. put is what was foreseen.
func (c *capture) compare(ctx context.Context, known bool, put rolled) error {
	before := c.stat
	expected, err := c.expected(ctx, uint64(before.Size))
	if err != nil {
		return err
	}
	h, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer h.release()
	// A file that nobody has written to since a while before it was read need not be compared.
	still := stampOf(&before) == stampOf(&c.stat) && before.Size == c.stat.Size &&
		(known || time.Unix(c.stat.Ctim.Unix()).Before(c.begun.Add(-settle)))
	switch {
	case known && !still:
		return errAgain
	case still:
	case expected > c.MaxLock:
		return c.tooLong(fmt.Errorf("a comparison under the lock would take about %s, longer than max_lock (%s)", round(expected), c.MaxLock))
	default:
		c.announce(expected)
		if err := c.underLock(ctx, h); err != nil {
			return err
		}
	}
	back, err := c.rollBack()
	size := back.size
	if err == nil && !back.hot {
		size, err = c.fileSize(c.file)
	}
	h.release()
	if err != nil {
		return err
	}
	if known && back.hot || still && put.hot && back != put {
		return errAgain // what was put back was not compared
	}
	return c.compared(ctx, known, back, size)
}

// compared ends a comparison that counts.
func (c *capture) compared(ctx context.Context, known bool, back rolled, size uint64) error {
	if known {
		c.takeOver(c.page, uint32(size/uint64(c.page)))
		return nil
	}
	c.noteRollBack(back)
	return c.finish(ctx, size)
}

// announce tells of a lock that may be noticed.
func (c *capture) announce(expected time.Duration) {
	if expected > c.MaxLock/10 {
		c.Note(fmt.Sprintf("%s is not in WAL mode: who writes to it waits for about %s", c.Path, round(expected)))
	}
}

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

func (c *capture) tooLong(err error) error {
	return &Error{
		Path: c.Path, Err: err,
		hint: "use WAL mode (PRAGMA journal_mode=WAL), which needs no lock; or a file system with reflinks (XFS, Btrfs); or raise max_lock in the policy; or stop the application for the backup with hooks",
	}
}

// expected measures how long the comparison will take, by two regions: the one that was read first, which may not be in
// memory any more, and the last.
func (c *capture) expected(ctx context.Context, size uint64) (time.Duration, error) {
	n := c.regions(size)
	worst := time.Duration(0)
	for _, number := range []int{0, n - 1} {
		begun := time.Now()
		read, err := c.changed(ctx, number, size, func(uint32, []byte) error { return nil })
		if err != nil {
			return 0, err
		}
		if read > 0 {
			worst = max(worst, time.Duration(float64(time.Since(begun))*float64(size)/float64(read)))
		}
	}
	return worst / time.Duration(c.comparers()), nil
}

// comparers is how many regions are compared at once.
func (c *capture) comparers() int { return min(buffers, runtime.GOMAXPROCS(0)) }

// underLock keeps the pages that are not as they were read. What it keeps goes into a file: whatever the network does, it
// keeps nobody waiting.
func (c *capture) underLock(ctx context.Context, h *held) error {
	ctx, cancel := context.WithDeadlineCause(ctx, h.since.Add(c.MaxLock), errTooLong)
	defer cancel()
	size := uint64(c.stat.Size)
	n := c.regions(size)
	var next atomic.Int64
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for range c.comparers() {
		group.Go(func() error {
			for number := int(next.Add(1)) - 1; number < n; number = int(next.Add(1)) - 1 {
				_, err := c.changed(ctx, number, size, func(page uint32, content []byte) error {
					mu.Lock()
					defer mu.Unlock()
					return c.over.put(page, content)
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	if errors.Is(context.Cause(ctx), errTooLong) {
		return c.tooLong(fmt.Errorf("%w (%s)", errTooLong, c.MaxLock))
	}
	return err
}

// changed reads a region and tells of its pages that are not as they were given.
func (c *capture) changed(ctx context.Context, number int, size uint64, fn func(page uint32, content []byte) error) (read int, err error) {
	var b *buffer
	select {
	case b = <-c.lent:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if b.data == nil {
		b.data = make([]byte, c.writer.Span())
	}
	defer func() { c.lent <- b }()
	from := uint64(number) * c.writer.Span()
	read, err = c.readWithin(ctx, b.data[:min(c.writer.Span(), size-from)], from)
	if err != nil {
		return read, err
	}
	first := uint32(from/uint64(c.page)) + 1
	return read, c.writer.Changed(ctx, number, b.data[:c.whole(b.data, read)], func(page int, content []byte) error {
		return fn(first+uint32(page), content)
	})
}

// readWithin reads until p is full, the file or ctx ends.
func (c *capture) readWithin(ctx context.Context, p []byte, from uint64) (n int, err error) {
	for n < len(p) {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		step := p[n:min(len(p), n+readStep)]
		m, err := c.read(c.file, step, from+uint64(n))
		n += m
		if err != nil || m < len(step) {
			return n, err
		}
	}
	return n, nil
}

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// maxAttempts is how often a capture begins anew with what has taken the place of the database, or another mode.
	maxAttempts = 5
	// buffers is how many regions are on their way.
	buffers = 3
	// readStep is how much is read in one call, so that progress is seen.
	readStep = 1 << 20
	// settle is how far from the parent's capture a change must be to be told from it; as in package files.
	settle = 2 * time.Second
)

// capture is one run. Its fields belong to the goroutine of run.
type capture struct {
	Options
	session  Session
	follow   Tail // nil: its own
	progress Progress
	work     chan func() error
	result   *Result

	before *snapshot.Entry // the parent's
	file   *os.File
	real   string       // the file's path without symbolic links
	stat   unix.Stat_t  // before anything was read
	log    *unix.Stat_t // of the log, before it was looked at last; nil: it does not count
	page   uint32
	over   *overlay
	writer *paged.Writer
	lent   chan *buffer
	told   uint64 // bytes of the file that progress knows
	blank  int    // pages that nothing has
	stored stored
	begun  time.Time // when reading began, in rollback modes
}

// stored is where the content is.
type stored struct {
	size    uint64
	extents []snapshot.Extent
	maps    []snapshot.MapRef
}

// errAgain says that there is another database now, or that it works in another way: what was read is of no use.
var errAgain = errors.New("the database was replaced while it was read")

func (c *capture) run(ctx context.Context) error {
	if err := c.parent(ctx); err != nil {
		return err
	}
	c.progress.Current(c.Path)
	for attempt := 1; ; attempt++ {
		err := c.attempt(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, errAgain) || ctx.Err() != nil {
			return err
		}
		if attempt == maxAttempts {
			return &Error{Path: c.Path, Err: fmt.Errorf("%w, %d times", errAgain, attempt), hint: "something puts other files there all the time: stop it for the backup with hooks"}
		}
		c.result.Repeated++
	}
	return nil
}

// parent finds what the parent has of the database.
func (c *capture) parent(ctx context.Context) error {
	for e, err := range c.session.Parent(ctx) {
		if err != nil {
			return ctx.Err() // a parent that can't be read only costs that everything is stored again
		}
		if e.Path == c.Path && e.Type == snapshot.File && !e.Unreadable {
			c.before = e
		}
	}
	return nil
}

// attempt captures what is there now.
func (c *capture) attempt(ctx context.Context) (err error) {
	if err := c.open(); err != nil {
		return err
	}
	defer func() { _ = c.file.Close() }()
	defer func() {
		if c.over != nil {
			err = errors.Join(err, c.over.close())
			c.over = nil
		}
	}()
	c.result.Problems, c.log, c.stored = nil, nil, stored{}
	if c.stat.Size == 0 {
		err = c.empty()
	} else {
		err = c.content(ctx)
	}
	if err != nil {
		return err
	}
	return c.emit(ctx)
}

// open opens the file by its real name: beside that are its logs.
func (c *capture) open() error {
	real, err := filepath.EvalSymlinks(c.Path)
	if err != nil {
		return c.missing(err)
	}
	c.real = real
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Open(real, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(real, flags, 0)
	}
	if err != nil {
		return c.missing(&fs.PathError{Op: "open", Path: real, Err: err})
	}
	c.file = os.NewFile(uintptr(fd), real)
	if err := unix.Fstat(fd, &c.stat); err != nil {
		_ = c.file.Close()
		return &Error{Path: c.Path, Err: fmt.Errorf("stat: %w", err)}
	}
	if c.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = c.file.Close()
		return &Error{Path: c.Path, Err: errors.New("is no regular file"), hint: "name the database file itself"}
	}
	return nil
}

func (c *capture) missing(err error) error {
	e := &Error{Path: c.Path, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Err, e.hint = errors.New("does not exist"), "if it was moved, name its new place in the policy; what was backed up before stays restorable"
	case errors.Is(err, fs.ErrPermission):
		e.hint = "run the backup as root, or as the user of the application"
	}
	return e
}

// content captures a database that is not empty, as its mode asks for.
func (c *capture) content(ctx context.Context) error {
	if c.follow != nil {
		return c.wal(ctx, c.follow)
	}
	own, err := c.tail()
	var state *tail.StateError
	switch {
	case errors.As(err, &state) && state.State == tail.RollbackMode:
		return c.rollback(ctx)
	case errors.As(err, &state) && (state.State == tail.Busy || c.moved()):
		return errors.Join(errAgain, err)
	case err != nil:
		return err
	}
	defer func() { own.close() }()
	return c.wal(ctx, own)
}

// moved reports whether the path leads to another file than the one that is open, or to none. If it does to none, the next
// attempt says so.
func (c *capture) moved() bool {
	var now unix.Stat_t
	return unix.Stat(c.Path, &now) != nil || now.Dev != c.stat.Dev || now.Ino != c.stat.Ino
}

// empty is a database in which nothing was ever written: a file without bytes.
func (c *capture) empty() error {
	c.page, c.result.Mode, c.result.PageSize, c.result.Pages = 0, ModeLock, 0, 0
	return nil
}

// emit gives the entry to the session.
func (c *capture) emit(ctx context.Context) error {
	e, problem := c.entry()
	if problem != nil {
		c.problem("getxattr", problem.Error())
	}
	if err := e.Check(); err != nil {
		return err
	}
	n := &c.result.Counts
	n.Files, n.Bytes = 1, e.Size
	switch {
	case c.before == nil:
		n.NewFiles = 1
	case c.result.Mode != ModeUnchanged:
		n.ChangedFiles = 1
	}
	n.Errors = uint64(len(c.result.Problems))
	c.progress.Add(1, e.Size-min(e.Size, c.told), 0)
	if err := c.session.Emit(ctx, e); err != nil {
		return fmt.Errorf("add %q to the tree: %w", e.Path, err)
	}
	return nil
}

// entry describes the file as it was before it was read.
func (c *capture) entry() (e *snapshot.Entry, problem error) {
	st := &c.stat
	changed := c.newest()
	e = &snapshot.Entry{
		Path: c.Path, Type: snapshot.File, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MTime: changed.mtime, CTime: changed.ctime,
		Device: uint64(st.Dev), Inode: st.Ino, //nolint:unconvert // not a uint64 everywhere
		Size: c.stored.size, Extents: c.stored.extents, Maps: c.stored.maps,
	}
	e.User, e.Group = inode.NewNames().Of(st.Uid, st.Gid)
	e.Xattrs, problem = inode.Of(int(c.file.Fd())).Read()
	e.LacksXattrs = problem != nil
	return e, problem
}

func (c *capture) problem(operation, text string) {
	c.result.Problems = append(c.result.Problems, snapshot.Problem{Path: []byte(c.Path), Operation: operation, Error: text})
}

// stamp is when something was written to last.
type stamp struct{ mtime, ctime snapshot.Time }

func stampOf(st *unix.Stat_t) stamp {
	at := func(t unix.Timespec) snapshot.Time {
		sec, nsec := t.Unix()
		return snapshot.Time{Sec: sec, Nsec: uint32(nsec)}
	}
	return stamp{at(st.Mtim), at(st.Ctim)}
}

// newest is when the database was written to last: its file, or its log, if there is something in that.
func (c *capture) newest() stamp {
	at := stampOf(&c.stat)
	if c.log != nil {
		log := stampOf(c.log)
		if later(log.mtime, at.mtime) {
			at.mtime = log.mtime
		}
		if later(log.ctime, at.ctime) {
			at.ctime = log.ctime
		}
	}
	return at
}

func later(a, b snapshot.Time) bool { return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec }

// unchanged reports whether a database of size bytes is as the parent has it: neither file nor log were written to since.
// That the entry's times are those of the newest of both is what tells a log that has vanished since.
func (c *capture) unchanged(size uint64) bool {
	b, at := c.before, c.newest()
	return b != nil && !b.Changed && b.Inode == c.stat.Ino && b.Size == size && b.MTime == at.mtime && b.CTime == at.ctime &&
		time.Unix(at.ctime.Sec, int64(at.ctime.Nsec)).Before(c.session.Captured().Add(-settle))
}

// takeOver makes what the parent has the content.
func (c *capture) takeOver(page, pages uint32) {
	b := c.before
	c.result.Mode, c.result.PageSize, c.result.Pages = ModeUnchanged, page, pages
	c.stored = stored{b.Size, b.Extents, b.Maps}
}

// buffer holds a region; it is given back when all that is to be stored of it is.
type buffer struct {
	data []byte
	uses atomic.Int32
	home chan *buffer
}

// Hold is called for each job.
func (b *buffer) Hold() { b.uses.Add(1) }

// Release is called when a job is done.
func (b *buffer) Release() {
	if b.uses.Add(-1) == 0 {
		b.home <- b
	}
}

// begin prepares for a file of size bytes with pages of this size.
func (c *capture) begin(page uint32, size uint64) (err error) {
	c.page = page
	c.blank = 0
	c.writer = paged.New(paged.Options{
		Session: c.session, Path: c.Path, Page: page, Size: size, Before: c.before, Later: c.later, Unknown: c.unknown,
	})
	c.lent = make(chan *buffer, buffers)
	for range buffers {
		c.lent <- &buffer{home: c.lent}
	}
	c.over, err = newOverlay(c.Temp, page, c.writer.Span())
	return err
}

// lend waits for a buffer and a region's worth of room.
func (c *capture) lend(ctx context.Context) (*buffer, error) {
	if err := c.writer.Ready(ctx); err != nil {
		return nil, err
	}
	select {
	case b := <-c.lent:
		if b.data == nil {
			b.data = make([]byte, c.writer.Span())
		}
		b.uses.Store(1)
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// later has a job done by one of the goroutines that compress and store, when one is free.
func (c *capture) later(ctx context.Context, job func() error) error {
	select {
	case c.work <- job:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

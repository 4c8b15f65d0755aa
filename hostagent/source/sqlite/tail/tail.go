package tail

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// Tail follows one database. It is not safe for concurrent use.
type Tail struct {
	path string // as given: what is there now is compared with what is held
	real string // the names of log and index are derived from it
	db   *os.File
	id   inode
	page uint32

	files *files // nil: there is no log
	watch *watch
	pos   Position
	pages uint32

	placed  bool
	gap     *GapError
	seen    string   // the index's head that was taken in last; empty: none
	order   bool     // byte order of the checksums of the position's generation
	dead    bool     // seen: nobody is connected, and all is read; who comes next sets the count of commits back
	former  Position // the end of the generation before, as long as a recovery may return to it
	verify  mark     // before the newest transaction that was read; see scan.go
	scanned Stamp    // of the log, when all of it was read
	file    Stamp    // of the database file if it has all that was read; the position has it as soon as it is settled
	doubled doubling
	polled  instant
	buf     []byte

	now func() instant
}

// mark is a place in the position's generation.
type mark struct {
	frames uint32
	sum    sqlite.Checksum
}

// instant is a moment on the clock that can be set, and on the one that can't.
type instant struct {
	wall time.Time
	mono time.Duration
}

// clock begins to count now.
func clock() func() instant {
	began := time.Now()
	return func() instant {
		now := time.Now()
		return instant{wall: now.Round(0), mono: now.Sub(began)}
	}
}

// Open opens the database at path for following, read-only. Before the first Poll comes [Tail.Start] or [Tail.Resume]. What
// can't be followed is a [*StateError].
func Open(path string) (*Tail, error) {
	t := &Tail{path: path, watch: newWatch(), now: clock()}
	if err := t.reopen(); err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}

// Close releases the files. It never fails in a way that matters.
func (t *Tail) Close() error {
	t.drop()
	t.watch.close()
	if t.db == nil {
		return nil
	}
	return t.db.Close()
}

// PageSize is the size of the database's pages in bytes.
func (t *Tail) PageSize() uint32 { return t.page }

// Position is where the tail is: what the newest Batch had, or where it began.
func (t *Tail) Position() Position { return t.pos }

// Wait returns after d, or earlier: when a checkpoint begins, so that a Poll sees what is in the log before it is reset; and
// when a database that nobody had open is opened. Its only error is the context's.
func (t *Tail) Wait(ctx context.Context, d time.Duration) error {
	_, err := t.watch.wait(ctx, d, t.files != nil)
	return err
}

// Listen lets [Tail.Rest] hear of each write to the log, or ends that: under load it would have one look far too often. It
// reports whether writes are heard. What was written before is not: Poll once more before the first Rest.
func (t *Tail) Listen(on bool) bool {
	if t.files == nil {
		return t.watch.listen(nil, on)
	}
	return t.watch.listen(t.files.wal, on)
}

// Rest is [Tail.Wait] for a database in which nothing happens, with a d that may be long: it returns earlier also when the
// log is written to, and reports whether it did return earlier. What was written need not be committed yet. A file system
// whose files are written to behind the kernel's back says nothing.
func (t *Tail) Rest(ctx context.Context, d time.Duration) (heard bool, err error) {
	return t.watch.wait(ctx, d, t.files != nil)
}

// Heard reports whether something was heard that no Wait or Rest has returned for yet.
func (t *Tail) Heard() bool { return t.watch.heardOf() }

func (t *Tail) walPath() string { return t.real + "-wal" }
func (t *Tail) shmPath() string { return t.real + "-shm" }

// mode reads the header and refuses what has no log.
func (t *Tail) mode() (sqlite.Header, error) {
	h, err := readHeader(t.path, t.db)
	if err == nil && !h.WAL() {
		err = &StateError{State: RollbackMode, Path: t.path, Hint: "snapshots work; to follow it, let the application set PRAGMA journal_mode=WAL"}
	}
	return h, err
}

// drop lets go of log and index.
func (t *Tail) drop() {
	if t.files != nil {
		t.files.close()
	}
	t.files = nil
	t.seen, t.dead, t.scanned = "", false, Stamp{}
}

// take holds the log and the index that are there now; none at all is no error.
func (t *Tail) take() error {
	t.drop()
	t.watch.follow(t.db, false)
	for range 100 {
		f, err := openFiles(t.walPath(), t.shmPath())
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case errors.Is(err, errMoving):
			continue
		case err != nil:
			return stateOf(t.path, err)
		}
		t.files = f
		t.watch.follow(t.db, true)
		t.watch.arm(f.wal, f.index)
		return nil
	}
	return &StateError{State: Busy, Path: t.path, Hint: "it is opened and closed all the time"}
}

// Poll reads all frames up to the newest commit that is there and calls page for each page version of committed
// transactions; of several of one page the last is the newest. number counts from 1; data is good until page returns. If
// there is nothing new it costs a handful of system calls. ctx ends it between two reads. What was committed before the call
// is in it, if it succeeds, unless Batch.More.
//
// After an error nothing that page got in this call counts, and the position is as it was. Errors are [*GapError];
// [*StateError] where the index is being recovered, the log is damaged or the files can't be read, which a later Poll may
// find mended; and those of page and ctx, as they are.
func (t *Tail) Poll(ctx context.Context, page func(number uint32, data []byte) error) (Batch, error) {
	if t.gap != nil {
		return Batch{}, t.gap
	}
	if !t.placed {
		return Batch{}, errors.New("poll: neither started nor resumed")
	}
	for try := range 100 {
		batch, err := t.step(ctx, page)
		if errors.Is(err, errAgain) {
			if err := ctx.Err(); err != nil {
				return Batch{}, err
			}
			if try > 20 {
				time.Sleep(100 * time.Microsecond)
			}
			continue
		}
		if err != nil {
			return Batch{}, err
		}
		t.polled = t.now()
		return batch, nil
	}
	return Batch{}, t.busy(errAgain)
}

// errAgain tells that what was looked at changed meanwhile.
var errAgain = errors.New("it changes faster than it can be read")

func (t *Tail) idle() Batch { return Batch{Pages: t.pages, PageSize: t.page, Position: t.pos} }

// step looks at one state of the files.
func (t *Tail) step(ctx context.Context, page pageFunc) (Batch, error) {
	switch {
	case t.files == nil:
		return t.closed()
	case t.files.index == nil:
		return t.scan(ctx, page, indexBytes{})
	}
	raw, err := t.files.readIndex()
	if err != nil {
		return Batch{}, stateOf(t.path, err)
	}
	if raw.are(t.seen) {
		return t.quiet(ctx, page, raw)
	}
	return t.changed(ctx, page, raw)
}

// lose makes a gap of what was found. The tail stays lost.
func (t *Tail) lose(cause Cause, why string, missed int) error {
	t.gap = &GapError{Cause: cause, Why: why, Missed: missed}
	return t.gap
}

// present compares the file at the path with the one that is held.
func (t *Tail) present() (inode, *GapError, error) {
	now, err := look(t.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return now, &GapError{Cause: Deleted, Why: "the database file was removed"}, nil
	case err != nil:
		return now, nil, stateOf(t.path, err)
	case !now.same(t.id):
		return now, &GapError{Cause: Replaced, Why: "another file is in the database's place"}, nil
	}
	return now, nil, nil
}

// unwritten reports whether the database file, which is now as stat says, has all that was read, and nothing else.
func (t *Tail) unwritten(now inode) bool {
	written, _ := t.watch.written()
	return t.file != (Stamp{}) && now.stamp == t.file && !written
}

// touched explains a database file that was written to without a log that we could read.
func (t *Tail) touched() error {
	h, err := t.mode()
	var state *StateError
	switch {
	case errors.As(err, &state) && state.State == RollbackMode:
		return t.lose(JournalMode, "the database left WAL mode", 0)
	case err != nil:
		return t.lose(Replaced, "the database was overwritten: "+err.Error(), 0)
	case h.PageSize != t.page:
		return t.lose(PageSize, "the size of pages was changed", 0)
	}
	return t.lose(Unproven, "the database file was written to when its log was not there to be read", 0)
}

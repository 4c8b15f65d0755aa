// Package sqlite restores databases of SQLite, which are one file and what stands beside it, to a moment:
// a base from a snapshot, and on it the pages of the log up to then. [ToFile] makes a new file, [InPlace] puts it where the
// database was, [Scratch] makes one to look at and removes it. [Recover] settles what a restore in place left that died.
//
// # What it promises
//
// The new file is built in a directory of its own beside its place (".NAME.holdfast-restore", mode 0700), proven there as
// the caller says, synced, and renamed. What was there stays untouched until then, and where anything fails it is as it
// was. A file at the target of [ToFile] is never replaced.
//
// # In place
//
// A database is up to four files: X, X-wal, X-shm, X-journal. SQLite knows by their names alone that they belong together:
// a new X beside an old X-wal or X-journal is corrupt as soon as somebody opens it, and an old X without its X-wal has lost
// commits, or worse. Four files can't be renamed in one step. So nobody may open anything in between:
//
//  1. mark: which files are meant is written to a marker in the working directory, and synced.
//  2. hide: X changes places (renameat2 RENAME_EXCHANGE, one atomic step) with a directory, the barrier. Who opens X now is
//     told by the kernel that it is a directory, also with O_CREAT. X itself is in the safety directory already.
//  3. set aside: X-wal, X-journal and X-shm are renamed into the safety directory, under their own names: what is there is
//     a database that opens.
//  4. reveal: the barrier changes places with the new file. Nothing stands beside it.
//  5. settle: the marker says that it is done.
//
// What a crash leaves after each step, and what [Recover], with which the next restore begins, makes of it:
//
//	before 1   all as it was, and a working directory that nobody looks at. It is removed.
//	after 1    all as it was. Marker, working and safety directory are removed.
//	after 2    nobody can open X. The barrier goes back into the safety directory and X to its place: all as it was.
//	amid 3     nobody can open X. First those beside it go back, then X, by exchange: at no moment is X without its WAL.
//	after 3    as amid 3.
//	after 4    the new database stands alone in its place, the old one is whole in the safety directory. It stays so.
//	after 5    the same.
//
// Putting the old one back when the application does not start or is not healthy is the same dance with the roles changed:
// hide, set the new one's files aside (in a directory NAME.failed-TIME), put back X-wal, X-journal and X-shm, reveal. The
// marker says that this is under way, so that a crash in it is finished in the same direction.
//
// Where the file system can't exchange (NFS; ZFS before 2.2), hide and reveal are two renames each. For an instant X is not
// there at all: who opens it then gets an error, or, where told to create it, an empty database whose coming is noticed,
// for no rename here replaces anything, and ends the restore with all as it was.
//
// While this goes on the process holds exclusive locks (OFD) on the bytes that SQLite locks, in X and X-shm: who opened X
// just before gets SQLITE_BUSY. Such locks die with the process; the barrier does not.
package sqlite

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// What ends a restore; match with errors.Is.
var (
	// ErrExists says that there is something at the target, or something that SQLite would take for a part of it.
	ErrExists = errors.New("it exists")
	// ErrInUse says that another process has the database open.
	ErrInUse = errors.New("another process has the database open")
	// ErrBusy says that another restore to the same place is running.
	ErrBusy = inplace.ErrBusy
	// ErrFull says that the new file will not fit.
	ErrFull = errors.New("no space left at the target")
	// ErrMoved says that somebody changed the place while a restore was under way or after it died.
	ErrMoved = inplace.ErrMoved
	// ErrLog says that the log and its base do not belong together, or that the log ends amid a transaction.
	ErrLog = errors.New("the log does not fit its base")
)

// Snapshot is what the base is read from; a *repository.Snapshot.
type Snapshot interface {
	Extents(ctx context.Context, e *snapshot.Entry, fn func(snapshot.Extent) error) error
	// Chunks calls fn once for each ref, from several goroutines.
	Chunks(ctx context.Context, refs []repository.KindRef, fn func(i int, plain []byte, err error) error) error
}

var _ Snapshot = (*repository.Snapshot)(nil)

// Record is a piece of the log: pages that replace those of the same number.
type Record struct {
	Time     time.Time // of its newest commit
	More     bool      // what it has is no state by itself: the next record belongs to it
	PageSize uint32    // bytes
	Pages    uint32    // size of the database after it, in pages
	Each     func(page func(number uint32, data []byte) error) error
}

// Source is what a database is built from.
type Source struct {
	Base    Snapshot
	Entry   *snapshot.Entry // of the database file in the base
	Time    time.Time       // whose state the base holds
	Records iter.Seq2[Record, error]
	Bytes   uint64 // size of the database after the last record, where that is known before; 0: it is not
}

// Progress is told how a restore comes along, from several goroutines.
type Progress interface {
	Total(files, bytes uint64)
	Add(files, bytes, written uint64)
	Current(what string)
}

// Options say how to restore.
type Options struct {
	// Prove looks at the new file before it is put in its place; an error ends the restore with all as it was. Nobody else
	// has the file open, and it must not be changed. nil: nothing is proven.
	Prove func(ctx context.Context, path string) error
	// Progress may be nil.
	Progress Progress
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	// Of a restore in place:

	steps.Application
	// Force goes on where another process has the database open.
	Force bool
	// Began is told which step begins. May be nil.
	Began func(step string)

	// fault is called at each step; an error stands for its failure. For tests.
	fault func(step string) error
	// plainRename does without RENAME_EXCHANGE. For tests.
	plainRename bool
}

// The steps of a restore, besides those that all have, as [steps.Step] and [StepError] name them.
const (
	StepBuild = "build"
	StepProve = "checks"
	StepSync  = "sync"
	StepInUse = "look who has the database open"
	StepSwap  = "swap"
)

// Result is what a restore made.
type Result struct {
	Path    string    // the file
	Bytes   uint64    // its size
	Written uint64    // bytes written: of the base, and of the log
	Records int       // of the log
	Reached time.Time // of the newest commit in it; the base's time where no record followed
	Safety  string    // directory with what was there before; empty: nothing was, or it was no restore in place
	Steps   []steps.Step
	// Warnings are what this user or file system can't do, such as giving files to another owner.
	Warnings []string
	// Settled is what an earlier restore to this place had left, in words; empty: nothing.
	Settled string
}

// StepError says which step ended a restore and what became of the place.
type StepError = steps.Failure

// sides are the suffixes of the files beside a database. The WAL and the journal go first, because they are what an
// opener reads.
func sides() []string { return []string{"-wal", "-journal", "-shm"} }

func (o *Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

func (o *Options) faulty(step string) error {
	if o.fault == nil {
		return nil
	}
	return o.fault(step)
}

// silent is a Progress for those who want none.
type silent struct{}

func (silent) Total(uint64, uint64)       {}
func (silent) Add(uint64, uint64, uint64) {}
func (silent) Current(string)             {}

func (o *Options) progress() Progress {
	if o.Progress == nil {
		return silent{}
	}
	return o.Progress
}

// Package sqlite captures SQLite databases that applications are using: begin with [Capture].
//
// A database in WAL mode is copied without any lock while its log is followed ([Tail]); then every page that a transaction
// has committed since, or before and was still in the log, replaces what was copied. What a checkpoint writes into the file
// during the copy is in the log, so that the result is the state of the newest commit, whatever happens meanwhile. That
// nothing of the log was missed is proven, not hoped; where something was, the regions that were read before are read
// again.
//
// A database in a rollback mode is cloned where the file system can do that, or copied first without a lock and then
// compared under one, so that writers wait only for the comparison; never longer than [Options.MaxLock]. What a transaction
// that has never ended has written is taken back in the copy, by the journal that it left.
//
// Nothing is ever written to the application's files, and they are never opened by an SQLite library: that would take and
// drop locks, check points, or roll back. Pages that equal the parent's are not stored again (package paged). Memory is
// bounded; what changes during a capture is kept in a file.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/hostagent/source/workers"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// DefaultMaxLock is how long writers of a database in a rollback mode may be kept waiting at most.
const DefaultMaxLock = 2 * time.Second

// Options says what to capture.
type Options struct {
	Path    string            // absolute, of the database file; symbolic links are followed
	MaxLock time.Duration     // 0: DefaultMaxLock
	Temp    string            // directory for pages that change meanwhile; empty: the system's own place
	Note    func(text string) // told what a person may want to know; nil: nobody
}

// Session is what a capture needs of the writer of a snapshot; repository.Session is one.
type Session interface {
	paged.Session
	// Parent yields the parent's entries in ascending order; nothing without a parent.
	Parent(ctx context.Context) iter.Seq2[*snapshot.Entry, error]
	// Captured is when the parent's capture began; zero without a parent.
	Captured() time.Time
	// Emit adds the next entry to the tree.
	Emit(ctx context.Context, e *snapshot.Entry) error
}

// Progress is told how a capture gets on. Its methods are called from several goroutines.
type Progress interface {
	// Add counts files that are done, bytes of files that are done, and bytes that were read for it.
	Add(files, bytes, readBytes uint64)
	// Current tells what is being captured.
	Current(path string)
}

// Tail follows the log of a database: *tail.Tail is one. The first call of Poll delivers all committed pages of the log as
// it stands, the next ones those that have been committed since; a page may come again, in the same or a newer version.
// Its methods are called by one goroutine at a time.
type Tail interface {
	Poll(ctx context.Context, page func(number uint32, data []byte) error) (tail.Batch, error)
}

// Ender is a [Tail] that must know which of its looks may be the last one, so that the snapshot has just what there was by
// then: Last is Poll for these.
type Ender interface {
	Last(ctx context.Context, page func(number uint32, data []byte) error) (tail.Batch, error)
}

// Mode is how a database was captured.
type Mode string

// The modes.
const (
	ModeWAL       Mode = "wal"       // without a lock, by its log
	ModeReflink   Mode = "reflink"   // of a clone
	ModeLock      Mode = "lock"      // compared under a lock
	ModeUnchanged Mode = "unchanged" // nothing has changed since the parent
)

// Result is what a capture saw and did.
type Result struct {
	Counts   snapshot.Counts    // without AddedBytes and AddedPacks, which the session knows
	Problems []snapshot.Problem // what is wrong with the database, as far as was seen
	Roots    []string           // the database's path

	Mode     Mode
	PageSize uint32 // bytes; 0: the database is empty
	Pages    uint32
	Position tail.Position // of the log that the snapshot holds exactly; zero in rollback modes
	Locked   time.Duration // for which writers were kept waiting at most
	Repeated int           // how often something of the log was missed, so that regions were read again
}

// Error says why a database can not be captured.
type Error struct {
	Path string
	Err  error
	hint string
}

func (e *Error) Error() string { return fmt.Sprintf("database %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what the user can do; it may be empty.
func (e *Error) Hint() string { return e.hint }

// Capture captures a database into the session: one entry, with the path of the options. Without a tail it follows the log
// by one of its own.
//
// Errors: [*Error] for what is wrong with the database; a *tail.GapError from a tail that was given; those of the session.
func Capture(ctx context.Context, options Options, session Session, follow Tail, progress Progress) (*Result, error) {
	if !filepath.IsAbs(options.Path) {
		return nil, fmt.Errorf("database %q: want an absolute path", options.Path)
	}
	options.Path = filepath.Clean(options.Path)
	if options.MaxLock == 0 {
		options.MaxLock = DefaultMaxLock
	}
	if options.Note == nil {
		options.Note = func(string) {}
	}
	if progress == nil {
		progress = silent{}
	}
	c := &capture{
		Options: options, session: session, follow: follow, progress: progress, work: make(chan func() error),
		result: &Result{Roots: []string{options.Path}},
	}
	if err := workers.Run(ctx, c.work, c.run); err != nil {
		return nil, c.explain(err)
	}
	return c.result, nil
}

// Find lists the databases that a pattern names, as filepath.Match understands it: regular files that begin as databases do.
// What is encrypted as a whole, is empty or can't be read is not among them. Errors: of the pattern.
func Find(pattern string) ([]string, error) {
	all, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	var out []string
	for _, path := range all {
		if begins(path) {
			out = append(out, path)
		}
	}
	return out, nil
}

// begins reports whether a file begins as a database does.
func begins(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	head := make([]byte, sqlite.HeaderSize)
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return false
	}
	n, _ := f.ReadAt(head, 0) // what can't be read is none
	_, err = sqlite.ParseHeader(head[:n])
	return err == nil
}

// explain makes errors of the tail such that say what to do.
func (c *capture) explain(err error) error {
	var state *tail.StateError
	var own *Error
	if errors.As(err, &own) || !errors.As(err, &state) {
		return err
	}
	return &Error{Path: c.Path, Err: cause{state}, hint: state.Hint}
}

// cause is the error of a tail, without the path and the hint, which stand elsewhere.
type cause struct{ *tail.StateError }

func (e cause) Error() string {
	if e.Err == nil {
		return string(e.State)
	}
	return fmt.Sprintf("%s: %v", e.State, e.Err)
}

func (e cause) Unwrap() error { return e.StateError }

// silent is the Progress of a capture that nobody watches.
type silent struct{}

func (silent) Add(uint64, uint64, uint64) {}
func (silent) Current(string)             {}

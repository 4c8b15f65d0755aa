// Package dump captures databases of a PostgreSQL server as dumps: begin with [Capture]. [Databases] tells which there are.
//
// Each database becomes one file, as `pg_dump --format=custom --compress=0` writes it: uncompressed, so that what has not
// changed since the dump before is not stored again, and readable by every pg_restore that is not older. Roles and
// tablespaces, which belong to no database, become one file of SQL. A small document ([logical.Index]) says which database is in
// which file, and what of it its dump does not have: with what encoding, owner and settings it is made again.
//
// Each dump is of one moment, that at which pg_dump began with it; dumps of several databases are of several moments.
//
// A dump counts when pg_dump has said that it is complete and pg_restore has listed what is in it, both of what was sent to
// the repository and of what that gives back.
package dump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/source/stream"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Options says what to capture.
type Options struct {
	// Connection is the name of a service, or settings as "host=… user=…"; without a password, because programs are told of it
	// in their arguments. See [pgbin.CheckConnection].
	Connection string
	// Connect connects to a database, "" for that of the connection.
	Connect   func(ctx context.Context, database string) (*pgconn.PgConn, error)
	Databases []string          // empty: all that can be connected to, but no templates and no safety copies of restores
	Globals   bool              // roles and tablespaces too
	Bin       string            // directory of PostgreSQL's programs; empty: they are looked for
	Note      func(text string) // told what a person may want to know; nil: nobody
	// ReadBack writes to w what the repository has of an entry, before the snapshot is complete. It may fail with ErrNoReading
	// where this host may only write.
	ReadBack func(ctx context.Context, e *snapshot.Entry, w io.Writer) error
}

// ErrNoReading says that this host may not read what it has stored.
var ErrNoReading = errors.New("this host may not read the repository")

// Session is what a capture needs of the writer of a snapshot; repository.Session is one.
type Session interface {
	stream.Session
	// Parent yields the parent's entries in ascending order; nothing without a parent.
	Parent(ctx context.Context) iter.Seq2[*snapshot.Entry, error]
	// Emit adds the next entry to the tree.
	Emit(ctx context.Context, e *snapshot.Entry) error
}

// Progress is told how a capture gets on.
type Progress interface {
	// Total says how much there is to do.
	Total(files, bytes uint64)
	// Add counts files that are done, bytes of files that are done, and bytes that were read for it.
	Add(files, bytes, readBytes uint64)
	// Current tells what is being captured.
	Current(path string)
}

// Result is what a capture saw and did.
type Result struct {
	Counts   snapshot.Counts    // without AddedBytes and AddedPacks, which the session knows
	Problems []snapshot.Problem // databases that could not be dumped
	Roots    []string
	Index    *logical.Index
	Checked  bool // what the repository gives back was looked at
}

// Error says why databases can't be dumped.
type Error struct {
	Database string // empty: it concerns the server
	Err      error
	hint     string
}

func (e *Error) Error() string {
	if e.Database == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("database %s: %v", e.Database, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what the user can do; it may be empty.
func (e *Error) Hint() string {
	var with interface{ Hint() string }
	if e.hint == "" && errors.As(e.Err, &with) {
		return with.Hint()
	}
	return e.hint
}

// Capture dumps the databases into the session.
//
// A database that can't be dumped becomes a problem while others can; it is an error if none could. Errors: *Error, those of
// the session.
func Capture(ctx context.Context, options Options, session Session, progress Progress) (*Result, error) {
	if err := pgbin.CheckConnection(options.Connection); err != nil {
		return nil, err
	}
	if options.Note == nil {
		options.Note = func(string) {}
	}
	c := &capture{
		Options: options, session: session, progress: progress,
		result: &Result{Roots: []string{logical.Root}, Checked: options.ReadBack != nil}, parent: map[string]*snapshot.Entry{},
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	return c.result, nil
}

// entry is an entry of this program's own making.
func entry(path string, kind snapshot.Type, at time.Time) *snapshot.Entry {
	mode := uint32(0o600)
	if kind == snapshot.Directory {
		mode = 0o700
	}
	when := snapshot.Time{Sec: at.Unix(), Nsec: uint32(at.Nanosecond())}
	return &snapshot.Entry{Path: path, Type: kind, Mode: mode, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), MTime: when, CTime: when}
}

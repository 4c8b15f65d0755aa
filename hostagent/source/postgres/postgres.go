// Package postgres captures PostgreSQL clusters physically: base backups over the replication protocol. Begin with [Capture].
// [Config] makes the settings of a connection, as libpq does; package wire speaks the protocol.
//
// A snapshot is the data directory as pg_basebackup lays it out, with the WAL that makes it consistent, so that it stands
// alone: entries below the path of the data directory, tablespaces as directories pg_tblspc/OID with tablespace_map to say
// where they were. Pages that equal the parent's are not stored again (package paged).
//
// Nothing counts before the server has ended the backup without an error, the manifest that it made fits all that came, and
// the WAL was followed record by record from where recovery begins to where the backup ends. Pages whose checksum is wrong
// are named and stored as they are; the snapshot is marked.
//
// Memory is bounded, whatever the size of the cluster: see buffers.go.
package postgres

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
	"github.com/btcdecoded/holdfast/hostagent/source/workers"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Options says what to capture.
type Options struct {
	Connection string            // a service, a connection string or a URL: see [Config]
	Label      string            // that the server keeps in backup_label; empty: "holdfast"
	Spread     bool              // begin with a checkpoint that takes its time, not at once
	Temp       string            // directory for lists of very large clusters; empty: the system's own place
	Note       func(text string) // told what a person may want to know; nil: nobody
	Total      func(bytes uint64)

	Log *Proof // of the log in which the snapshot is to stand; nil: there is none

	// Begin is called before the backup begins, with what the server is; an error ends the capture.
	Begin func(ctx context.Context, system wire.System) error
}

// Session is what a capture needs of the writer of a snapshot; repository.Session is one.
type Session interface {
	paged.Session
	// Parent yields the parent's entries in ascending order; nothing without a parent.
	Parent(ctx context.Context) iter.Seq2[*snapshot.Entry, error]
	// FileID is the keyed hash of a whole file.
	FileID(content []byte) snapshot.FileID
	// KnownFile returns where a file with this content is stored, if it is.
	KnownFile(id snapshot.FileID, size uint64) ([]snapshot.Extent, bool)
	// LearnFile says where a file was stored.
	LearnFile(id snapshot.FileID, size uint64, extents []snapshot.Extent)
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

// Result is what a capture saw and did.
type Result struct {
	Counts   snapshot.Counts    // without AddedBytes and AddedPacks, which the session knows
	Problems []snapshot.Problem // damaged pages, in the order of the tree; of very many only the first
	Roots    []string           // the data directory

	System      uint64       // identifier
	Version     wire.Version // of the server
	Timeline    uint32
	SegmentSize uint32       // of WAL, bytes
	Start, Stop postgres.LSN // recovery begins at Start and must reach Stop
	WALEnd      postgres.LSN // up to where the snapshot has WAL without a hole: not before Stop
	Apart       bool         // the server has other WAL than Options.Log, or less: the snapshot has no place in that log
	Until       time.Time    // by the clock of the server, or of its primary: no commit in the snapshot is later; zero: not known
	Standby     bool         // the server was one
	Checksums   bool         // the cluster has checksums of pages
	Damaged     uint64       // pages whose checksum is wrong
	Tablespaces int          // beside those that every cluster has
	Unlogged    int          // tables and indexes that restore empty
	WALBytes    uint64       // of WAL in the snapshot
}

// OperationPage is the operation of a problem that names a damaged page.
const OperationPage = "check page"

// Error says why a cluster can not be captured.
type Error struct {
	Server string // user@host:port
	Err    error
	hint   string
}

func (e *Error) Error() string { return fmt.Sprintf("PostgreSQL at %s: %v", e.Server, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what the user can do; it may be empty.
func (e *Error) Hint() string {
	if e.hint != "" {
		return e.hint
	}
	return hintOf(e.Err)
}

// Capture captures a cluster into the session.
//
// Errors: [*Error], which has the *wire.Error of what the server or the connection did, [*ConfigError], those of the
// session.
func Capture(ctx context.Context, options Options, session Session, progress Progress) (*Result, error) {
	config, err := Config(options.Connection)
	if err != nil {
		return nil, err
	}
	if options.Note == nil {
		options.Note = func(string) {}
	}
	if options.Label == "" {
		options.Label = "holdfast"
	}
	if progress == nil {
		progress = silent{}
	}
	c := newCapture(options, config, session, progress)
	if err := workers.Run(ctx, c.work, c.run); err != nil {
		return nil, err
	}
	return c.result, nil
}

// silent is the Progress of a capture that nobody watches.
type silent struct{}

func (silent) Add(uint64, uint64, uint64) {}
func (silent) Current(string)             {}

// Package log is the log of a continuous source: the ordered records of what was committed after a snapshot, kept as
// small sealed objects, so that any moment can be restored. It is specified in docs/format.md, "Logs".
//
// A writer begins with [Create] and stores records with [Writer.Append]; a reader lists with [Streams] and follows
// records with [NewReader] and [Reader.Records]. Which snapshot and which records a moment needs is decided in
// shared/recovery, from [Epochs].
//
// # Streams, epochs, records
//
// A stream is one unbroken lineage of what is followed; where continuity can't be proven, a new one begins. Each process
// that writes opens an epoch of the stream, with a head that only one writer can put: the fence. An epoch says after
// which record of which epoch it goes on. Records are numbered within the stream; each has the SHA-256 of the one before
// it, so that what is torn, forged, replayed or swapped does not fit, however pieces are joined.
//
// Where two epochs go on after the same record, there is a fork: a restart that did not know the last records, or a
// cloned machine. Both branches stay and can be restored. From the moment at which a higher epoch was opened, it counts;
// until then the lower one does.
//
// # Requests
//
// One put for each record (a large transaction: one for each 4 MiB), one put and one listing for each epoch, nothing at
// all while nothing is committed. A restore lists the segments of each epoch that it needs, and the pieces after the
// last of them, reads N objects, and for each segment the piece of its last record, if that is still there.
package log

import (
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Place is a place in a log, right after one of its records.
type Place = snapshot.LogPlace

// Kinds of logs.
const (
	KindSQLite   = "sqlite"            // records hold pages of a SQLite database
	KindPostgres = record.KindPostgres // records hold write-ahead log of PostgreSQL
)

const (
	// MaxRecord is the size of the largest record, in bytes.
	MaxRecord = 16 << 20
	// splitAt is from which size on the pages of a record go on in the next one, in bytes.
	splitAt = 4 << 20
	// chunkSize is how much of the records goes into one chunk of a piece, in bytes.
	chunkSize = 4 << 20
	// joinSize is up to how many bytes of records go into a segment.
	joinSize = 8 << 20
)

var (
	// ErrSuperseded says that somebody else writes the stream: a higher epoch is there, or a piece with other bytes
	// stands where this writer's should. The writer must stop; what it stored stays.
	ErrSuperseded = errors.New("another writer has taken over the log: this machine may have been cloned, or its state put back; this one stops")
	// ErrClosed says that a writer was closed, or failed before.
	ErrClosed = errors.New("the writer of the log is closed")
	// ErrNoHead says that an epoch can't be read because its head is missing or no good.
	ErrNoHead = errors.New("the epoch has no head that counts")
)

// HoleError says that records are missing which should be there, or can't be used.
type HoleError struct {
	Stream      string
	Epoch       uint64
	First, Last uint64 // of which; Last 0: not known how many
	Err         error  // why, if it is not just that they are missing
}

func (e *HoleError) Error() string {
	what, is := fmt.Sprintf("record %d and later ones", e.First), "are"
	switch {
	case e.Last == e.First:
		what, is = fmt.Sprintf("record %d", e.First), "is"
	case e.Last > e.First:
		what = fmt.Sprintf("records %d to %d", e.First, e.Last)
	}
	what = fmt.Sprintf("%s of epoch %d of stream %s", what, e.Epoch, e.Stream)
	var damage *repository.DamageError
	switch {
	case e.Err == nil:
		return fmt.Sprintf("%s %s missing", what, is)
	case errors.As(e.Err, &damage) && !errors.Is(e.Err, objstore.ErrNotExist):
		return fmt.Sprintf("%s %s damaged: %v", what, is, e.Err)
	case errors.Is(e.Err, ErrNoHead):
		return fmt.Sprintf("%s can't be read: %v", what, e.Err)
	case errors.As(e.Err, new(*PositionError)):
		return fmt.Sprintf("%s can't be applied: %v", what, e.Err)
	}
	return fmt.Sprintf("%s %s missing: %v", what, is, e.Err)
}

func (e *HoleError) Unwrap() error { return e.Err }

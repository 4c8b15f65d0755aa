// Package files captures file trees: it walks the roots of a source, stores the content of what is new or changed
// through a [Session] and emits one entry for each thing it finds, in the order of trees.
//
// Begin with [Capture]. [ParsePatterns] reads what is to be left out, [Scan] estimates the work.
//
// What can't be captured as it should, because it changed while it was read, vanished or can't be read, becomes a
// problem of the [Result] and never ends the run; only a failing Session, or the end of the context, does.
// Memory is bounded, whatever the tree: a window of entries and a few buffers, and the names of a directory, of a very
// large one on disk.
// Nothing below a root is ever reached by a path that could be too long or lead through a symbolic link.
package files

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Options says what to capture.
type Options struct {
	Roots         []string  // absolute paths of files or directories; what lies in another root is captured once
	Patterns      *Patterns // what to leave out; nil: nothing
	OneFileSystem bool      // do not enter directories on another file system than their root's
	CacheDirTag   bool      // of directories with a valid CACHEDIR.TAG keep only that file
	MaxFileSize   uint64    // leave out files over this size in bytes; 0: no limit
	Owned         []string  // absolute paths of databases that are sources of their own: left out, with their logs
	Readers       int       // files read at the same time; 0: a sensible number
	Temp          string    // where names of very large directories are kept meanwhile; empty: the system's own place
}

// Parent is the snapshot that a capture builds on.
type Parent interface {
	// Parent yields the parent's entries in ascending order; nothing without a parent.
	Parent(ctx context.Context) iter.Seq2[*snapshot.Entry, error]
	// Captured is when the parent's capture began; zero without a parent.
	Captured() time.Time
}

// Chunks stores content. Its methods are called from several goroutines.
type Chunks interface {
	// Chunk stores a chunk unless it is there. It blocks while the store lags, and keeps nothing of plain.
	Chunk(ctx context.Context, kind snapshot.Kind, plain []byte) (snapshot.Ref, error)
	// Gear is the keyed table for the chunker.
	Gear() *[256]uint64
}

// Contents knows small files by their content. Its methods are called from several goroutines.
type Contents interface {
	// FileID is the keyed hash of a whole file.
	FileID(content []byte) snapshot.FileID
	// KnownFile returns where a file with this content is stored, if it is.
	KnownFile(id snapshot.FileID, size uint64) ([]snapshot.Extent, bool)
	// LearnFile says where a file was stored.
	LearnFile(id snapshot.FileID, size uint64, extents []snapshot.Extent)
}

// Pages knows the pages of database files in the parent. Its methods are called from several goroutines.
type Pages interface {
	// PageID is the keyed hash of a page.
	PageID(content []byte) snapshot.FileID
	// Pages returns the hashes (PageID) of the pages of a region of a file, if they are known for exactly these extents.
	Pages(path string, region int, extents []snapshot.Extent) (hashes []byte, ok bool)
	// LearnPages says what the hashes of a region's pages are.
	LearnPages(path string, region int, extents []snapshot.Extent, hashes []byte)
	// ParentMap returns the extents of a map of the parent.
	ParentMap(ctx context.Context, m snapshot.MapRef) ([]snapshot.Extent, error)
}

// Session is what a capture needs of the writer of a snapshot; repository.Session is one. An error of Chunk or Emit ends
// the capture.
type Session interface {
	Parent
	Chunks
	Contents
	Pages
	// Emit adds the next entry to the tree. It is called from one goroutine, in the order of snapshot.ComparePaths.
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
	Problems []snapshot.Problem // in the order of the tree; of very many only the first
	Roots    []string           // the roots, ascending, without those inside another
}

// Operations of problems that are no errors: the capture did what it was told to do.
const (
	// OperationSkip is a file over the size limit.
	OperationSkip = "skip"
	// OperationNotConsistent is a database that was captured while it may have been written to.
	OperationNotConsistent = "not consistent"
	// OperationParent is a parent that could not be read to its end, so that more was read than necessary.
	OperationParent = "read parent"
)

// IsError reports whether a problem means that something was not captured as it should be.
func IsError(p *snapshot.Problem) bool {
	return p.Operation != OperationSkip && p.Operation != OperationNotConsistent && p.Operation != OperationParent
}

// Capture captures the roots into the session. It returns what it saw also with an error.
// Errors: of the options, of the session, of the context; "no root could be read" if there was nothing to capture at all.
func Capture(ctx context.Context, options Options, session Session, progress Progress) (*Result, error) {
	return captureWith(ctx, options, session, progress, realSystem())
}

func captureWith(ctx context.Context, options Options, session Session, progress Progress, sys *system) (*Result, error) {
	plan, err := newSelection(options)
	if err != nil {
		return nil, err
	}
	if options.Readers <= 0 {
		options.Readers = max(4, runtime.GOMAXPROCS(0))
	}
	if progress == nil {
		progress = silent{}
	}
	c := newCapture(options, plan, session, progress, sys)
	if err := c.run(ctx); err != nil {
		return c.result, err
	}
	if c.result.Counts.Directories+c.result.Counts.Files+c.result.Counts.Others == 0 {
		return c.result, errors.New("no root could be read")
	}
	return c.result, nil
}

// Scan counts the files below the roots and their bytes, as Capture would see them, without reading any.
func Scan(ctx context.Context, options Options) (files, bytes uint64, err error) {
	plan, err := newSelection(options)
	if err != nil {
		return 0, 0, err
	}
	w := newWalker(plan, realSystem(), options.Temp)
	err = w.run(ctx, func(f *found) error {
		if f.err == nil && f.meta.fileType() == snapshot.File && !(options.MaxFileSize > 0 && f.meta.size > options.MaxFileSize) {
			files++
			bytes += f.meta.size
		}
		return nil
	})
	return files, bytes, err
}

// silent is the Progress of a capture that nobody watches.
type silent struct{}

func (silent) Add(uint64, uint64, uint64) {}
func (silent) Current(string)             {}

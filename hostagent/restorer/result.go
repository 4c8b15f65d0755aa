package restorer

import (
	"errors"
	"fmt"
	"sync"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// What ends a restore as a whole; match with errors.Is. Failures of single files are in [Result].
var (
	// ErrSelection says that a selected path or a mapped root is not in the snapshot.
	ErrSelection = errors.New("not in the snapshot")
	// ErrNotDirectory says that the target, or a directory on the way to a selected subtree, is something else.
	ErrNotDirectory = errors.New("not a directory")
	// ErrReadOnly says that the target can't be written to.
	ErrReadOnly = errors.New("the target is read-only")
	// ErrFull says that the target has, or had, no space left.
	ErrFull = errors.New("no space left at the target")
	// ErrBusy says that another restore writes to the same place.
	ErrBusy = errors.New("another restore to this place is running")
)

// PlaceError is a failure that ends the restore and the place where it struck. It matches the Err* above.
type PlaceError struct {
	Operation string
	Place     string
	Err       error
}

func (e *PlaceError) Error() string {
	return fmt.Sprintf("%s %s: %v", e.Operation, e.Place, e.Err)
}

// Unwrap gives the cause and, where there is one, the Err* that it means.
func (e *PlaceError) Unwrap() []error {
	switch {
	case errors.Is(e.Err, unix.ENOSPC), errors.Is(e.Err, unix.EDQUOT):
		return []error{e.Err, ErrFull}
	case errors.Is(e.Err, unix.EROFS):
		return []error{e.Err, ErrReadOnly}
	case errors.Is(e.Err, unix.ENOTDIR):
		return []error{e.Err, ErrNotDirectory}
	}
	return []error{e.Err}
}

// SpaceError says before anything is written that the content will not fit. It matches [ErrFull].
type SpaceError struct {
	Place      string
	Need, Free uint64 // bytes, or files if Inodes is set
	Inodes     bool
}

func (e *SpaceError) Error() string {
	need, free := humanize.IBytes(e.Need), humanize.IBytes(e.Free)
	if e.Inodes {
		need, free = fmt.Sprintf("%d files", e.Need), fmt.Sprint(e.Free)
	}
	return fmt.Sprintf("restore to %s: %v: it needs %s and has room for %s", e.Place, ErrFull, need, free)
}

// Is makes a SpaceError match ErrFull.
func (e *SpaceError) Is(target error) bool { return target == ErrFull }

// Problem is one thing that could not be restored or removed; what was there before is untouched.
type Problem struct {
	Path      string // in the snapshot
	Operation string
	Err       error
}

// Warning is one kind of thing that this user or this file system can't do.
type Warning struct {
	Kind  string // one of the Warn constants
	Count uint64
	Path  string // the first one, in the snapshot
	Err   error  // of the first one
}

// The kinds of warnings.
const (
	WarnOwner      = "owners not set"
	WarnDevice     = "device nodes not made"
	WarnAttribute  = "extended attributes not set"
	WarnMode       = "permission bits not set"
	WarnPrivilege  = "set-uid and set-gid bits left out, as the owner could not be set"
	WarnName       = "users or groups unknown on this host: ids used"
	WarnSocket     = "sockets left out"
	WarnKept       = "left as they are: mount points and protected paths"
	WarnConsistent = "captured while a database may have been writing to it"
)

// Result is what a restore did, or with DryRun what it would do.
type Result struct {
	Files       uint64 // regular files of the selection, in place now
	Directories uint64
	Others      uint64 // symlinks, FIFOs and devices
	Bytes       uint64 // content of the files
	Unchanged   uint64 // things that were in place with the same content and metadata
	Metadata    uint64 // things of which only metadata differed
	Created     uint64 // things that were not there; directories included
	Updated     uint64 // things that were there with other content or another type
	Links       uint64 // further names of files, among Files and Others
	Deleted     uint64 // what Delete removed; a tree counts each thing in it
	Written     uint64 // bytes written
	Reused      uint64 // of these, bytes that came from the file that was there
	Failed      uint64 // things that are not as in the snapshot
	Resumed     bool   // an earlier restore to this place had not come to its end
	Problems    []Problem
	Warnings    []Warning
}

// maxProblems bounds what a Result remembers; Failed counts all.
const maxProblems = 1000

// tally collects a Result from several goroutines.
type tally struct {
	mu        sync.Mutex
	result    Result // guarded by mu
	unsettled bool   // what was there before may still be there; guarded by mu
	progress  Progress
	action    func(Action)
}

// Action is one thing that a restore did or would do.
type Action struct {
	Operation string // create, update, metadata, link, delete
	Path      string // in the snapshot
	Bytes     uint64 // size, for files
}

func (t *tally) add(fn func(*Result)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(&t.result)
}

func (t *tally) act(operation, path string, size uint64) {
	if t.action == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.action(Action{operation, path, size})
}

// problem counts one failure.
func (t *tally) problem(path, operation string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.Failed++
	t.unsettled = t.unsettled || !errors.Is(err, errUnreadable) // no run will ever write that
	if len(t.result.Problems) < maxProblems {
		t.result.Problems = append(t.result.Problems, Problem{path, operation, err})
	}
}

func (t *tally) warn(kind, path string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.result.Warnings {
		if t.result.Warnings[i].Kind == kind {
			t.result.Warnings[i].Count++
			return
		}
	}
	t.result.Warnings = append(t.result.Warnings, Warning{Kind: kind, Count: 1, Path: path, Err: err})
}

// Package restorer writes trees out of snapshots of kind files. Use [Restore].
//
// # Where things go
//
// One selected directory goes directly into Target, as with "rsync -a dir/ target": its content and its metadata. One
// selected file goes to Target under its own name. Several selections (a snapshot with several roots counts as such) keep
// their full paths below Target. Map sends a root or a selected path to an exact place; without either, everything goes to where it was.
// The metadata of a Target that is "/" or a shared directory with the sticky bit, such as /tmp, stays as it is.
//
// # What it promises
//
// Nothing is written, changed or removed outside the places named by Options, whatever the snapshot holds and whatever
// other processes do there meanwhile: each place is opened once, and all that follows happens relative to open directories,
// one name at a time, never through a symlink. A place itself may be or lie behind a symlink; below it, a symlink or a file where the
// snapshot has a directory is replaced. A directory that is not empty is replaced by a file only with Delete.
//
// Content is written to a temporary name (".holdfast-restore-…") in the same directory and renamed when it is complete,
// so each file has either its old or its new content. Only in a directory that the restore itself has made, where nothing is
// to be replaced, a file is written under its own name: such a directory can't be entered by others before all in it is
// complete, and what is incomplete does not have the mtime of the snapshot. A damaged file is reported and leaves what was
// there alone. Before success is reported, the file systems are synced.
//
// A restore that did not end leaves a mark in its places, and is continued by doing it again: what is finished is recognised
// by size, mtime and metadata and skipped, temporary files are removed. After a crash of the machine, known by its boot id,
// or a failure of the disk content is compared too. The mark stays until a run restores all that the interrupted one was to
// restore there, and nothing of that fails: until then a file with its final name may be incomplete.
package restorer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what to restore, to where and how.
type Options struct {
	Select []string          // absolute paths of subtrees or files as in the snapshot; empty: all roots
	Target string            // a directory, made if missing; empty: the original place
	Map    map[string]string // root, selected path or a directory above it → place; goes before Target

	Delete bool     // remove what the snapshot does not have inside the selected directories
	DryRun bool     // change nothing; see OnAction
	Verify bool     // compare the content of files even if size and mtime are equal
	ByName bool     // owners by name where this host knows the name; else by id, as captured
	Keep   []string // places on this host that Delete never removes, such as the repository itself
	// Temp is the directory of files without a name in which the run keeps what it must remember; empty: the system's.
	Temp string

	// Protect reports paths (as in the snapshot) that Delete must leave alone, such as excluded ones and configured
	// databases; nil: none. What the backup could not read is always left alone.
	Protect func(path string, isDir bool) bool

	// Unsynced leaves it to the caller to make durable what was written: for who changes it at once, or throws it away.
	Unsynced bool

	// OnAction is told what is done, or with DryRun would be done; one call at a time. May be nil.
	OnAction func(Action)

	Workers int // goroutines that compare files and set metadata; 0: one for each CPU, at most 8

	// fault is called before system calls that change something; an error stands for its failure. For tests.
	fault func(operation, path string) error
	// statfs replaces unix.Statfs. For tests.
	statfs func(path string, st *unix.Statfs_t) error
}

// Restore restores what options select. An error ends it early and leaves a state that a second Restore continues;
// match it with the Err* of this package, the context's errors and those of the repository. A nil error with Failed > 0 in the
// result means that the rest is in place. The result is never nil.
func Restore(ctx context.Context, snap Snapshot, options Options, progress Progress) (*Result, error) {
	if progress == nil {
		progress = silent{}
	}
	if options.Workers <= 0 {
		options.Workers = min(runtime.GOMAXPROCS(0), 8)
	}
	selections, err := selectPaths(ctx, snap, options)
	if err != nil {
		return &Result{}, err
	}
	if err := checkSpace(ctx, snap, options, selections, progress); err != nil {
		return &Result{}, err
	}
	r := newRun(ctx, snap, options, progress)
	err = r.restore(selections)
	return &r.result, err
}

// run is one restore on its way.
type run struct {
	tally
	options Options
	snap    Snapshot
	ctx     context.Context // ends with the first fatal error
	stop    context.CancelCauseFunc
	root    bool   // effective user is root
	uid     int    // effective user
	umask   uint32 // of this process
	began   time.Time
	measure bool               // dry run that compares no content, to learn what will be written
	demands map[uint64]*demand // by device, when measuring; guarded by tally.mu

	dirs    *dirCache
	anchors map[string]*directory // by place
	marks   map[*directory]*mark  // of places, as they were
	spoilt  map[*directory]bool   // something in it could not be restored; guarded by tally.mu
	syncs   map[uint64]int        // device → open directory on it; guarded by tally.mu
	owners  *owners
	groups  groups
	names   *tempNames
	keep    map[inode]bool
	guards  []string // paths that the backup had problems with

	stack   []*directory // of the walk, outermost first
	batch   *batch
	batches chan *batch
	idle    chan struct{} // closed when all batches are done
	late    lateDirs
	flusher flusher

	selections []selection

	compare bool // content is compared even if size and mtime are equal
	doubted bool // because memory and disk may differ
}

func newRun(ctx context.Context, snap Snapshot, options Options, progress Progress) *run {
	r := &run{
		options: options, snap: snap, uid: os.Geteuid(), root: os.Geteuid() == 0, umask: umask(), began: time.Now(), compare: options.Verify,
		anchors: map[string]*directory{}, marks: map[*directory]*mark{}, spoilt: map[*directory]bool{}, syncs: map[uint64]int{}, keep: map[inode]bool{},
		owners: newOwners(options.ByName), names: newTempNames(),
	}
	r.dirs = newDirCache(r.opened)
	r.progress, r.action = progress, options.OnAction
	r.ctx, r.stop = context.WithCancelCause(ctx)
	return r
}

// restore does the work in this order; a crash after any step leaves what a second run continues:
//  1. places are opened, locked and marked as unfinished;
//  2. entries are walked in tree order: directories are made, with mode 0700; files go in batches to the workers, who write
//     beside and rename, or in place as [run.direct] says. A directory gets its metadata, and what Delete removes goes, when all in it is done;
//  3. the file systems are synced, as they were on the way: only now is all that was written sure to survive a power cut;
//  4. the marks are removed and the places get their own metadata.
func (r *run) restore(selections []selection) (err error) {
	defer r.close()
	defer r.stop(nil)
	r.selections = selections
	if err := r.openPlaces(selections); err != nil {
		return err
	}
	r.startFlusher()
	r.startBatches()
	for _, s := range selections {
		if err := r.selection(s); err != nil {
			r.stop(err)
			break
		}
	}
	r.flush()
	close(r.batches)
	<-r.idle
	r.endFlusher()
	if err := context.Cause(r.ctx); err != nil {
		return err
	}
	if err := r.finishLate(); err != nil {
		return err
	}
	if err := r.sync(); err != nil {
		return err
	}
	r.releaseAnchors()
	return context.Cause(r.ctx)
}

// openPlaces opens the places and learns what Delete must leave alone.
func (r *run) openPlaces(selections []selection) error {
	for _, s := range selections {
		if _, err := r.anchor(s.anchor); err != nil {
			return err
		}
	}
	if !r.options.Delete {
		return nil
	}
	for _, place := range r.options.Keep {
		if st, err := stat(place); err == nil {
			r.keep[inodeOf(&st)] = true
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("look at %s: %w", place, err)
		}
	}
	problems, err := r.snap.Problems(r.ctx)
	if err != nil {
		return fmt.Errorf("read what the backup could not capture: %w", err)
	}
	for _, p := range problems {
		switch p.Operation {
		case operationNotConsistent, operationParent:
			// All of it was captured. To leave newer files of a database beside its older ones would break it.
			continue
		}
		r.guards = append(r.guards, string(p.Path))
	}
	return nil
}

// Operations of problems that took nothing away, as package files of the sources names them.
const (
	operationNotConsistent = "not consistent"
	operationParent        = "read parent"
)

// fatal ends the restore. It returns the error for the caller to return.
func (r *run) fatal(operation, place string, err error) error {
	e := &PlaceError{Operation: operation, Place: place, Err: err}
	r.stop(e)
	return e
}

// ended returns why the run must end, if it must.
func (r *run) ended() error {
	if r.ctx.Err() == nil {
		return nil
	}
	return context.Cause(r.ctx)
}

// failed takes an error of a system call for one path: what would hit the others too ends the restore, the rest is counted.
func (r *run) failed(path, operation string, err error) {
	if hopeless(err) {
		r.stop(&PlaceError{Operation: operation, Place: path, Err: err})
		return
	}
	r.problem(path, operation, err)
}

// faulty asks the test's hook.
func (r *run) faulty(operation, path string) error {
	if r.options.fault == nil {
		return nil
	}
	return r.options.fault(operation, path)
}

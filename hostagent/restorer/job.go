package restorer

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var (
	errUnreadable = errors.New("the backup could not read its content")
	errSize       = fmt.Errorf("%w: its extents do not add up to its size", snapshot.ErrFormat)
	errFileID     = errors.New("its content is not what its file id says: it is that of another file")
	errExtent     = fmt.Errorf("%w: an extent leads past the end of its chunk", snapshot.ErrFormat)
)

// job restores one thing that is not a directory.
type job struct {
	entry    *snapshot.Entry
	dir      *directory
	name     string // in dir
	group    *group // of hard links; nil: none
	leads    bool   // the first of its group: the others become links to it
	existing *unix.Stat_t
	reuse    bool // the file that is there may have some of the content
	written  atomic.Uint64

	// What must happen before the file is complete: writes, and one for whoever still adds to them.
	pending atomic.Int64

	mu     sync.RWMutex // held for reading while writing to fd, so that it is not closed meanwhile
	fd     int          // of the temporary file, -1: not open; guarded by mu
	temp   string       // name of the file until it is complete; guarded by mu
	err    error        // the first failure; guarded by mu
	ended  bool         // nothing more may be opened; guarded by mu
	faulty string       // operation that failed; guarded by mu
}

// leaf queues an entry that is not a directory.
func (r *run) leaf(e *snapshot.Entry, parent *directory, name string) error {
	j := &job{entry: e, dir: parent, name: name, fd: -1}
	j.pending.Store(1)
	parent.pending.Add(1)
	if e.NotConsistent {
		r.warn(WarnConsistent, e.Path, nil)
	}
	if e.Linked {
		r.join(j)
	}
	if len(e.Maps) > 0 && (j.group == nil || j.leads) {
		return r.large(j)
	}
	return r.enqueue(part{job: j, extents: e.Extents, whole: true})
}

// fail notes the first failure of a job; what was there stays.
func (j *job) fail(operation string, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err, j.faulty = err, operation
	}
}

func (j *job) failed() bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.err != nil
}

// release counts one thing as done; the last one completes the job.
func (r *run) release(j *job) {
	if j.pending.Add(-1) == 0 {
		r.complete(j)
	}
}

// write puts data into the temporary file.
func (r *run) write(j *job, data []byte, offset uint64) error {
	if err := r.open(j); err != nil {
		return err
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.err != nil || j.fd < 0 {
		return nil // it will not be completed
	}
	if err := r.faulty("write", j.entry.Path); err != nil {
		return err
	}
	if offset+uint64(len(data)) > j.entry.Size {
		return errSize
	}
	if err := writeAt(j.fd, data, int64(offset)); err != nil { //nolint:gosec // at most Size, which ftruncate took
		return err
	}
	j.written.Add(uint64(len(data)))
	r.wrote(len(data))
	return nil
}

// open makes the file, if that was not done yet: beside its place, or in it where [run.direct] says so.
func (r *run) open(j *job) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fd >= 0 || j.err != nil || j.ended {
		return nil
	}
	at, err := r.dirs.pin(j.dir)
	if err != nil {
		return err
	}
	defer r.dirs.unpin(j.dir)
	if err := r.faulty("create", j.entry.Path); err != nil {
		return err
	}
	fd, name, err := r.create(at, j)
	if err != nil {
		return err
	}
	j.fd, j.temp = fd, name
	if j.entry.Size > 0 && hollow(j.entry) {
		if j.entry.Size > 1<<63-1 {
			return unix.EFBIG
		}
		return again(func() error { return unix.Ftruncate(fd, int64(j.entry.Size)) })
	}
	return nil
}

// hollow reports whether a file has, or may have, holes: then its size must be set.
func hollow(e *snapshot.Entry) bool {
	if len(e.Maps) > 0 {
		return true
	}
	for i := range e.Extents {
		if e.Extents[i].Hole {
			return true
		}
	}
	return false
}

// complete ends a job whose content is written: metadata, then the rename that makes it visible if it is not in its place.
func (r *run) complete(j *job) {
	if err := r.publish(j); err != nil {
		j.fail("write", err)
	}
	j.mu.Lock()
	err, operation := j.err, j.faulty
	r.discard(j)
	j.mu.Unlock()
	if err != nil {
		r.finished(j, inode{}, operation, err)
	}
}

// publish does the work of complete for a job that has not failed.
func (r *run) publish(j *job) error {
	if j.failed() || r.ctx.Err() != nil {
		return r.ended()
	}
	if err := r.open(j); err != nil { // a file without content was not written to
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := r.setMetadata(target{fd: j.fd, fresh: true, acl: j.dir.acl}, j.entry); err != nil {
		return err
	}
	var id inode
	if j.leads {
		st, err := fstat(j.fd)
		if err != nil {
			return err
		}
		id = inodeOf(&st)
	}
	if j.temp != j.name {
		if err := r.rename(j, j.temp); err != nil {
			return err
		}
	}
	j.temp = ""
	r.replaced(j)
	r.finished(j, id, "", nil)
	return nil
}

// discard closes the file and removes it, if it was not completed. The caller holds mu.
func (r *run) discard(j *job) {
	j.ended = true
	if j.temp != "" {
		r.takeAway(j)
	}
	if j.fd >= 0 {
		_ = unix.Close(j.fd)
		j.fd = -1
	}
}

// abandon gives a job up when the whole restore ends.
func (r *run) abandon(j *job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = r.ended()
	}
	r.discard(j)
}

// rename gives a finished temporary file its name. A directory there is removed if it is empty or Delete may empty it.
func (r *run) rename(j *job, temp string) error {
	at, err := r.dirs.pin(j.dir)
	if err != nil {
		return err
	}
	defer r.dirs.unpin(j.dir)
	if err := r.faulty("rename", j.entry.Path); err != nil {
		return err
	}
	err = unix.Renameat(at, temp, at, j.name)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	if err := r.clearWay(at, j); err != nil {
		return err
	}
	return unix.Renameat(at, temp, at, j.name)
}

// clearWay removes a directory that stands where a job's file must go.
func (r *run) clearWay(at int, j *job) (err error) {
	fd, before, err := r.openExisting(at, j.name)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			giveBack(fd, before)
		}
		_ = unix.Close(fd)
	}()
	empty := true
	err = eachName(fd, func(string) { empty = false })
	switch {
	case err != nil:
		return err
	case empty && r.options.DryRun:
		return nil
	case empty:
		return unix.Unlinkat(at, j.name, unix.AT_REMOVEDIR)
	case !r.options.Delete:
		return errInTheWay
	}
	if !r.remove(at, j.name, j.entry.Path) {
		return errInTheWay
	}
	return nil
}

// replaced counts a job whose content or node was made anew.
func (r *run) replaced(j *job) {
	operation := "create"
	if j.existing != nil {
		operation = "update"
	}
	r.act(operation, j.entry.Path, j.entry.Size)
	r.add(func(x *Result) {
		if j.existing != nil {
			x.Updated++
		} else {
			x.Created++
		}
		x.Written += j.written.Load()
	})
}

// finished counts a job, whatever became of it, and lets go of those that wait for it.
func (r *run) finished(j *job, id inode, operation string, err error) {
	e := j.entry
	switch {
	case err != nil && r.ctx.Err() != nil:
		return // the restore ends; nobody waits any more
	case err != nil:
		r.failed(e.Path, operation, err)
		r.spoil(j.dir, err)
		r.progress.Add(1, e.Size, 0)
	default:
		r.add(func(x *Result) {
			if e.Type == snapshot.File {
				x.Files++
				x.Bytes += e.Size
			} else {
				x.Others++
			}
		})
		r.progress.Add(1, e.Size, j.written.Load())
	}
	if j.leads {
		r.groups.settle(r, j, id, err)
	}
	r.done(j.dir)
}

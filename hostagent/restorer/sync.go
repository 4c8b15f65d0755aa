package restorer

import (
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// syncEvery is how many bytes are written between two syncs on the way.
const syncEvery = 128 << 20

// flusher syncs what was written while more is being written: the disk works beside the processors, the sync at the end has
// little left to do, and a large restore does not fill the memory of the host with what waits for the disk.
type flusher struct {
	dirty   atomic.Int64 // bytes written since the last sync began
	wake    chan struct{}
	working sync.WaitGroup
}

// opened remembers one directory on each file system that is written to, for the sync at the end. A file system that
// could not be synced must not be written to: what is reported as restored could be gone after a power cut.
func (r *run) opened(fd int, id inode) {
	if r.options.DryRun {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.syncs[id.device]; ok {
		return
	}
	dup, err := -1, r.faulty("duplicate", "")
	if err == nil {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		place, _ := os.Readlink(procPath(fd)) // only for the message
		r.stop(&PlaceError{Operation: "keep open", Place: place, Err: err})
		return
	}
	r.syncs[id.device] = dup
}

// startFlusher begins to sync on the way. It ends with endFlusher.
func (r *run) startFlusher() {
	f := &r.flusher
	f.wake = make(chan struct{}, 1)
	f.working.Go(func() {
		for range f.wake {
			f.dirty.Store(0)
			if err := r.syncAll(); err != nil {
				r.stop(err)
			}
		}
	})
}

// wrote counts bytes and lets a sync begin where it is time.
func (r *run) wrote(n int) {
	if r.options.Unsynced || r.flusher.dirty.Add(int64(n)) < syncEvery {
		return
	}
	select {
	case r.flusher.wake <- struct{}{}:
	default: // the one before has not begun
	}
}

// endFlusher waits for a sync that is under way. Nothing is written any more.
func (r *run) endFlusher() {
	close(r.flusher.wake)
	r.flusher.working.Wait()
}

// sync makes all that was written durable.
func (r *run) sync() error {
	if r.options.DryRun || r.options.Unsynced {
		return nil
	}
	return r.syncAll()
}

func (r *run) syncAll() error {
	r.mu.Lock()
	var fds []int
	for _, fd := range r.syncs {
		fds = append(fds, fd)
	}
	r.mu.Unlock()
	for _, fd := range fds {
		err := r.faulty("syncfs", "")
		if err == nil {
			err = again(func() error { return unix.Syncfs(fd) })
		}
		if err != nil {
			r.doubt()
			place, _ := os.Readlink(procPath(fd)) // only for the message
			return &PlaceError{Operation: "sync", Place: place, Err: err}
		}
	}
	return nil
}

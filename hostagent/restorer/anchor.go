package restorer

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// anchor opens a place, makes it if it is missing, locks it and marks it as unfinished.
func (r *run) anchor(a anchor) (*directory, error) {
	if d, ok := r.anchors[a.place]; ok {
		return d, nil
	}
	d := &directory{name: a.place, fd: -1, existed: true}
	d.pending.Store(1) // until releaseAnchors
	err := r.openAnchor(d)
	if err != nil {
		return nil, err
	}
	r.anchors[a.place] = d
	if d.virtual {
		return d, nil
	}
	if !r.options.DryRun {
		// The kernel drops the lock when this process ends, however that happens.
		if err := unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			return nil, r.fatal("restore to", a.place, ErrBusy)
		}
	}
	if err := r.listDirectory(d, d.fd); err != nil {
		return nil, r.fatal("list", a.place, err)
	}
	r.checkMark(d)
	if r.options.DryRun {
		return d, nil
	}
	return d, r.mark(d)
}

func (r *run) openAnchor(d *directory) error {
	fd, err := unix.Open(d.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		d.existed = false
		if r.options.DryRun {
			d.virtual = true
			return nil
		}
		err = r.faulty("mkdir", d.name)
		if err == nil {
			err = os.MkdirAll(d.name, 0o755) //nolint:gosec // like mkdir -p; what is secret below has its own mode
		}
		if err == nil {
			fd, err = unix.Open(d.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	}
	if err != nil {
		return r.fatal("restore to", d.name, err)
	}
	st, err := fstat(fd)
	if err != nil {
		_ = unix.Close(fd)
		return r.fatal("restore to", d.name, err)
	}
	d.id = inodeOf(&st)
	d.acl = inheritsACL(fd)
	if !r.root && !r.options.DryRun && st.Mode&0o700 != 0o700 && unix.Fchmod(fd, st.Mode&0o7777|0o700) == nil {
		d.lent = st.Mode // ours, but not writable; it gets this mode back
	}
	r.dirs.adopt(d, fd)
	return nil
}

// shared reports whether the directory keeps its metadata though it was named as the target.
func shared(d *directory) bool {
	st, err := fstat(d.fd)
	return err == nil && d.existed && (st.Mode&unix.S_ISVTX != 0 || d.name == "/")
}

// keepTime returns a function that sets the mtime of a directory back, as far as this user may: a mark is no change.
func keepTime(fd int) func() {
	st, err := fstat(fd)
	return func() {
		if err == nil {
			_ = setTimes(fd, false, snapshot.Time{Sec: int64(st.Mtim.Sec), Nsec: uint32(st.Mtim.Nsec)}) //nolint:gosec,unconvert // nanoseconds; differs by architecture
		}
	}
}

// releaseAnchors removes the marks and gives the places their metadata. All content is durable by now: a crash
// between two of these steps costs no more than one comparison of all content.
func (r *run) releaseAnchors() {
	for _, d := range r.anchors {
		if !r.options.DryRun && d.fd >= 0 {
			back := keepTime(d.fd)
			r.unmark(d)
			back()
		}
		r.done(d)
		if !r.options.DryRun && d.fd >= 0 {
			_ = again(func() error { return unix.Fsync(d.fd) }) // metadata of the place itself; the next run would set it again
		}
	}
}

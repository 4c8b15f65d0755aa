package restorer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/filetype"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// errMayNot says that this user, or every user of this container, may not make device nodes.
var errMayNot = errors.New("device nodes may not be made here")

// special makes a symlink, FIFO or device beside its place and renames it, or in its place where [run.direct] says so.
func (r *run) special(j *job) {
	id, err := r.makeSpecial(j)
	if errors.Is(err, errMayNot) {
		r.warn(WarnDevice, j.entry.Path, err)
		if j.leads {
			r.groups.settle(r, j, inode{}, err)
		}
		r.progress.Add(1, 0, 0)
		r.done(j.dir)
		return
	}
	if err == nil {
		r.replaced(j)
	}
	r.finished(j, id, "make", err)
}

func (r *run) makeSpecial(j *job) (id inode, err error) {
	at, err := r.dirs.pin(j.dir)
	if err != nil {
		return inode{}, err
	}
	defer r.dirs.unpin(j.dir)
	if err := r.faulty("create", j.entry.Path); err != nil {
		return inode{}, err
	}
	temp := j.name
	if !r.direct(j) {
		temp = r.names.next()
	}
	err = makeNode(at, temp, j.entry)
	if errors.Is(err, unix.EEXIST) && temp == j.name {
		temp = r.names.next()
		err = makeNode(at, temp, j.entry)
	}
	if err != nil {
		return inode{}, err
	}
	if id, err = r.dressNode(at, temp, j); err == nil && temp != j.name {
		err = r.rename(j, temp)
	}
	if err != nil && (temp != j.name || !errors.Is(err, errSwapped)) {
		_ = unix.Unlinkat(at, temp, 0) // a node without its metadata gets it from the next run
	}
	return id, err
}

func makeNode(at int, name string, e *snapshot.Entry) error {
	switch e.Type {
	case snapshot.Symlink:
		return unix.Symlinkat(e.Target, at, name)
	case snapshot.FIFO:
		return unix.Mknodat(at, name, unix.S_IFIFO|0o600, 0)
	case snapshot.CharDevice, snapshot.Device:
		err := unix.Mknodat(at, name, filetype.Bits(e.Type)|0o600, int(unix.Mkdev(e.Major, e.Minor))) //nolint:gosec // as mknod(2) has it
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%w: %w", errMayNot, err)
		}
		return err
	}
	return fmt.Errorf("%w: type %q", snapshot.ErrFormat, byte(e.Type))
}

// dressNode sets the metadata of the node that was just made. Somebody may have put another file there: what is
// given away must be what was made, and have no other name.
func (r *run) dressNode(at int, name string, j *job) (inode, error) {
	fd, err := openAt(at, name, unix.O_PATH, 0)
	if err != nil {
		return inode{}, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written through it
	st, err := fstat(fd)
	if err != nil {
		return inode{}, err
	}
	if typeOf(&st) != filetype.Bits(j.entry.Type) || st.Nlink != 1 {
		return inode{}, errSwapped
	}
	_, err = r.setMetadata(target{fd: fd, opath: true, fresh: true, acl: j.dir.acl}, j.entry)
	return inodeOf(&st), err
}

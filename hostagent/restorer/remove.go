package restorer

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// deepRemoval is how many directories of one removal are open at the same time.
const deepRemoval = 64

// remove removes name from the directory at, with all below it, never through a symlink and never into another file
// system. What is protected stays, with the directories above it. path is what its path in the snapshot would be. It returns false if something stays.
func (r *run) remove(at int, name, path string) bool {
	st, err := lstatAt(at, name)
	if errors.Is(err, unix.ENOENT) {
		return true
	}
	if err != nil {
		r.failed(path, "remove", err)
		return false
	}
	top, err := fstat(at)
	if err != nil {
		r.failed(path, "remove", err)
		return false
	}
	return r.removeEntry(&at, name, path, &st, inodeOf(&top), 0)
}

// removeEntry removes one thing; it returns false if something stays. *at may be closed and opened again meanwhile if depth > 0;
// id is its inode.
func (r *run) removeEntry(at *int, name, path string, st *unix.Stat_t, id inode, depth int) bool {
	isDir := typeOf(st) == unix.S_IFDIR
	switch {
	case r.ctx.Err() != nil:
		return false
	case r.protected(path, isDir) || r.keep[inodeOf(st)]:
		r.warn(WarnKept, path, nil)
		return false
	case isDir && (inodeOf(st).device != id.device || mountPoint(*at, name)):
		r.warn(WarnKept, path, unix.EBUSY)
		return false
	}
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
		if !r.removeContent(at, name, path, st, id, depth) {
			return false
		}
	}
	if !r.options.DryRun {
		err := r.faulty("remove", path)
		if err == nil {
			err = unix.Unlinkat(*at, name, flags)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			r.failed(path, "remove", err)
			return false
		}
	}
	r.act("delete", path, 0)
	r.add(func(x *Result) { x.Deleted++ })
	return true
}

// removeContent empties the directory name in *at. If something in it stays, it has the mode again that it had.
func (r *run) removeContent(at *int, name, path string, st *unix.Stat_t, id inode, depth int) (empty bool) {
	fd, before, err := r.openExisting(*at, name)
	if err != nil {
		r.failed(path, "remove", err)
		return false
	}
	defer func() {
		if !empty {
			giveBack(fd, before)
		}
		_ = unix.Close(fd)
	}()
	if own, err := fstat(fd); err != nil || inodeOf(&own) != inodeOf(st) {
		r.problem(path, "remove", errSwapped)
		return false
	}
	var names []string
	if err := eachName(fd, func(s string) { names = append(names, s) }); err != nil {
		r.failed(path, "remove", err)
		return false
	}
	far := depth >= deepRemoval
	if far { // so that the depth of a tree needs no more than that many descriptors
		_ = unix.Close(*at)
		*at = -1
	}
	empty = true
	for _, child := range names {
		cst, err := lstatAt(fd, child)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			r.failed(path+"/"+child, "remove", err)
			empty = false
			continue
		}
		if !r.removeEntry(&fd, child, path+"/"+child, &cst, inodeOf(st), depth+1) {
			empty = false
		}
		if fd < 0 {
			return false
		}
	}
	if far && !r.climb(at, fd, id) {
		r.problem(path, "remove", errSwapped)
		return false
	}
	return empty
}

// giveBack sets the mode of a directory back to what openExisting found, if it changed that.
func giveBack(fd int, before uint32) {
	if before != 0 && fd >= 0 {
		_ = unix.Fchmod(fd, before&0o7777)
	}
}

// climb opens the directory above fd again, if it is still the same.
func (r *run) climb(at *int, fd int, id inode) bool {
	up, err := openAt(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	if st, err := fstat(up); err != nil || inodeOf(&st) != id {
		_ = unix.Close(up)
		return false
	}
	*at = up
	return true
}

// protected reports whether Delete must leave path alone.
func (r *run) protected(path string, isDir bool) bool {
	for _, guard := range r.guards {
		if guard == path || strings.HasPrefix(path, guard) && snapshot.Within(guard, path) {
			return true
		}
	}
	return r.options.Protect != nil && r.options.Protect(path, isDir)
}

// mountPoint reports whether a file system, or part of one, is mounted there.
func mountPoint(at int, name string) bool {
	var st unix.Statx_t
	err := unix.Statx(at, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

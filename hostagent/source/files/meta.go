package files

import (
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/filetype"
	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// meta is what a stat tells, without padding.
type meta struct {
	device, inode, rdev uint64
	size                uint64 // bytes
	mode, uid, gid      uint32
	linked              bool
	mtime, ctime        snapshot.Time
}

func (m *meta) fill(st *unix.Stat_t) {
	*m = meta{
		device: uint64(st.Dev), inode: st.Ino, rdev: uint64(st.Rdev), //nolint:unconvert // not uint64 everywhere
		size: uint64(max(0, st.Size)),
		mode: st.Mode, uid: st.Uid, gid: st.Gid,
		linked: st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR,
		mtime:  timeOf(st.Mtim), ctime: timeOf(st.Ctim),
	}
}

func timeOf(t unix.Timespec) snapshot.Time {
	sec, nsec := t.Unix()
	return snapshot.Time{Sec: sec, Nsec: uint32(nsec)}
}

// lstat stats a name in a directory; an empty name is the open file itself.
func lstat(dirFD int, name string) (m meta, err error) {
	var st unix.Stat_t
	for {
		err = unix.Fstatat(dirFD, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.EINTR { //nolint:errorlint // a bare errno
			continue
		}
		if err == nil {
			m.fill(&st)
		}
		return m, err
	}
}

func fstat(fd int) (m meta, err error) {
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		m.fill(&st)
	}
	return m, err
}

// fileType returns the type of entry, 0 for what no tree can hold.
func (m *meta) fileType() snapshot.Type { return filetype.Of(m.mode) }

// sameContent reports whether two stats of a file leave no sign that it was written to in between.
func (m *meta) sameContent(o *meta) bool {
	return m.device == o.device && m.inode == o.inode && m.size == o.size && m.mtime == o.mtime && m.ctime == o.ctime
}

// apply writes what the stat tells into an entry; of the content only the size.
func (m *meta) apply(e *snapshot.Entry, owners *inode.Names) {
	e.Type = m.fileType()
	e.Mode = m.mode & 0o7777
	e.UID, e.GID = m.uid, m.gid
	e.User, e.Group = owners.Of(m.uid, m.gid)
	e.MTime, e.CTime = m.mtime, m.ctime
	e.Device, e.Inode = m.device, m.inode
	e.Linked = m.linked
	e.Size, e.Major, e.Minor = 0, 0, 0
	switch e.Type {
	case snapshot.File:
		e.Size = m.size
	case snapshot.CharDevice, snapshot.Device:
		e.Major, e.Minor = unix.Major(m.rdev), unix.Minor(m.rdev)
	}
}

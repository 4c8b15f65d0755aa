package sqlite

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// metadata is what a file has beside its content.
type metadata struct {
	uid, gid uint32
	mode     uint32 // permission bits
	xattrs   []snapshot.Xattr
}

// metadataOf is that of an entry of a snapshot.
func metadataOf(e *snapshot.Entry) *metadata {
	return &metadata{uid: e.UID, gid: e.GID, mode: e.Mode & 0o777, xattrs: e.Xattrs}
}

// metadataAt is that of a file that is there.
func metadataAt(f *os.File) (*metadata, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil { //nolint:gosec // a descriptor
		return nil, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	m := &metadata{uid: st.Uid, gid: st.Gid, mode: st.Mode & 0o777}
	names, err := xattrList(f)
	if err != nil {
		return nil, &os.PathError{Op: "list attributes of", Path: f.Name(), Err: err}
	}
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(int(f.Fd()), name, value) //nolint:gosec // a descriptor
		if err != nil {
			continue // gone meanwhile, or not for this user
		}
		m.xattrs = append(m.xattrs, snapshot.Xattr{Name: name, Value: slices.Clone(value[:n])})
	}
	return m, nil
}

func xattrList(f *os.File) ([]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(f.Fd()), names) //nolint:gosec // a descriptor
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || n == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00"), nil
}

// apply gives a file the metadata: the owner first, which clears bits of the mode, the mode last. What this user or this
// file system can't do is returned in words.
func (m *metadata) apply(f *os.File) (warnings []string, err error) {
	fd := int(f.Fd()) //nolint:gosec // a descriptor
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Uid != m.uid || st.Gid != m.gid {
		err := unix.Fchown(fd, int(m.uid), int(m.gid))
		if err != nil && st.Gid != m.gid {
			_ = unix.Fchown(fd, -1, int(m.gid)) // a group of this user's own it may give
		}
		if err != nil {
			warn("the owner %d:%d can not be set: %v", m.uid, m.gid, err)
		}
	}
	for _, x := range m.xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			warn("the attribute %s can not be set: %v", x.Name, err)
		}
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return warnings, err
	}
	return warnings, nil
}

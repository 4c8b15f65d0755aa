package restorer

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// target is an open file, of whatever type, that gets its metadata. All goes through the descriptor: a name could
// lead elsewhere by now.
type target struct {
	fd    int
	opath bool // fd was opened with O_PATH
	fresh bool // this run made it
	acl   bool // it may have inherited an ACL
	check bool // change nothing, only tell
}

// setMetadata gives t the owner, attributes, mode and mtime of e, in this order: a change of owner clears set-uid bits and
// capabilities, attributes need a writable mode, and all of it may touch times. What is right already is left alone;
// changed tells whether anything was not.
func (r *run) setMetadata(t target, e *snapshot.Entry) (changed bool, err error) {
	t.check = t.check || r.options.DryRun
	if !t.check {
		if err := r.faulty("metadata", e.Path); err != nil {
			return false, err
		}
	}
	st, err := fstat(t.fd)
	if err != nil {
		return false, err
	}
	mode := e.Mode & 0o7777
	owned, err := r.setOwner(t, e, &st, &mode)
	if err != nil {
		return false, err
	}
	attributes, err := r.setXattrs(t, e, st.Mode&0o7777)
	if err != nil {
		return false, err
	}
	changed = owned || attributes
	// A new owner clears set-uid and set-gid bits, an ACL is the mode's other face.
	again := attributes || owned && mode&(unix.S_ISUID|unix.S_ISGID) != 0
	if e.Type != snapshot.Symlink && (again && !t.check || st.Mode&0o7777 != mode) {
		changed = true
		if err := r.setMode(t, e, mode); err != nil {
			return true, err
		}
	}
	if t.fresh || !sameTime(&st, e.MTime) {
		changed = true
		if !t.check {
			return true, setTimes(t.fd, t.opath, e.MTime)
		}
	}
	return changed, nil
}

func sameTime(st *unix.Stat_t, mtime snapshot.Time) bool {
	return int64(st.Mtim.Sec) == mtime.Sec && int64(st.Mtim.Nsec) == int64(mtime.Nsec) //nolint:unconvert // differs by architecture
}

// setOwner sets owner and group as far as this user may. Privileges that an executable would give are cleared from mode
// if they would be those of somebody else than at the backup.
func (r *run) setOwner(t target, e *snapshot.Entry, st *unix.Stat_t, mode *uint32) (changed bool, err error) {
	uid, gid, unknown := r.owners.ids(e)
	if unknown && !t.check {
		r.warn(WarnName, e.Path, nil)
	}
	wantUID, wantGID := st.Uid != uid, st.Gid != gid
	if !wantUID && !wantGID {
		return false, nil
	}
	done := false
	switch {
	case r.root:
		if done, err = t.chown(int(uid), int(gid)); done {
			return true, nil
		}
	case wantGID && r.owners.member(gid):
		if done, err = t.chown(-1, int(gid)); done {
			changed, wantGID = true, false
		}
	}
	if err != nil || !wantUID && !wantGID {
		return changed, err
	}
	if !t.check {
		r.warn(WarnOwner, e.Path, unix.EPERM)
	}
	r.dropPrivileges(t, e, mode, wantUID, wantGID)
	return changed, nil
}

// dropPrivileges clears set-uid and set-gid bits of a file whose owner or group could not be set.
func (r *run) dropPrivileges(t target, e *snapshot.Entry, mode *uint32, uid, gid bool) {
	before := *mode
	if e.Type == snapshot.Directory {
		return
	}
	if uid {
		*mode &^= unix.S_ISUID
	}
	if gid {
		*mode &^= unix.S_ISGID
	}
	if *mode != before && !t.check {
		r.warn(WarnPrivilege, e.Path, nil)
	}
}

// chown changes the owner; false without an error: this user may not.
func (t target) chown(uid, gid int) (bool, error) {
	if t.check {
		return true, nil
	}
	err := unix.Fchownat(t.fd, "", uid, gid, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) { // EINVAL: an id that this user namespace lacks
		return false, nil
	}
	return err == nil, err
}

func (r *run) setMode(t target, e *snapshot.Entry, mode uint32) error {
	if t.check {
		return nil
	}
	var err error
	if t.opath {
		err = unix.Chmod(procPath(t.fd), mode)
	} else {
		err = unix.Fchmod(t.fd, mode)
	}
	if errors.Is(err, unix.ENOTSUP) { // file systems without modes
		r.warn(WarnMode, e.Path, err)
		return nil
	}
	return err
}

// setXattrs makes the attributes those of e. Labels that this host's security module set are not removed. ACLs come
// last, as they may take away the owner's right to write, which other attributes need.
func (r *run) setXattrs(t target, e *snapshot.Entry, mode uint32) (changed bool, err error) {
	var have map[string][]byte
	if !t.fresh || t.acl {
		if have, err = xattrs(t.fd); err != nil {
			return false, err
		}
	}
	set := r.missingXattrs(t, e, have)
	maps.DeleteFunc(have, func(name string, _ []byte) bool { return !removable(name, r.root) })
	if len(set)+len(have) == 0 || t.check {
		return len(set)+len(have) > 0, nil
	}
	path := procPath(t.fd)
	if !r.root && mode&0o200 == 0 && e.Type != snapshot.Symlink {
		_ = unix.Chmod(path, mode|0o200) // the mode is set again after this
	}
	for name := range have {
		if err := unix.Removexattr(path, name); err != nil && !errors.Is(err, unix.ENODATA) {
			r.warn(WarnAttribute, e.Path, err)
		}
	}
	slices.SortStableFunc(set, func(a, b snapshot.Xattr) int { return rank(a) - rank(b) })
	for _, x := range set {
		switch err := unix.Setxattr(path, x.Name, x.Value, 0); {
		case err == nil:
		case refusesXattr(err):
			r.warn(WarnAttribute, e.Path, err)
		default:
			return true, err
		}
	}
	return true, nil
}

// refusesXattr reports whether a file system will not take an attribute, which is no reason to go without the file.
// Where ext4 and btrfs find no room for a value beside the inode they say ENOSPC, with a disk that is all but empty; if
// it is really full, the next write says so.
func refusesXattr(err error) bool {
	for _, no := range []error{
		unix.ENOTSUP, unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSPC, unix.EDQUOT, unix.E2BIG, unix.ERANGE,
	} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// missingXattrs returns the attributes that must be set, and removes from have those that e has.
func (r *run) missingXattrs(t target, e *snapshot.Entry, have map[string][]byte) []snapshot.Xattr {
	var set []snapshot.Xattr
	for _, x := range e.Xattrs {
		value, ok := have[x.Name]
		delete(have, x.Name)
		if ok && bytes.Equal(value, x.Value) {
			continue
		}
		if !r.root && (strings.HasPrefix(x.Name, "trusted.") || strings.HasPrefix(x.Name, "security.")) {
			if !t.check {
				r.warn(WarnAttribute, e.Path, unix.EPERM)
			}
			continue
		}
		set = append(set, x)
	}
	return set
}

// rank sorts ACLs to the end.
func rank(x snapshot.Xattr) int {
	if strings.HasPrefix(x.Name, "system.posix_acl_") {
		return 1
	}
	return 0
}

func removable(name string, root bool) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_") ||
		root && (strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "trusted.overlay.") || name == "security.capability")
}

// xattrs reads all attributes of what fd, which may be an O_PATH one, is open on.
func xattrs(fd int) (map[string][]byte, error) {
	path := procPath(fd)
	list, err := grow(func(buf []byte) (int, error) { return unix.Listxattr(path, buf) })
	if err != nil || len(list) == 0 {
		return nil, err
	}
	have := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		value, err := grow(func(buf []byte) (int, error) { return unix.Getxattr(path, name, buf) })
		if err == nil {
			have[name] = value
		}
	}
	return have, nil
}

// grow reads something whose size may change between asking for it and reading it.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for range 5 {
		n, err := read(nil)
		if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = read(buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
	return nil, unix.ERANGE
}

// inheritsACL reports whether what is made in the directory gets an ACL from it.
func inheritsACL(fd int) bool {
	n, err := unix.Fgetxattr(fd, "system.posix_acl_default", nil)
	return err == nil && n > 0
}

// owners finds the ids to use on this host. It is safe for concurrent use.
type owners struct {
	byName bool
	own    []uint32 // groups of this process
	mu     sync.Mutex
	users  map[string]int64 // -1: unknown; guarded by mu
	groups map[string]int64 // guarded by mu
}

func newOwners(byName bool) *owners {
	o := &owners{byName: byName, users: map[string]int64{}, groups: map[string]int64{}}
	list, err := os.Getgroups()
	if err != nil {
		list = nil // then only the effective group is tried
	}
	for _, gid := range append(list, os.Getegid()) {
		o.own = append(o.own, uint32(gid)) //nolint:gosec // ids fit
	}
	return o
}

// member reports whether this process may give files to the group.
func (o *owners) member(gid uint32) bool { return slices.Contains(o.own, gid) }

func (o *owners) ids(e *snapshot.Entry) (uid, gid uint32, unknown bool) {
	uid, gid = e.UID, e.GID
	if !o.byName {
		return uid, gid, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	unknown = resolve(o.users, e.User, &uid, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	unknown = resolve(o.groups, e.Group, &gid, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	}) || unknown
	return uid, gid, unknown
}

// resolve sets id to that of name, if this host knows it.
func resolve(cache map[string]int64, name string, id *uint32, lookup func(string) (string, error)) (unknown bool) {
	if name == "" {
		return false
	}
	known, ok := cache[name]
	if !ok {
		known = -1
		if text, err := lookup(name); err == nil {
			if n, err := strconv.ParseUint(text, 10, 32); err == nil {
				known = int64(n) //nolint:gosec // 32 bits
			}
		}
		cache[name] = known
	}
	if known < 0 {
		return true
	}
	*id = uint32(known) //nolint:gosec // 32 bits
	return false
}

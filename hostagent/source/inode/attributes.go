// Package inode reads what a file system keeps of a thing beside its content and what a stat tells: extended attributes
// ([Attributes]) and the names of owners ([Names]). Sources share it.
package inode

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxAttributes bounds the attributes of one entry in bytes: an entry must fit in a chunk, and some file systems take
// thousands of attributes of 64 KiB.
const maxAttributes = 1 << 20

var errTooMany = fmt.Errorf("more than %d bytes of extended attributes: some are left out", maxAttributes)

// Attributes reads extended attributes, ACLs among them, of an open file or of a name in a directory.
type Attributes struct {
	fd   int
	path string // if not empty, instead of fd: a path through /proc, as no call takes a directory and a name
}

// Of are the attributes of an open file.
func Of(fd int) Attributes { return Attributes{fd: fd} }

// At are the attributes of a name in a directory; a symbolic link is not followed.
func At(dirFD int, name string) Attributes {
	return Attributes{path: "/proc/self/fd/" + strconv.Itoa(dirFD) + "/" + name}
}

func (a Attributes) list(buf []byte) (int, error) {
	if a.path != "" {
		return unix.Llistxattr(a.path, buf)
	}
	return unix.Flistxattr(a.fd, buf)
}

func (a Attributes) get(name string, buf []byte) (int, error) {
	if a.path != "" {
		return unix.Lgetxattr(a.path, name, buf)
	}
	return unix.Fgetxattr(a.fd, name, buf)
}

// Read returns all attributes in ascending order of names. Attributes that vanish meanwhile are left out.
func (a Attributes) Read() ([]snapshot.Xattr, error) {
	n, err := a.list(nil)                                                 // for nearly every file this says that there are none
	if err == unix.ENOTSUP || err == unix.EPERM || err == nil && n == 0 { //nolint:errorlint // bare errnos
		return nil, nil
	}
	list, err := whole(make([]byte, max(0, n)+1), a.list)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var out []snapshot.Xattr
	var failed error
	size := 0
	for _, name := range bytes.Split(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		name := string(name)
		var small [256]byte
		value, err := whole(small[:], func(buf []byte) (int, error) { return a.get(name, buf) })
		switch {
		case err == unix.ENODATA: //nolint:errorlint // a bare errno
		case err != nil:
			failed = err
		case size+len(name)+len(value) > maxAttributes:
			failed = errTooMany
		default:
			size += len(name) + len(value)
			out = append(out, snapshot.Xattr{Name: name, Value: slices.Clone(value)})
		}
	}
	slices.SortFunc(out, func(x, y snapshot.Xattr) int { return strings.Compare(x.Name, y.Name) })
	out = slices.CompactFunc(out, func(x, y snapshot.Xattr) bool { return x.Name == y.Name })
	return out, failed
}

// whole calls read with a buffer that is large enough, beginning with buf.
func whole(buf []byte, read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(buf)
		switch {
		case err == unix.EINTR: //nolint:errorlint // a bare errno
		case err == unix.ERANGE: //nolint:errorlint // a bare errno: ask for the size; it may grow again before the next call
			size, err := read(nil)
			if err != nil {
				return nil, err
			}
			buf = make([]byte, size+256)
		case err != nil:
			return nil, err
		default:
			return buf[:n], nil
		}
	}
}

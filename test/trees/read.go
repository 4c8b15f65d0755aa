package trees

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Segment is a run of data in a file; what lies between segments are holes.
type Segment struct{ Offset, Length int64 }

// Node is one thing in a tree.
type Node struct {
	Path          string // relative to the tree's top, which is "."
	Mode          uint32 // as in struct stat: type and permission bits
	UID, GID      uint32
	MTime, CTime  unix.Timespec
	Device, Inode uint64
	Links         uint64
	Rdev          uint64
	Size          int64
	Target        string    // of a symlink
	Segments      []Segment // of a regular file
	Hash          [32]byte  // SHA-256 of a regular file's content
	Xattrs        map[string]string
}

// Type returns the bits of Mode that tell the type, such as unix.S_IFREG.
func (n *Node) Type() uint32 { return n.Mode & unix.S_IFMT }

// Read lists the tree at top, each directory before what it holds, names in byte order.
func Read(top string) ([]Node, error) {
	d, err := openDir(unix.AT_FDCWD, top)
	if err != nil {
		return nil, err
	}
	defer d.close()
	self, err := d.node(".", ".")
	if err != nil {
		return nil, err
	}
	nodes := []Node{self}
	err = d.walk("", &nodes)
	return nodes, err
}

func (d dir) walk(prefix string, nodes *[]Node) error {
	names, err := d.names()
	if err != nil {
		return fmt.Errorf("list %q: %w", prefix, err)
	}
	for _, name := range names {
		n, err := d.node(prefix+name, name)
		if err != nil {
			return err
		}
		*nodes = append(*nodes, n)
		if n.Type() != unix.S_IFDIR {
			continue
		}
		sub, err := d.open(name)
		if err != nil {
			return fmt.Errorf("open %q: %w", n.Path, err)
		}
		err = sub.walk(n.Path+"/", nodes)
		sub.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (d dir) node(path, name string) (Node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Node{}, fmt.Errorf("stat %q: %w", path, err)
	}
	n := Node{
		Path: path, Mode: st.Mode, UID: st.Uid, GID: st.Gid, MTime: st.Mtim, CTime: st.Ctim,
		Device: uint64(st.Dev), Inode: st.Ino, Links: uint64(st.Nlink), //nolint:unconvert // differs by architecture
	}
	var err error
	switch n.Type() {
	case unix.S_IFLNK:
		n.Target, err = os.Readlink(d.path(name))
	case unix.S_IFCHR, unix.S_IFBLK:
		n.Rdev = uint64(st.Rdev) //nolint:unconvert // differs by architecture
	case unix.S_IFREG:
		n.Size = st.Size
		err = n.content(d, name)
	}
	if err == nil {
		n.Xattrs, err = xattrs(d.path(name))
	}
	if err != nil {
		return Node{}, fmt.Errorf("read %q: %w", path, err)
	}
	return n, nil
}

func (n *Node) content(d dir, name string) error {
	f, err := os.Open(d.path(name))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	h.Sum(n.Hash[:0])
	for at := int64(0); at < n.Size; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		n.Segments = append(n.Segments, Segment{start, end - start})
		at = end
	}
	return nil
}

func xattrs(path string) (map[string]string, error) {
	size, err := unix.Llistxattr(path, nil)
	if errors.Is(err, unix.ENOTSUP) || size <= 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]byte, size)
	if size, err = unix.Llistxattr(path, list); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for name := range bytes.SplitSeq(bytes.TrimRight(list[:size], "\x00"), []byte{0}) {
		value := make([]byte, 64<<10)
		size, err := unix.Lgetxattr(path, string(name), value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			continue // not for this user
		}
		if err != nil {
			return nil, err
		}
		all[string(name)] = string(value[:size])
	}
	return all, nil
}

// Paths returns the paths of nodes that have the type (such as unix.S_IFREG; 0: all), sorted.
func Paths(nodes []Node, kind uint32) []string {
	var paths []string
	for i := range nodes {
		if kind == 0 || nodes[i].Type() == kind {
			paths = append(paths, nodes[i].Path)
		}
	}
	slices.Sort(paths)
	return paths
}

// Open opens a regular file of a tree for reading. path is relative to top and may be longer than PATH_MAX.
func Open(top, path string) (*os.File, error) {
	d, err := openDir(unix.AT_FDCWD, top)
	if err != nil {
		return nil, err
	}
	names := strings.Split(path, "/")
	for _, name := range names[:len(names)-1] {
		sub, err := d.open(name)
		d.close()
		if err != nil {
			return nil, err
		}
		d = sub
	}
	defer d.close()
	return os.Open(d.path(names[len(names)-1]))
}

package mount

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/filetype"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// treeNode is one entry of a snapshot, or a directory above its roots.
type treeNode struct {
	fusefs.Inode
	*view
	snap  *repository.Snapshot
	path  string
	entry *snapshot.Entry // nil: a directory that was not captured itself

	mu   sync.Mutex
	kids map[string]*snapshot.Entry // what the last listing found, if that is not too much; guarded by mu
}

// kidsMax is how many entries of a listing a directory remembers: whoever lists looks at each of them next.
const kidsMax = 20_000

var (
	_ fusefs.NodeReaddirer   = (*treeNode)(nil)
	_ fusefs.NodeLookuper    = (*treeNode)(nil)
	_ fusefs.NodeGetattrer   = (*treeNode)(nil)
	_ fusefs.NodeReadlinker  = (*treeNode)(nil)
	_ fusefs.NodeGetxattrer  = (*treeNode)(nil)
	_ fusefs.NodeListxattrer = (*treeNode)(nil)
	_ fusefs.NodeOpener      = (*treeNode)(nil)
)

// errno is what a process gets to see.
func errno(err error) syscall.Errno {
	switch {
	case err == nil:
		return fusefs.OK
	case errors.Is(err, context.Canceled):
		return syscall.ESHUTDOWN
	case errors.Is(err, repository.ErrNoPath), errors.Is(err, repository.ErrNoSnapshot), errors.Is(err, fs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, objstore.ErrDenied):
		return syscall.EACCES
	}
	return syscall.EIO
}

// skipAfter is how many entries of a subtree are read past before it is jumped over.
const skipAfter = 1000

// children calls fn with each entry directly below dir, in order; e is nil for a directory that was not captured itself.
func (n *treeNode) children(ctx context.Context, fn func(name string, e *snapshot.Entry)) error {
	prefix := strings.TrimSuffix(n.path, "/") + "/"
	from := prefix
	for {
		next, err := n.childrenFrom(ctx, prefix, from, fn)
		if err != nil || next == "" {
			return err
		}
		from = next
	}
}

// childrenFrom reads on from a path, until the end or until a subtree is so large that it is better jumped over; then it
// returns where to go on.
func (n *treeNode) childrenFrom(ctx context.Context, prefix, from string, fn func(string, *snapshot.Entry)) (next string, err error) {
	last, passed := "", 0
	for e, err := range n.snap.Entries(ctx, from) {
		if err != nil {
			return "", err
		}
		rest, ok := strings.CutPrefix(e.Path, prefix)
		if !ok {
			if snapshot.ComparePaths(e.Path, prefix) < 0 {
				continue // the directory itself
			}
			return "", nil
		}
		name, below, deep := strings.Cut(rest, "/")
		switch {
		case !deep:
			fn(name, e)
			passed = 0
		case name != last && below != "":
			fn(name, nil)
			passed = 0
		}
		if last = name; deep {
			if passed++; passed > skipAfter {
				return prefix + name + "\x01", nil // after all that lies below name: "/" sorts first
			}
		}
	}
	return "", nil
}

// child returns the entry of a name, as find does.
func (n *treeNode) child(name, path string) (*snapshot.Entry, error) {
	n.mu.Lock()
	e, ok := n.kids[name]
	n.mu.Unlock()
	if ok {
		return e, nil
	}
	return n.find(n.view.ctx, path)
}

// find returns the entry of a path; nil without an error for a directory that was not captured itself.
func (n *treeNode) find(ctx context.Context, path string) (*snapshot.Entry, error) {
	for e, err := range n.snap.Entries(ctx, path) {
		switch {
		case err != nil:
			return nil, err
		case e.Path == path:
			return e, nil
		case strings.HasPrefix(e.Path, path+"/"):
			return nil, nil
		}
		break
	}
	return nil, repository.ErrNoPath
}

func (n *treeNode) ino(path string) uint64 {
	return n.inode(n.snap.Manifest().ID().String(), path)
}

// Readdir implements [fusefs.NodeReaddirer].
func (n *treeNode) Readdir(context.Context) (fusefs.DirStream, syscall.Errno) {
	var entries []fuse.DirEntry
	kids := map[string]*snapshot.Entry{}
	prefix := strings.TrimSuffix(n.path, "/") + "/"
	err := n.children(n.view.ctx, func(name string, e *snapshot.Entry) {
		mode := uint32(fuse.S_IFDIR)
		if e != nil {
			mode = filetype.Bits(e.Type)
		}
		entries = append(entries, fuse.DirEntry{Name: name, Mode: mode, Ino: n.ino(prefix + name)})
		if len(kids) <= kidsMax {
			kids[name] = e
		}
	})
	if err != nil {
		return nil, errno(err)
	}
	if len(kids) <= kidsMax {
		n.mu.Lock()
		n.kids = kids
		n.mu.Unlock()
	}
	return fusefs.NewListDirStream(entries), fusefs.OK
}

// Lookup implements [fusefs.NodeLookuper].
func (n *treeNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	path := strings.TrimSuffix(n.path, "/") + "/" + name
	e, err := n.child(name, path)
	if err != nil {
		return nil, errno(err)
	}
	child := &treeNode{view: n.view, snap: n.snap, path: path, entry: e}
	child.attributes(&out.Attr)
	out.SetEntryTimeout(time.Hour) // a snapshot never changes
	return n.NewInode(ctx, child, fusefs.StableAttr{Mode: out.Mode & unix.S_IFMT, Ino: n.ino(path)}), fusefs.OK
}

// Getattr implements [fusefs.NodeGetattrer].
func (n *treeNode) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.attributes(&out.Attr)
	return fusefs.OK
}

func (n *treeNode) attributes(out *fuse.Attr) {
	e := n.entry
	if e == nil {
		directory(out, n.snap.Manifest().Started)
		return
	}
	out.Mode = filetype.Bits(e.Type) | e.Mode
	out.Nlink = 1
	out.Owner = fuse.Owner{Uid: e.UID, Gid: e.GID}
	out.Rdev = uint32(unix.Mkdev(e.Major, e.Minor))
	out.Size = e.Size
	if e.Type == snapshot.Symlink {
		out.Size = uint64(len(e.Target))
	}
	out.Blocks = (out.Size + 511) / 512
	out.Blksize = 128 << 10
	mtime, ctime := stamp(e.MTime), stamp(e.CTime)
	out.SetTimes(&mtime, &mtime, &ctime)
}

func stamp(t snapshot.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// Readlink implements [fusefs.NodeReadlinker].
func (n *treeNode) Readlink(context.Context) ([]byte, syscall.Errno) {
	if n.entry == nil || n.entry.Type != snapshot.Symlink {
		return nil, syscall.EINVAL
	}
	return []byte(n.entry.Target), fusefs.OK
}

// Getxattr implements [fusefs.NodeGetxattrer].
func (n *treeNode) Getxattr(_ context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	if n.entry != nil {
		for _, x := range n.entry.Xattrs {
			if x.Name != attr {
				continue
			}
			if len(dest) < len(x.Value) {
				return uint32(len(x.Value)), syscall.ERANGE
			}
			return uint32(copy(dest, x.Value)), fusefs.OK
		}
	}
	return 0, syscall.ENODATA
}

// Listxattr implements [fusefs.NodeListxattrer].
func (n *treeNode) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	var names []byte
	if n.entry != nil {
		for _, x := range n.entry.Xattrs {
			names = append(append(names, x.Name...), 0)
		}
	}
	if len(dest) < len(names) {
		return uint32(len(names)), syscall.ERANGE
	}
	return uint32(copy(dest, names)), fusefs.OK
}

// Open implements [fusefs.NodeOpener].
func (n *treeNode) Open(_ context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	switch {
	case n.entry == nil || n.entry.Type != snapshot.File:
		return nil, 0, syscall.EINVAL
	case flags&(unix.O_WRONLY|unix.O_RDWR|unix.O_TRUNC|unix.O_APPEND) != 0:
		return nil, 0, syscall.EROFS
	case n.entry.Unreadable:
		return nil, 0, syscall.EIO // there is no content; an empty file would be a lie
	}
	return &handle{node: n}, fuse.FOPEN_KEEP_CACHE, fusefs.OK
}

package mount

import (
	"context"
	"fmt"
	"hash/maphash"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// nameTime is how snapshots are named, after their number: no colons, which some programs take for hosts.
const nameTime = "2006-01-02T15.04.05Z"

// latest is the link to a source's newest snapshot.
const latest = "latest"

// inode numbers what has none of its own. Two files with one number would be one file to the kernel, with the content of
// whichever was looked at first; so that nobody can choose names that meet, the numbers depend on a secret of the mount.
func (v *view) inode(parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(v.seed)
	for _, p := range parts {
		_, _ = h.WriteString(p)
		_ = h.WriteByte(0)
	}
	return h.Sum64() | 1<<63
}

func directory(out *fuse.Attr, at time.Time) {
	out.Mode = fuse.S_IFDIR | 0o555
	out.Nlink = 2
	out.SetTimes(nil, &at, &at)
}

// topNode lists hosts.
type topNode struct {
	fs.Inode
	*view
}

var (
	_ fs.NodeReaddirer = (*topNode)(nil)
	_ fs.NodeLookuper  = (*topNode)(nil)
	_ fs.NodeGetattrer = (*topNode)(nil)
	_ fs.NodeReaddirer = (*hostNode)(nil)
	_ fs.NodeLookuper  = (*hostNode)(nil)
	_ fs.NodeGetattrer = (*hostNode)(nil)
	_ fs.NodeReaddirer = (*sourceNode)(nil)
	_ fs.NodeLookuper  = (*sourceNode)(nil)
	_ fs.NodeGetattrer = (*sourceNode)(nil)
)

// Getattr implements [fs.NodeGetattrer].
func (n *topNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	directory(&out.Attr, n.repo.Created())
	return fs.OK
}

// hosts lists the names of hosts, or the sources of one.
func (v *view) names(host string) ([]string, error) {
	sources, err := v.repo.Sources(v.ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range sources {
		switch {
		case host == s.Host:
			out = append(out, s.Name)
		case host == "" && (len(out) == 0 || out[len(out)-1] != s.Host):
			out = append(out, s.Host)
		}
	}
	return out, nil
}

func (v *view) list(names []string, err error) (fs.DirStream, syscall.Errno) {
	if err != nil {
		return nil, errno(err)
	}
	entries := make([]fuse.DirEntry, 0, len(names))
	for _, name := range names {
		entries = append(entries, fuse.DirEntry{Name: name, Mode: fuse.S_IFDIR, Ino: v.inode(name)})
	}
	return fs.NewListDirStream(entries), fs.OK
}

// Readdir implements [fs.NodeReaddirer].
func (n *topNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) { return n.list(n.names("")) }

// Lookup implements [fs.NodeLookuper].
func (n *topNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	names, err := n.names(name)
	if err != nil {
		return nil, errno(err)
	}
	if len(names) == 0 || name == "" {
		return nil, syscall.ENOENT
	}
	directory(&out.Attr, n.repo.Created())
	return n.NewInode(ctx, &hostNode{view: n.view, host: name}, fs.StableAttr{Mode: fuse.S_IFDIR, Ino: n.inode(name)}), fs.OK
}

// hostNode lists the sources of a host.
type hostNode struct {
	fs.Inode
	*view
	host string
}

// Getattr implements [fs.NodeGetattrer].
func (n *hostNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	directory(&out.Attr, n.repo.Created())
	return fs.OK
}

// Readdir implements [fs.NodeReaddirer].
func (n *hostNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	return n.list(n.names(n.host))
}

// Lookup implements [fs.NodeLookuper].
func (n *hostNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	src := snapshot.Source{Host: n.host, Name: name}
	if src.Check() != nil {
		return nil, syscall.ENOENT
	}
	listed, err := n.repo.Sequences(n.ctx, src)
	if err != nil {
		return nil, errno(err)
	}
	if len(listed) == 0 {
		return nil, syscall.ENOENT
	}
	directory(&out.Attr, listed[len(listed)-1].Info.Modified)
	return n.NewInode(ctx, &sourceNode{view: n.view, src: src}, fs.StableAttr{Mode: fuse.S_IFDIR, Ino: n.inode(n.host, name)}), fs.OK
}

// sourceNode lists the snapshots of a source.
type sourceNode struct {
	fs.Inode
	*view
	src snapshot.Source
}

// Getattr implements [fs.NodeGetattrer].
func (n *sourceNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	directory(&out.Attr, n.repo.Created())
	return fs.OK
}

func snapshotName(m *repository.Stored) string {
	return fmt.Sprintf("%d-%s", m.Sequence, m.Started.UTC().Format(nameTime))
}

// snapshots reads the manifests; those that can't be read are not shown.
func (n *sourceNode) snapshots() ([]*repository.Stored, error) {
	all, err := n.repo.Manifests(n.ctx, n.src)
	if len(all) > 0 {
		return all, nil
	}
	return nil, err
}

// Readdir implements [fs.NodeReaddirer].
func (n *sourceNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	all, err := n.snapshots()
	if err != nil {
		return nil, errno(err)
	}
	entries := make([]fuse.DirEntry, 0, len(all)+1)
	for _, m := range all {
		entries = append(entries, fuse.DirEntry{Name: snapshotName(m), Mode: fuse.S_IFDIR, Ino: n.inode(m.ID().String())})
	}
	if len(all) > 0 {
		entries = append(entries, fuse.DirEntry{Name: latest, Mode: fuse.S_IFLNK, Ino: n.inode(n.src.String(), latest)})
	}
	return fs.NewListDirStream(entries), fs.OK
}

// Lookup implements [fs.NodeLookuper].
func (n *sourceNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	all, err := n.snapshots()
	if err != nil {
		return nil, errno(err)
	}
	for _, m := range all {
		if snapshotName(m) != name {
			continue
		}
		snap, err := n.snapshot(m)
		if err != nil {
			return nil, errno(err)
		}
		directory(&out.Attr, m.Started)
		node := &treeNode{view: n.view, snap: snap, path: "/"}
		return n.NewInode(ctx, node, fs.StableAttr{Mode: fuse.S_IFDIR, Ino: n.inode(m.ID().String())}), fs.OK
	}
	if name == latest && len(all) > 0 {
		newest := all[len(all)-1] // of unfinished ones only if there is no other
		for _, m := range all {
			if !m.Unfinished || newest.Unfinished {
				newest = m
			}
		}
		link := &fs.MemSymlink{Data: []byte(snapshotName(newest))}
		out.Mode = fuse.S_IFLNK | 0o777
		// The number of the link follows its target, so that a new snapshot is seen.
		return n.NewInode(ctx, link, fs.StableAttr{Mode: fuse.S_IFLNK, Ino: n.inode(n.src.String(), latest, string(link.Data))}), fs.OK
	}
	return nil, syscall.ENOENT
}

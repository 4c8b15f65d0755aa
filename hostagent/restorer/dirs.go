package restorer

import (
	"container/list"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxDirs is how many directories stay open. More are known; they are opened again, from an open one above, when needed.
const maxDirs = 128

// directory is one directory below a place, or (without parent) the place itself.
type directory struct {
	parent  *directory
	name    string          // in parent; for a place: its absolute path
	source  string          // path in the snapshot; empty: it has none
	entry   *snapshot.Entry // metadata to set at the end; nil: leave it alone
	existed bool            // it was there before this run
	virtual bool            // dry run: it would be made
	marked  bool            // its place says that it is unfinished
	private bool            // this run made it and nobody else may enter it before it is finished; see direct
	lent    uint32          // st_mode before it was made usable; 0: it was
	acl     bool            // new files in it inherit an ACL
	id      inode
	broken  error // why nothing can be put into it

	// Unfinished things in it, and one for the walk while it is there. Whoever brings it to zero finishes the directory.
	pending atomic.Int64

	listing listing // used by the walk, then by whoever finishes

	number uint32 // in settledGroups.dirs, plus one; 0: it is not there; guarded by groups.mu

	fd   int           // guarded by dirCache.mu; -1: not open
	pins int           // guarded by dirCache.mu
	elem *list.Element // guarded by dirCache.mu; nil for places, which stay open
}

// dirCache keeps some directories open. It is safe for concurrent use.
type dirCache struct {
	mu     sync.Mutex
	open   *list.List // of *directory, last used first; guarded by mu
	opened func(fd int, id inode)
}

func newDirCache(opened func(fd int, id inode)) *dirCache {
	return &dirCache{open: list.New(), opened: opened}
}

var errSwapped = errors.New("something else took its place while the restore was running")

// pin opens d if it is not open and keeps it so until unpin.
func (c *dirCache) pin(d *directory) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.broken != nil {
		return -1, d.broken
	}
	var chain []*directory
	for x := d; x.fd < 0; x = x.parent {
		if x.parent == nil {
			return -1, fmt.Errorf("open %s: %w", x.name, unix.EBADF)
		}
		chain = append(chain, x)
	}
	for i := len(chain) - 1; i >= 0; i-- {
		if err := c.reopen(chain[i]); err != nil {
			return -1, err
		}
	}
	d.pins++
	if d.elem != nil {
		c.open.MoveToFront(d.elem)
	}
	return d.fd, nil
}

// reopen opens x in its open parent. The inode must be the one that was met first: what somebody put there since is not ours.
func (c *dirCache) reopen(x *directory) error {
	x.parent.pins++
	defer func() { x.parent.pins-- }()
	fd, err := openDirAt(x.parent.fd, x.name)
	if err != nil {
		return err
	}
	st, err := fstat(fd)
	if err == nil && inodeOf(&st) != x.id {
		err = errSwapped
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	c.insert(x, fd)
	return nil
}

// adopt takes over the descriptor of a directory that was just opened; it is pinned once.
func (c *dirCache) adopt(d *directory, fd int) {
	c.opened(fd, d.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	d.pins++
	c.insert(d, fd)
}

func (c *dirCache) insert(d *directory, fd int) {
	d.fd = fd
	if d.parent == nil {
		return
	}
	d.elem = c.open.PushFront(d)
	for e := c.open.Back(); e != nil && c.open.Len() > maxDirs; {
		x, previous := e.Value.(*directory), e.Prev() //nolint:errcheck,forcetypeassert // the list holds nothing else
		if x.pins == 0 && x != d {
			c.closeLocked(x)
		}
		e = previous
	}
}

func (c *dirCache) unpin(d *directory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.pins--
}

// drop closes d, which is finished. Links to what is in it may still be made: all that this needs stays.
func (c *dirCache) drop(d *directory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.parent != nil && d.fd >= 0 && d.pins == 0 {
		c.closeLocked(d)
	}
	if d.parent != nil {
		d.entry, d.listing = nil, listing{}
	}
}

func (c *dirCache) closeLocked(d *directory) {
	_ = unix.Close(d.fd)
	d.fd = -1
	if d.elem != nil {
		c.open.Remove(d.elem)
		d.elem = nil
	}
}

// closeAll closes everything but places.
func (c *dirCache) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.open.Front(); e != nil; e = c.open.Front() {
		c.closeLocked(e.Value.(*directory)) //nolint:errcheck,forcetypeassert // the list holds nothing else
	}
}

// close lets go of everything. Temporary files of what was under way are gone already.
func (r *run) close() {
	r.dirs.closeAll()
	r.groups.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fd := range r.syncs {
		_ = unix.Close(fd)
	}
	for _, a := range r.anchors {
		if a.fd >= 0 {
			_ = unix.Close(a.fd)
			a.fd = -1
		}
	}
}

package files

import (
	"container/list"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// dir is a directory by which others are reached. It is opened when it is needed, by its name in its parent.
type dir struct {
	parent *dir   // nil: name is an absolute path
	name   string //

	// Guarded by dirs.mu.
	device, inode uint64 // what was opened first; 0, 0 before
	fd            int    // valid if open
	open          bool
	pins          int           // users of fd
	element       *list.Element // in dirs.idle while open without users
}

// dirs keeps a bounded number of directories open. A tree may be deeper than a process may have open files, and entries
// wait for being read after the walk has left their directory.
type dirs struct {
	limit int // directories open, with or without users; users alone may exceed it

	mu    sync.Mutex
	count int
	idle  *list.List // of *dir, the longest idle first
}

func newDirs(limit int) *dirs { return &dirs{limit: limit, idle: list.New()} }

var errMoved = errors.New("the directory was moved or replaced meanwhile")

// acquire returns a descriptor by which what is in d can be reached (perhaps only for that: it may be O_PATH). release
// gives it back.
func (c *dirs) acquire(d *dir) (int, error) {
	// Find the nearest directory that is open and hold it, then open step by step from there.
	c.mu.Lock()
	var missing []*dir
	at := d
	for ; at != nil && !at.open; at = at.parent {
		missing = append(missing, at)
	}
	if at != nil {
		c.pin(at)
	}
	c.mu.Unlock()
	if len(missing) == 0 {
		return d.fd, nil
	}
	fd, err := c.openChain(at, missing)
	if at != nil {
		c.release(at)
	}
	if err != nil {
		return -1, err
	}
	return c.adopt(d, fd)
}

// openChain opens the directories of chain, the last one first; at is open or, if nil, the last one is absolute.
func (c *dirs) openChain(at *dir, chain []*dir) (int, error) {
	fd := -1
	if at != nil {
		fd = at.fd
	}
	for i := len(chain) - 1; i >= 0; i-- {
		d := chain[i]
		var below int
		var err error
		if d.parent == nil {
			below, err = openAbsolute(d.name)
		} else {
			below, err = unix.Openat(fd, d.name, pathFlags|unix.O_NOFOLLOW, 0)
		}
		if i < len(chain)-1 {
			_ = unix.Close(fd) // never at's own
		}
		if err != nil {
			return -1, err
		}
		fd = below
	}
	return fd, nil
}

// openAbsolute opens an absolute path of any length. Links in it are followed: the user named them.
func openAbsolute(path string) (int, error) {
	fd, err := unix.Open("/", pathFlags, 0)
	for rest := strings.TrimLeft(path, "/"); rest != "" && err == nil; {
		part := rest
		if len(part) >= unix.PathMax {
			cut := strings.LastIndexByte(part[:unix.PathMax-1], '/')
			if cut < 0 {
				cut = unix.PathMax - 1
			}
			part = part[:cut]
		}
		rest = strings.TrimLeft(rest[len(part):], "/")
		var below int
		below, err = unix.Openat(fd, part, pathFlags, 0)
		_ = unix.Close(fd)
		fd = below
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// adopt makes fd the descriptor of d, unless d got one meanwhile, and acquires it. It takes fd over in any case.
func (c *dirs) adopt(d *dir, fd int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("fstat: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	device, inode := uint64(st.Dev), st.Ino //nolint:unconvert // not a uint64 everywhere
	if d.inode == 0 && d.device == 0 {
		d.device, d.inode = device, inode
	}
	if d.device != device || d.inode != inode {
		_ = unix.Close(fd)
		return -1, errMoved
	}
	if d.open {
		_ = unix.Close(fd)
	} else {
		d.fd, d.open = fd, true
		c.count++
	}
	c.pin(d)
	for c.count > c.limit && c.idle.Len() > 0 {
		c.shut(c.idle.Front().Value.(*dir))
	}
	return d.fd, nil
}

// pin needs c.mu.
func (c *dirs) pin(d *dir) {
	d.pins++
	if d.element != nil {
		c.idle.Remove(d.element)
		d.element = nil
	}
}

// shut needs c.mu.
func (c *dirs) shut(d *dir) {
	c.idle.Remove(d.element)
	_ = unix.Close(d.fd)
	d.element, d.open = nil, false
	c.count--
}

func (c *dirs) release(d *dir) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.pins--
	if d.pins > 0 {
		return
	}
	d.element = c.idle.PushBack(d)
	if c.count > c.limit {
		c.shut(d)
	}
}

// close closes all directories. Nobody may use one any more.
func (c *dirs) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.idle.Len() > 0 {
		c.shut(c.idle.Front().Value.(*dir))
	}
}

package files

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// blockSize is how many names of a directory are stat'ed in one go. Of a larger directory only the names are held,
	// and what two blocks of them need.
	blockSize = 1024
	// heldNames is how many names of a directory are held in memory; more are on disk (see [nameRuns]).
	heldNames = 64 << 10
)

// node is a directory on the walk.
type node struct {
	dir        *dir
	path       string
	rootDevice uint64
	inRunning  bool // in a running PostgreSQL data directory
	passing    bool // only on the way to a root below
	isRoot     bool

	started bool          // the walker's: somebody lists it
	done    chan struct{} // closed when it is listed; what follows is valid then

	err     error // why there is nothing, or not all
	count   int   // names that there are
	arena   []byte
	names   []nameRef // in order; of a very large directory the last that were read
	runs    *nameRuns // the names of a very large directory; else nil
	first   *block
	seen    landmarks
	cache   bool // has a valid CACHEDIR.TAG
	running bool // PostgreSQL runs on it, or on a directory above
	begins  bool // … on this one
	sqlite  map[string]bool
}

// nameRef is a name in a node's arena: 8 bytes instead of a string's 16 and its own allocation.
type nameRef struct {
	offset uint32
	length uint16
	kind   uint8 // as in a directory (DT_…)
	decision
}

// block is a run of a directory's names with what lstat tells.
type block struct {
	from, to int  // of node.names, or of those that come from node.runs
	last     bool // there are no more names
	children []child
	subdirs  []int // indexes of children that are to be entered
	started  bool  // the walker's
	done     chan struct{}
	err      error // names may be missing
}

type child struct {
	name     string
	meta     meta
	err      error
	below    *node // to be entered
	live     bool  // belongs to a database that may be writing
	database string
}

func (n *node) name(r nameRef) []byte { return r.of(n.arena) }

func (r nameRef) of(arena []byte) []byte { return arena[r.offset : r.offset+uint32(r.length)] }

// find returns the index of a name among those that are held, -1 if it is not there. Names must be in order.
func (n *node) find(name string) int {
	i, ok := slices.BinarySearchFunc(n.names, name, func(r nameRef, name string) int {
		return strings.Compare(string(n.name(r)), name)
	})
	if !ok {
		return -1
	}
	return i
}

func joinPath(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// lister reads directories. It is used by several goroutines.
type lister struct {
	sel  *selection
	dirs *dirs
	sys  *system
	temp string // directory for nameRuns
	held int    // names of a directory in memory; 0: all
}

// list reads the directory's names and stats the first block of them.
func (l *lister) list(n *node) {
	defer close(n.done)
	fd, err := l.open(n)
	if err != nil {
		n.err = err
		return
	}
	defer l.dirs.release(n.dir)
	if l.sel.oneFileSystem && !n.isRoot && n.dir.device != n.rootDevice {
		return // mounted after it was looked at, or because of that
	}
	n.err = l.readNames(n, fd)
	n.sort()
	seen := l.survey(n, fd)
	n.running = n.inRunning
	if !n.inRunning && seen.postgres() {
		// postmaster.pid is there exactly while a server runs, or after it crashed: then files don't fit together either.
		_, err := lstat(fd, "global/pg_control")
		n.begins = err == nil
		n.running = n.begins
	}
	n.cache = l.sel.cacheDirTag && !n.isRoot && seen.cacheTag && l.hasHeader(fd, cacheTag, cacheSignature)
	if n.runs == nil {
		n.names = l.filter(n, n.arena, n.names, fd)
		n.count = len(n.names)
	} else {
		n.runs.merge(n)
	}
	n.first = n.block(0)
	l.stat(n, n.first, fd)
	n.err = errors.Join(n.err, n.first.err)
}

// sort orders the names that are held. A directory that is changed meanwhile may give a name twice.
func (n *node) sort() {
	slices.SortFunc(n.names, func(a, b nameRef) int { return bytes.Compare(n.name(a), n.name(b)) })
	n.names = slices.CompactFunc(n.names, func(a, b nameRef) bool { return bytes.Equal(n.name(a), n.name(b)) })
}

// open opens the directory for reading and acquires it.
func (l *lister) open(n *node) (int, error) {
	parentFD, err := l.dirs.acquire(n.dir.parent)
	if err != nil {
		return -1, err
	}
	fd, err := l.sys.openQuietly(parentFD, n.dir.name, unix.O_DIRECTORY)
	l.dirs.release(n.dir.parent)
	if err != nil {
		return -1, err
	}
	return l.dirs.adopt(n.dir, fd)
}

const direntHeader = 19 // inode, offset, record length, type; the name follows

// readNames reads all names with their types. With an error it has read some.
func (l *lister) readNames(n *node, fd int) error {
	buf := make([]byte, 32<<10)
	for {
		size, err := retryInterrupted(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil || size == 0 {
			return err
		}
		for rest := buf[:size]; len(rest) >= direntHeader; {
			length := int(binary.NativeEndian.Uint16(rest[16:]))
			if length < direntHeader || length > len(rest) {
				return errors.New("the kernel returned a malformed directory")
			}
			name := rest[direntHeader:length]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." && s != "" {
				if len(n.arena)+len(name) > 1<<32-1 {
					return errors.New("the directory has more than 4 GiB of names")
				}
				n.names = append(n.names, nameRef{offset: uint32(len(n.arena)), length: uint16(len(name)), kind: rest[18], decision: take})
				n.arena = append(n.arena, name...)
				n.count++
				if l.held > 0 && len(n.names) >= l.held {
					l.spill(n, fd)
				}
			}
			rest = rest[length:]
		}
	}
}

// filter removes the names that are left out, before anything is asked about them: an excluded mount point may hang.
func (l *lister) filter(n *node, arena []byte, names []nameRef, fd int) []nameRef {
	if l.sel.selectsAll() && !n.cache && !n.passing {
		return names
	}
	prefix := joinPath(n.path, "")
	kept := names[:0]
	for _, r := range names {
		name := string(r.of(arena))
		isDir := r.kind == unix.DT_DIR
		if r.kind == unix.DT_UNKNOWN {
			m, err := lstat(fd, name)
			isDir = err == nil && m.fileType() == snapshot.Directory
		}
		r.decision = l.sel.decide(prefix+name, isDir, n.passing || n.cache && name != cacheTag)
		if r.decision != leaveOut {
			kept = append(kept, r)
		}
	}
	return kept
}

// block returns the block that begins at the given name, which follows the last one that was stat'ed.
func (n *node) block(from int) *block {
	b := &block{from: from, done: make(chan struct{})}
	if n.runs == nil {
		b.to = min(from+blockSize, len(n.names))
		b.last = b.to == len(n.names)
	}
	return b
}

// namesOf returns the names of a block that are not left out.
func (l *lister) namesOf(n *node, b *block, fd int) (arena []byte, names []nameRef) {
	if n.runs == nil {
		return n.arena, n.names[b.from:b.to]
	}
	arena, names, b.err = n.runs.next(blockSize)
	b.to, b.last = b.from+len(names), b.err != nil || len(names) < blockSize
	if b.last {
		n.runs.close()
	}
	return arena, l.filter(n, arena, names, fd)
}

// statLater stats a block other than the first.
func (l *lister) statLater(n *node, b *block) {
	fd, err := l.dirs.acquire(n.dir)
	if err == nil {
		defer l.dirs.release(n.dir)
	}
	if err != nil {
		// Each of the names is a problem of its own: nothing may be missing without a word.
		defer close(b.done)
		arena, names := l.namesOf(n, b, -1)
		for _, r := range names {
			b.children = append(b.children, child{name: string(r.of(arena)), err: err})
		}
		return
	}
	l.stat(n, b, fd)
}

func (l *lister) stat(n *node, b *block, fd int) {
	defer close(b.done)
	arena, names := l.namesOf(n, b, fd)
	b.children = make([]child, 0, len(names))
	for _, r := range names {
		c := child{name: string(r.of(arena))}
		c.meta, c.err = lstat(fd, c.name)
		if c.err == nil {
			c.live, c.database = n.databaseOf(c.name)
			if c.meta.fileType() == snapshot.Directory {
				if !n.running && isTablespace(c.name) {
					c.database = "PostgreSQL tablespace"
				}
				c.below = l.below(n, &c, r.decision)
			}
		}
		if c.below != nil {
			b.subdirs = append(b.subdirs, len(b.children))
		}
		b.children = append(b.children, c)
	}
}

// below returns the node of a directory if it is to be entered.
func (l *lister) below(n *node, c *child, d decision) *node {
	path := joinPath(n.path, c.name)
	below := &node{
		dir: &dir{parent: n.dir, name: c.name}, path: path, rootDevice: n.rootDevice,
		inRunning: n.running || c.database != "",
		passing:   d == passThrough, isRoot: d == isRoot, done: make(chan struct{}),
	}
	switch {
	case len(path) > snapshot.MaxPath:
		return nil // the entry itself is a problem
	case below.isRoot:
		below.rootDevice = c.meta.device
	case l.sel.oneFileSystem && c.meta.device != n.rootDevice:
		below.passing = true
		below.rootDevice = c.meta.device
		if !l.sel.leadsToRoot(path) {
			return nil
		}
	}
	return below
}

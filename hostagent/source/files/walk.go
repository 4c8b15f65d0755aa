package files

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// aheadDirs is how many directories are listed before the walk reaches them.
	aheadDirs = 24
	// aheadNames is how many names count as much as a directory there.
	aheadNames = 4096
	// openDirs is how many directories stay open.
	openDirs = 160
)

// found is one thing that the walk met.
type found struct {
	path     string
	name     string // in dir
	dir      *dir   // the directory that holds it
	meta     meta
	err      error  // lstat failed: there is nothing but the path
	also     error  // it is there, but something is wrong with it
	listed   bool   // also is about listing it
	live     bool   // belongs to a database that may be writing
	database string // the database that has its main file here
}

// walker walks all roots in the order of trees. Directories are listed ahead by several goroutines.
type walker struct {
	lister
	tasks chan func()
	stack []frame
}

type frame struct {
	node   *node
	block  *block
	next   *block // being prepared
	child  int    // the next of block.children
	subdir int    // the next of block.subdirs
}

func newWalker(sel *selection, sys *system, temp string) *walker {
	return &walker{
		lister: lister{sel: sel, dirs: newDirs(openDirs), sys: sys, temp: temp, held: heldNames},
		tasks:  make(chan func(), 4*aheadDirs),
	}
}

// run calls fn with everything below the roots. It closes the directories at the end only if nobody else uses them: the
// caller of a run that others read from calls dirs.close itself.
func (w *walker) run(ctx context.Context, fn func(*found) error) error {
	var group sync.WaitGroup
	for range max(2, runtime.GOMAXPROCS(0)) {
		group.Go(func() {
			for task := range w.tasks {
				if ctx.Err() == nil {
					task()
				}
			}
		})
	}
	var err error
	for _, path := range w.sel.roots {
		if err = w.root(ctx, path, fn); err != nil {
			break
		}
	}
	close(w.tasks)
	group.Wait()
	return err
}

var errRootIsLink = errors.New("the root is a symbolic link, and only the link is captured; name its target as a root")

func (w *walker) root(ctx context.Context, path string, fn func(*found) error) error {
	f := &found{path: path, name: filepath.Base(path), dir: &dir{name: filepath.Dir(path)}}
	if path == "/" {
		f.name = "."
	}
	if w.sel.owned[path] {
		return nil
	}
	fd, err := w.dirs.acquire(f.dir)
	if err != nil {
		f.err = err
		return fn(f)
	}
	f.meta, f.err = lstat(fd, f.name)
	w.dirs.release(f.dir)
	switch {
	case f.err != nil:
		return fn(f)
	case f.meta.fileType() == snapshot.Symlink:
		f.also = errRootIsLink
		return fn(f)
	case f.meta.fileType() != snapshot.Directory:
		return fn(f)
	}
	n := &node{
		dir: &dir{parent: f.dir, name: f.name}, path: path, rootDevice: f.meta.device, isRoot: true,
		done: make(chan struct{}),
	}
	if err := w.enter(ctx, n, f, fn); err != nil {
		return err
	}
	return w.descend(ctx, fn)
}

// enter visits a directory, for which it must be listed, and puts it on the stack.
func (w *walker) enter(ctx context.Context, n *node, f *found, fn func(*found) error) error {
	if !n.started {
		n.started = true
		w.list(n)
	}
	select {
	case <-n.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.also, f.listed = n.err, n.err != nil
	if n.begins {
		f.live, f.database = true, "PostgreSQL data directory"
	}
	if err := fn(f); err != nil || n.first == nil {
		return err
	}
	w.stack = append(w.stack, frame{node: n, block: n.first})
	w.shareNames()
	w.prepare(&w.stack[len(w.stack)-1])
	w.ahead()
	return nil
}

// descend visits what the stack holds.
func (w *walker) descend(ctx context.Context, fn func(*found) error) error {
	for len(w.stack) > 0 {
		top := &w.stack[len(w.stack)-1]
		if top.child == len(top.block.children) {
			if err := w.advance(ctx, top, fn); err != nil {
				return err
			}
			continue
		}
		c := &top.block.children[top.child]
		top.child++
		f := &found{
			path: joinPath(top.node.path, c.name), name: c.name, dir: top.node.dir,
			meta: c.meta, err: c.err, live: c.live, database: c.database,
		}
		if c.below == nil {
			if err := fn(f); err != nil {
				return err
			}
			continue
		}
		top.subdir++
		below := c.below
		c.below = nil
		if err := w.enter(ctx, below, f, fn); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// advance goes on to the next block of a directory, or leaves it.
func (w *walker) advance(ctx context.Context, f *frame, fn func(*found) error) error {
	if f.next == nil {
		w.stack[len(w.stack)-1] = frame{}
		w.stack = w.stack[:len(w.stack)-1]
		return nil
	}
	if !f.next.started {
		f.next.started = true
		w.statLater(f.node, f.next)
	}
	select {
	case <-f.next.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.block, f.next, f.child, f.subdir = f.next, nil, 0, 0
	w.prepare(f)
	if err := f.block.err; err != nil {
		return fn(&found{path: f.node.path, name: f.node.dir.name, dir: f.node.dir.parent, err: err})
	}
	return nil
}

// prepare has the block after the current one stat'ed.
func (w *walker) prepare(f *frame) {
	if f.block.last {
		return
	}
	f.next = f.node.block(f.block.to)
	n, b := f.node, f.next
	b.started = w.try(func() { w.statLater(n, b) })
}

// try hands a task to the listers unless they have enough to do.
func (w *walker) try(task func()) bool {
	select {
	case w.tasks <- task:
		return true
	default:
		return false
	}
}

// ahead has the directories listed that the walk will reach next.
func (w *walker) ahead() {
	budget := aheadDirs
	for i := len(w.stack) - 1; i >= 0 && budget > 0; i-- {
		budget = w.aheadBelow(w.stack[i].block, w.stack[i].subdir, budget)
	}
}

// aheadBelow does that for one block from a subdirectory on and returns how many more may be listed.
func (w *walker) aheadBelow(b *block, subdir, budget int) int {
	for _, i := range b.subdirs[subdir:] {
		if budget <= 0 {
			return 0
		}
		n := b.children[i].below
		budget--
		if !n.started {
			if n.started = w.try(func() { w.list(n) }); !n.started {
				return 0
			}
			continue
		}
		select {
		case <-n.done:
			budget -= n.count / aheadNames
			if n.first != nil && budget > 0 {
				budget = w.aheadBelow(n.first, 0, budget)
			}
		default:
		}
	}
	return budget
}

// shareNames keeps the paths of a very deep stack from growing with the square of its depth: they become parts of the
// deepest one. Directories of several blocks are left alone, as a lister may be reading their path.
func (w *walker) shareNames() {
	if len(w.stack)%64 != 0 {
		return
	}
	path := w.stack[len(w.stack)-1].node.path
	for i := range w.stack {
		if n := w.stack[i].node; n.count <= blockSize {
			n.path = path[:len(n.path)]
		}
	}
}

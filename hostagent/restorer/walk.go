package restorer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var (
	errOrphan   = errors.New("the snapshot does not have its directory")
	errInTheWay = errors.New("a directory that is not empty is in the way")
)

// selection restores one selection: it walks its entries in tree order.
func (r *run) selection(s selection) error {
	parent, name, err := r.enter(s)
	if err != nil {
		return err
	}
	for e, err := range r.snap.Entries(r.ctx, s.path) {
		if err != nil {
			return fmt.Errorf("restore %q: %w", s.path, err)
		}
		if r.ctx.Err() != nil || !snapshot.Within(s.path, e.Path) {
			break
		}
		switch {
		case e.Path != s.path:
			err = r.entry(e)
		case name == "":
			r.placeItself(e, parent, s.anchor.target)
		default:
			err = r.leafOrDirectory(e, parent, name)
		}
		if err != nil {
			return err
		}
	}
	for len(r.stack) > 0 {
		r.pop()
	}
	return nil
}

// enter opens the directories between the place and the selection and returns the one that will hold it.
// If the selected directory is the place itself, name is empty.
func (r *run) enter(s selection) (parent *directory, name string, err error) {
	d, err := r.anchor(s.anchor)
	if err != nil {
		return nil, "", err
	}
	if s.rel == "" {
		return d, "", nil
	}
	d.pending.Add(1)
	r.stack = append(r.stack, d)
	source := s.source
	components := strings.Split(s.rel, "/")
	for _, component := range components[:len(components)-1] {
		source = strings.TrimSuffix(source, "/") + "/" + component
		if d, err = r.between(d, component, source); err != nil {
			return nil, "", err
		}
		r.stack = append(r.stack, d)
	}
	return d, components[len(components)-1], nil
}

// between opens a directory above the selection. One that is missing is made as the snapshot has it; a symlink or a file
// there is an error, as replacing it would take away more than was selected.
func (r *run) between(parent *directory, name, source string) (*directory, error) {
	e, err := r.snap.Lookup(r.ctx, source)
	if err != nil && !errors.Is(err, repository.ErrNoPath) {
		return nil, fmt.Errorf("look up %q: %w", source, err)
	}
	existing, err := r.existing(parent, name)
	if err == nil && existing != nil && typeOf(existing) != unix.S_IFDIR {
		err = ErrNotDirectory
	}
	if existing != nil || e != nil && e.Type != snapshot.Directory {
		e = nil // it is not selected: its metadata stays
	}
	if err == nil {
		var d *directory
		if d, err = r.openDirectory(parent, name, source, existing); err == nil {
			d.entry, d.private = e, false
			r.early(d)
			return d, nil
		}
	}
	return nil, r.fatal("restore into", source, err)
}

// early gives a directory above the selection its metadata as soon as it is made, not only at the end: if this run dies,
// the next one finds a directory that is not selected, and leaves it as it is.
func (r *run) early(d *directory) {
	if d.entry == nil || d.virtual || !r.root && d.entry.Mode&0o700 != 0o700 {
		return
	}
	fd, err := r.dirs.pin(d)
	if err != nil {
		return // whoever puts something into it fails, and says so
	}
	defer r.dirs.unpin(d)
	_, _ = r.setMetadata(target{fd: fd, fresh: true, acl: d.acl}, d.entry) // done again at the end, where it is judged
}

// entry restores one entry below the selected one.
func (r *run) entry(e *snapshot.Entry) error {
	up := snapshot.Parent(e.Path)
	for len(r.stack) > 0 && r.top().source != up {
		if !snapshot.Within(r.top().source, e.Path) {
			r.pop()
			continue
		}
		r.problem(e.Path, "restore", errOrphan)
		return nil
	}
	if len(r.stack) == 0 {
		r.problem(e.Path, "restore", errOrphan)
		return nil
	}
	return r.leafOrDirectory(e, r.top(), baseName(e.Path))
}

func (r *run) top() *directory { return r.stack[len(r.stack)-1] }

func (r *run) push(d *directory) { r.stack = append(r.stack, d) }

// pop leaves the innermost directory: the walk has seen all of it.
func (r *run) pop() {
	d := r.top()
	r.stack = r.stack[:len(r.stack)-1]
	d.listing.rest()
	r.done(d)
}

func (r *run) leafOrDirectory(e *snapshot.Entry, parent *directory, name string) error {
	if err := checkName(name); err != nil {
		r.problem(e.Path, "restore", err)
		return r.ended()
	}
	parent.listing.pass(name)
	switch {
	case e.Type == snapshot.Directory:
		r.directory(e, parent, name)
		return r.ended()
	case parent.broken != nil:
		r.problem(e.Path, "restore", parent.broken)
		return r.ended()
	case e.Type == snapshot.Socket:
		r.warn(WarnSocket, e.Path, nil)
		r.progress.Add(1, 0, 0)
		return nil
	}
	return r.leaf(e, parent, name)
}

// placeItself makes the place be the selected directory.
func (r *run) placeItself(e *snapshot.Entry, d *directory, target bool) {
	if d.source == "" {
		d.source = e.Path
	}
	d.listing.whole = true
	d.pending.Add(1)
	r.push(d)
	r.add(func(x *Result) { x.Directories++ })
	if !d.existed {
		r.act("create", e.Path, 0)
		r.add(func(x *Result) { x.Created++ })
	}
	if !target || d.virtual || !shared(d) {
		d.entry = e
	}
}

// directory makes the directory of an entry, or uses the one that is there, and enters it.
func (r *run) directory(e *snapshot.Entry, parent *directory, name string) {
	r.progress.Current(e.Path)
	d, err := r.makeDirectory(e, parent, name)
	if err != nil {
		// What is in it can't be restored either; each thing is counted when it comes.
		d = &directory{parent: parent, name: name, fd: -1, broken: fmt.Errorf("its directory: %w", err)}
		d.pending.Store(1)
		parent.pending.Add(1)
		r.failed(e.Path, "make directory", err)
	}
	d.source = e.Path
	if err == nil {
		d.entry, d.listing.whole = e, !e.Unreadable
		r.add(func(x *Result) { x.Directories++ })
	}
	r.push(d)
}

func (r *run) makeDirectory(e *snapshot.Entry, parent *directory, name string) (*directory, error) {
	if parent.broken != nil {
		return nil, parent.broken
	}
	existing, err := r.existing(parent, name)
	if err != nil {
		return nil, err
	}
	replaced := existing != nil && typeOf(existing) != unix.S_IFDIR
	if replaced {
		if err := r.unlink(parent, name, e.Path); err != nil {
			return nil, err
		}
		existing = nil
	}
	d, err := r.openDirectory(parent, name, e.Path, existing)
	switch {
	case err != nil:
	case replaced:
		r.act("update", e.Path, 0)
		r.add(func(x *Result) { x.Updated++ })
	case existing == nil:
		r.act("create", e.Path, 0)
		r.add(func(x *Result) { x.Created++ })
	}
	return d, err
}

// existing looks at what is in d under name; nil: nothing.
func (r *run) existing(d *directory, name string) (*unix.Stat_t, error) {
	// In a directory that this run made is nothing; but into a place each selection puts something.
	if d.virtual || !d.existed && d.parent != nil {
		return nil, nil
	}
	fd, err := r.dirs.pin(d)
	if err != nil {
		return nil, err
	}
	defer r.dirs.unpin(d)
	st, err := lstatAt(fd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return &st, err
}

func (r *run) unlink(d *directory, name, path string) error {
	if r.options.DryRun {
		return nil
	}
	fd, err := r.dirs.pin(d)
	if err != nil {
		return err
	}
	defer r.dirs.unpin(d)
	if err := r.faulty("unlink", path); err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, 0)
}

// openDirectory opens the directory name in parent, which it makes unless existing is one. The result counts as
// unfinished in parent.
func (r *run) openDirectory(parent *directory, name, source string, existing *unix.Stat_t) (*directory, error) {
	d := &directory{parent: parent, name: name, source: source, fd: -1, existed: existing != nil, acl: parent.acl, marked: parent.marked}
	d.pending.Store(1)
	if r.options.DryRun && existing == nil {
		d.virtual = true
		d.id.device = parent.id.device
		parent.pending.Add(1)
		return d, nil
	}
	at, err := r.dirs.pin(parent)
	if err != nil {
		return nil, err
	}
	defer r.dirs.unpin(parent)
	if existing == nil {
		if err := r.faulty("mkdir", source); err != nil {
			return nil, err
		}
		if err := unix.Mkdirat(at, name, 0o700); err != nil {
			return nil, err
		}
	}
	fd, before, err := r.openExisting(at, name)
	if err != nil {
		return nil, err
	}
	st, err := fstat(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	d.id = inodeOf(&st)
	d.private = !d.existed && st.Mode&0o777 == 0o700 && int(st.Uid) == r.uid
	if d.existed {
		d.lent = before
		d.acl = inheritsACL(fd)
		if err := r.listDirectory(d, fd); err != nil {
			giveBack(fd, before)
			_ = unix.Close(fd)
			return nil, err
		}
	}
	r.dirs.adopt(d, fd)
	r.dirs.unpin(d)
	parent.pending.Add(1)
	return d, nil
}

// openExisting opens a directory that this user may own without being allowed to use it: it is made usable, and before
// is the st_mode that it had, for [giveBack]. Where nothing was changed before is 0.
func (r *run) openExisting(at int, name string) (fd int, before uint32, err error) {
	fd, err = openDirAt(at, name)
	if r.root || r.options.DryRun || err != nil && !errors.Is(err, unix.EACCES) {
		return fd, 0, err
	}
	if err == nil {
		st, serr := fstat(fd)
		if serr == nil && st.Mode&0o700 != 0o700 && unix.Fchmod(fd, st.Mode&0o7777|0o700) == nil {
			before = st.Mode
		}
		return fd, before, nil // if it isn't ours, writing will tell
	}
	opath, perr := openAt(at, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if perr != nil {
		return -1, 0, err
	}
	defer unix.Close(opath) //nolint:errcheck // nothing was written through it
	st, perr := fstat(opath)
	if perr != nil || unix.Chmod(procPath(opath), st.Mode&0o7777|0o700) != nil {
		return -1, 0, err
	}
	if fd, err = openDirAt(at, name); err != nil {
		_ = unix.Chmod(procPath(opath), st.Mode&0o7777)
		return -1, 0, err
	}
	return fd, st.Mode, nil
}

// lateDirs are directories that their owner can't use once they have their mode.
type lateDirs struct{ list []*directory } // guarded by tally.mu

// done says that one thing in d is finished. The last one finishes d, then counts in d's parent.
func (r *run) done(d *directory) {
	for ; d != nil && d.pending.Add(-1) == 0; d = d.parent {
		if e := d.entry; !r.root && e != nil && e.Mode&0o700 != 0o700 && !r.options.DryRun && d.parent != nil {
			r.mu.Lock()
			r.late.list = append(r.late.list, d)
			r.mu.Unlock()
			return // a hard link to something in it may still be made; finishLate goes on
		}
		r.finishDirectory(d)
	}
}

// finishLate finishes directories that an ordinary user would shut behind himself, innermost first.
func (r *run) finishLate() error {
	for {
		r.mu.Lock()
		list := r.late.list
		r.late.list = nil
		r.mu.Unlock()
		if len(list) == 0 {
			return r.ended()
		}
		slices.SortFunc(list, func(a, b *directory) int { return len(b.source) - len(a.source) })
		for _, d := range list {
			r.finishDirectory(d)
			r.done(d.parent)
		}
	}
}

// finishDirectory removes what must go from d and gives it its metadata. Everything in it is in place.
func (r *run) finishDirectory(d *directory) {
	defer r.dirs.drop(d)
	if d.broken != nil || d.virtual || r.ctx.Err() != nil {
		return
	}
	// A file system that is mounted here on a directory which the backup saw empty, or did not enter, is not what was
	// captured: /proc after a restore of "/", for one.
	if d.parent != nil && d.existed && !d.listing.passed && d.id.device != d.parent.id.device {
		r.warn(WarnKept, d.source, unix.EBUSY)
		return
	}
	fd, err := r.dirs.pin(d)
	if err != nil {
		r.failed(d.source, "open directory", err)
		return
	}
	defer r.dirs.unpin(d)
	r.cleanDirectory(d, fd)
	giveBack(fd, d.lent)
	if d.entry == nil {
		return
	}
	if r.staysClosed(d, fd) {
		r.problem(d.source, "set metadata", errClosed)
		return
	}
	changed, err := r.setMetadata(target{fd: fd, fresh: !d.existed, acl: d.acl}, d.entry)
	switch {
	case err != nil:
		r.failed(d.source, "set metadata", err)
	case d.existed && changed:
		r.act("metadata", d.source, 0)
		r.add(func(x *Result) { x.Metadata++ })
	case d.existed:
		r.add(func(x *Result) { x.Unchanged++ })
	}
}

// cleanDirectory removes temporary files of an earlier run and, with Delete, what the snapshot does not have.
func (r *run) cleanDirectory(d *directory, fd int) {
	if !r.options.DryRun {
		for _, name := range d.listing.temps {
			_ = unix.Unlinkat(fd, name, 0) // the next run tries again
		}
	}
	if !r.options.Delete || !d.listing.whole {
		return
	}
	for _, name := range d.listing.extras {
		r.remove(fd, name, strings.TrimSuffix(d.source, "/")+"/"+name)
	}
}

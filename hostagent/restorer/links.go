package restorer

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// groups are the files that had several names. The first name that comes is restored, the others become links to
// it. As nothing tells which name is the last, where the first one is must be known until the end: [settledGroups]
// knows it. In memory are those groups alone whose first name is under way, or failed.
type groups struct {
	mu      sync.Mutex
	pending map[groupKey]*group // guarded by mu, as all below
	settled *settledGroups      // nil: no file has several names yet
}

// groupKey tells which entries are one file. Names on different file systems of this host can't be.
type groupKey struct {
	device, inode, place uint64
	kind                 snapshot.Type
}

func (j *job) groupKey() groupKey {
	return groupKey{j.entry.Device, j.entry.Inode, j.dir.id.device, j.entry.Type}
}

type group struct {
	settled bool       // guarded by groups.mu, as is all of it
	dir     *directory // of the first name
	name    string
	id      inode // of the restored file; zero in a dry run that would make it
	claims  inode // of the file that was there and may stay; zero: none
	path    string
	err     error
	waiting []*job
}

// errForgotten says that a name may have become a file of its own.
var errForgotten = errors.New("whether it is one file with another name can not be told, as what this restore wrote down of " +
	"such files can not be read again: it was restored by itself")

// join finds the group of a job, which leads it if it is the first.
func (r *run) join(j *job) {
	err := r.faulty("join", j.entry.Path)
	g := &r.groups
	g.mu.Lock()
	if g.settled == nil {
		g.pending, g.settled = map[groupKey]*group{}, newSettledGroups(r.options.Temp)
	}
	key := j.groupKey()
	if j.group = g.pending[key]; j.group == nil {
		j.group = g.settled.find(key)
	}
	if j.leads = j.group == nil; j.leads {
		j.group = &group{dir: j.dir, name: j.name, path: j.entry.Path}
		g.pending[key] = j.group
	}
	forgotten := j.leads && (err != nil || g.settled.damaged())
	g.mu.Unlock()
	if forgotten {
		r.problem(j.entry.Path, "link", errForgotten)
	}
}

// claim reports whether a file that was there may stay as x's; it may not if it is another group's already.
func (g *groups) claim(id inode, x *group) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x.claims == id {
		return true
	}
	if !g.settled.claim(id) {
		return false
	}
	x.claims = id
	return true
}

// settle notes what became of the first name and links those that waited.
func (g *groups) settle(r *run, j *job, id inode, err error) {
	g.mu.Lock()
	x := j.group
	x.settled, x.id, x.err = true, id, err
	waiting := x.waiting
	x.waiting = nil
	if key := j.groupKey(); err == nil && g.settled.add(key, x) {
		delete(g.pending, key)
	}
	g.mu.Unlock()
	for _, w := range waiting {
		r.link(w)
	}
}

func (g *groups) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.settled != nil {
		g.settled.close()
	}
}

// follow links j to the first name of its group, now or when that is there.
func (r *run) follow(j *job) {
	r.groups.mu.Lock()
	if !j.group.settled {
		j.group.waiting = append(j.group.waiting, j)
		r.groups.mu.Unlock()
		return
	}
	r.groups.mu.Unlock()
	r.link(j)
}

// link makes j a further name of its group's file. The group is settled and does not change any more.
func (r *run) link(j *job) {
	x := j.group
	if x.err != nil {
		r.finished(j, inode{}, "link", fmt.Errorf("it is one file with %q: %w", x.path, x.err))
		return
	}
	if j.existing != nil && inodeOf(j.existing) == x.id {
		r.add(func(res *Result) { res.Links++; res.Unchanged++ })
		r.finished(j, x.id, "", nil)
		return
	}
	if err := r.makeLink(j, x); err != nil {
		r.finished(j, inode{}, "link", err)
		return
	}
	r.act("link", j.entry.Path, j.entry.Size)
	r.add(func(res *Result) {
		res.Links++
		if j.existing != nil {
			res.Updated++
		} else {
			res.Created++
		}
	})
	r.finished(j, x.id, "", nil)
}

func (r *run) makeLink(j *job, x *group) error {
	if r.options.DryRun {
		return r.pretendWay(j)
	}
	from, err := r.dirs.pin(x.dir)
	if err != nil {
		return err
	}
	defer r.dirs.unpin(x.dir)
	at, err := r.dirs.pin(j.dir)
	if err != nil {
		return err
	}
	defer r.dirs.unpin(j.dir)
	if err := r.faulty("link", j.entry.Path); err != nil {
		return err
	}
	temp := r.names.next()
	if err := unix.Linkat(from, x.name, at, temp, 0); err != nil {
		return err
	}
	// Somebody may have put another file under the first name.
	st, err := lstatAt(at, temp)
	if err == nil && inodeOf(&st) != x.id {
		err = errSwapped
	}
	if err == nil {
		err = r.rename(j, temp)
	}
	if err != nil {
		_ = unix.Unlinkat(at, temp, 0)
	}
	return err
}

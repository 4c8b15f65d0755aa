package restorer

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// groups are the files that had several names. The first name that comes is restored, the others become links to
// it. Each file of several names costs memory until the end, as nothing tells which name is the last.
type groups struct {
	mu      sync.Mutex
	known   map[groupKey]*group // guarded by mu
	claimed map[inode]*group    // files that were there and serve a group; guarded by mu
}

// groupKey tells which entries are one file. Names on different file systems of this host can't be.
type groupKey struct {
	device, inode, place uint64
	kind                 snapshot.Type
}

type group struct {
	settled bool       // guarded by groups.mu, as is all of it
	dir     *directory // of the first name
	name    string
	id      inode // of the restored file; zero in a dry run that would make it
	path    string
	err     error
	waiting []*job
}

// join finds the group of a job; leads means that it is the first.
func (g *groups) join(j *job) (_ *group, leads bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil {
		g.known, g.claimed = map[groupKey]*group{}, map[inode]*group{}
	}
	key := groupKey{j.entry.Device, j.entry.Inode, j.dir.id.device, j.entry.Type}
	if x, ok := g.known[key]; ok {
		return x, false
	}
	x := &group{dir: j.dir, name: j.name, path: j.entry.Path}
	g.known[key] = x
	return x, true
}

// claim reports whether a file that was there may stay as x's; it may not if it is another group's already.
func (g *groups) claim(id inode, x *group) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if owner, ok := g.claimed[id]; ok {
		return owner == x
	}
	g.claimed[id] = x
	return true
}

// settle notes what became of the first name and links those that waited.
func (g *groups) settle(r *run, j *job, id inode, err error) {
	g.mu.Lock()
	x := j.group
	x.settled, x.id, x.err = true, id, err
	waiting := x.waiting
	x.waiting = nil
	g.mu.Unlock()
	for _, w := range waiting {
		r.link(w)
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

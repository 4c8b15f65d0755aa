package restorer

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockSlack is how far the clock of a file system may be behind this host's, for direct.
const clockSlack = time.Minute

// direct reports whether a job's file is made under its own name rather than beside and renamed, which saves a third of
// what a small file costs. It may be where nothing is to be replaced, nobody else can see it yet, and it can't be taken for
// complete if this run dies:
//
//   - its directory was made by this run, and has mode 0700 until all in it is complete;
//   - the place is marked as unfinished;
//   - the mtime, which is set last, lies before this run. As long as it is not set the file has a later one, so the next run
//     writes it again; see same. After a crash of the machine, when data may be missing behind an mtime, content is compared.
func (r *run) direct(j *job) bool {
	return j.dir.private && j.dir.marked && j.entry.MTime.Sec < r.began.Add(-clockSlack).Unix()
}

// create makes the file of a job in its directory, which at is open on, and returns the name that it has until it is complete.
func (r *run) create(at int, j *job) (fd int, name string, err error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
	if r.direct(j) {
		fd, err = openAt(at, j.name, flags, r.firstMode(j))
		if !errors.Is(err, unix.EEXIST) {
			return fd, j.name, err
		}
		// Somebody put something there, or the file system takes two names of the snapshot for one.
	}
	name = r.names.next()
	fd, err = openAt(at, name, flags, 0o600)
	return fd, name, err
}

// firstMode is the mode with which a file is made in a private directory: its last one where that comes out so and needs
// no more than bits, which saves setting it. Nobody else can open the file before the directory is finished. Elsewhere files
// are made for their owner alone, as their content may be secret and the mode comes last.
func (r *run) firstMode(j *job) uint32 {
	mode := j.entry.Mode
	if mode&0o600 != 0o600 || mode&^0o777 != 0 || mode&r.umask != 0 || j.dir.acl || len(j.entry.Xattrs) > 0 {
		return 0o600
	}
	return mode
}

// takeAway removes the file of a job that was not completed. The caller holds the job's mu; its descriptor is open.
func (r *run) takeAway(j *job) {
	name := j.temp
	j.temp = ""
	at, err := r.dirs.pin(j.dir)
	if err == nil {
		defer r.dirs.unpin(j.dir)
	}
	if name != j.name {
		if err == nil {
			_ = unix.Unlinkat(at, name, 0) // what stays is removed by the next run
		}
		return
	}
	if err == nil {
		err = r.faulty("take away", j.entry.Path)
	}
	if err == nil {
		err = unlinkOwn(at, name, j.fd)
	}
	if err != nil && r.ctx.Err() == nil {
		// It must not stay under its name in a place that is not marked any more.
		r.stop(&PlaceError{Operation: "remove what is incomplete", Place: j.entry.Path, Err: err})
	}
}

// unlinkOwn removes name from the directory at if it is the file that fd is open on: somebody may have put another there.
func unlinkOwn(at int, name string, fd int) error {
	own, err := fstat(fd)
	if err != nil {
		return err
	}
	st, err := lstatAt(at, name)
	if err == nil && inodeOf(&st) == inodeOf(&own) {
		err = unix.Unlinkat(at, name, 0)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// umask reads the umask of this process, which can't be asked for without changing it but here. If it can't be read, all
// bits are in doubt.
func umask() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "Umask:"); ok {
			if mask, err := strconv.ParseUint(strings.TrimSpace(text), 8, 32); err == nil {
				return uint32(mask) //nolint:gosec // 32 bits
			}
		}
	}
	return 0o777
}

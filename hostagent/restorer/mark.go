package restorer

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// noBoot stands for the id of a boot that is not known: such a one equals none.
const noBoot = "unknown"

// markMost is how much of a mark is read. In a longer one something is lost, so that it stays.
const markMost = 4 << 20

// mark is the file that says that a place is unfinished. Its first line is the id of the boot and of the mount in which it
// was made, the others say what was to be restored there.
type mark struct {
	found bool
	read  bool // it is a mark, and could be read
	boot  string
	owed  []work
	size  int64 // of the file
	whole bool  // all of it was read
}

// work is a selection as a mark has it.
type work struct{ path, rel string }

// includes reports whether restoring s restores w to the same place again.
func (s *selection) includes(w work) bool {
	below := strings.Trim(strings.TrimPrefix(w.path, s.path), "/")
	return snapshot.Within(s.path, w.path) && path.Join(s.rel, below) == w.rel
}

func (w work) line() string {
	return strconv.QuoteToASCII(w.path) + strconv.QuoteToASCII(w.rel) + "\n"
}

// readMark reads the mark in an open directory. Where there is something else of this name, or nobody lets us read it, it is
// a mark of an unknown boot.
func readMark(at int, name string) (m mark) {
	fd, err := openAt(at, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) {
		return mark{}
	}
	m = mark{found: true, boot: noBoot, whole: true}
	if err != nil {
		return m
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	st, err := fstat(fd)
	if err != nil || typeOf(&st) != unix.S_IFREG {
		return m
	}
	if st.Size > markMost {
		m.whole = false
		return m
	}
	buf := make([]byte, st.Size)
	if !readAt(fd, buf, 0) {
		return m
	}
	m.parse(string(buf))
	m.read, m.size = true, st.Size
	return m
}

func (m *mark) parse(text string) {
	boot, rest, _ := strings.Cut(text, "\n")
	m.boot = strings.TrimSpace(boot)
	for line := range strings.Lines(rest) {
		first, err := strconv.QuotedPrefix(line)
		second := strings.TrimPrefix(strings.TrimSuffix(line, "\n"), first)
		from, ferr := strconv.Unquote(first)
		rel, rerr := strconv.Unquote(second)
		if err != nil || ferr != nil || rerr != nil {
			continue // cut off when the machine went down: that run had not begun, as a mark is synced before content
		}
		m.owed = append(m.owed, work{from, rel})
	}
}

// doubted reports whether files may have their size and mtime and not their content: the machine went down since the mark
// was made, or the disk failed.
func (m *mark) doubted(boot string) bool { return m.found && (boot == noBoot || m.boot != boot) }

// checkMark sees whether an earlier restore to the place, or to one above it, did not end.
func (r *run) checkMark(d *directory) {
	m := readMark(d.fd, markName)
	r.marks[d] = &m
	if m.found {
		r.result.Resumed = true
	}
	doubted := m.doubted(memoryOf(d.fd, ""))
	for up := d.name; up != "/" && !doubted; {
		up = filepath.Dir(up)
		above := readMark(unix.AT_FDCWD, filepath.Join(up, markName))
		doubted = above.doubted(memoryOf(unix.AT_FDCWD, up)) && above.read // else it is none, or one of somebody who does not trust us
	}
	if doubted {
		r.compare, r.doubted = true, true
	}
}

// mark leaves a note that the place is unfinished. Who may not write here may still write further below, so that
// failing to do so is no error; a full or read-only file system is.
func (r *run) mark(d *directory) error {
	err := r.faulty("mark", d.name)
	defer keepTime(d.fd)()
	if err == nil {
		err = r.writeMark(d)
	}
	if hopeless(err) {
		return r.fatal("restore to", d.name, err)
	}
	d.marked = err == nil
	return nil
}

// writeMark adds to the mark what this run is to restore. The boot of a mark that is there stays: what was written before
// another boot needs comparison until one run ends well. The mark is on disk before content is, which may go to another
// file system that is mounted in the place.
func (r *run) writeMark(d *directory) error {
	m := r.marks[d]
	text := memoryOf(d.fd, "") + "\n"
	switch {
	case m.found && !m.read:
		return unix.EEXIST
	case m.found && m.size == 0:
		text = "?\n" // of the boot that took the rest away
	case m.found:
		text = "\n" // what is there may end in the middle of a line
	}
	for i := range r.selections {
		s := &r.selections[i]
		if w := (work{s.path, s.rel}); s.anchor.place == d.name && !slices.Contains(m.owed, w) {
			text += w.line()
		}
	}
	flags := unix.O_WRONLY | unix.O_NONBLOCK
	if !m.found {
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	fd, err := openAt(d.fd, markName, flags, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // it is synced
	if err := writeAt(fd, []byte(text), m.size); err != nil {
		return err
	}
	if err := r.faulty("sync mark", d.name); err != nil {
		return err
	}
	if err := again(func() error { return unix.Fsync(fd) }); err != nil {
		return err
	}
	return again(func() error { return unix.Fsync(d.fd) })
}

// doubt makes the marks say that content can't be believed, when the disk failed to take it: what it has no room or no
// sound block for is dropped from memory, and no later sync tells of it.
func (r *run) doubt() {
	for _, d := range r.anchors {
		if fd, err := openAt(d.fd, markName, unix.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			_ = writeAt(fd, []byte("?"), 0) // of the boot id
			_ = unix.Close(fd)
		}
	}
}

// unmark removes the mark of a place in which all is restored. One of an earlier run stays if this one was not to restore
// all that that one was, or left something as it was: that may be incomplete.
func (r *run) unmark(d *directory) {
	m := r.marks[d]
	settled := !m.found || m.whole && !r.unsettled
	for _, w := range m.owed {
		included := false
		for i := range r.selections {
			s := &r.selections[i]
			included = included || s.anchor.place == d.name && s.includes(w)
		}
		settled = settled && included
	}
	if settled {
		_ = unix.Unlinkat(d.fd, markName, 0)
		return
	}
	if fd, err := openAt(d.fd, markName, unix.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
		_ = unix.Ftruncate(fd, m.size) // what this run was to do is done
		_ = unix.Close(fd)
	}
}

// errClosed is the problem of a directory that keeps its mode and owner.
var errClosed = errors.New("an earlier restore may have left something in it incomplete: it stays closed to others")

// spoil notes that something in a directory that was there could not be restored.
func (r *run) spoil(d *directory, err error) {
	if !d.existed || d.parent == nil || errors.Is(err, errUnreadable) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spoilt[d] = true
}

// staysClosed reports whether a directory may be one that an interrupted run made, see [run.direct], with a file in it that
// is incomplete under its name and could not be replaced: nobody else must meet that.
func (r *run) staysClosed(d *directory, fd int) bool {
	r.mu.Lock()
	spoilt := r.spoilt[d]
	r.mu.Unlock()
	if !spoilt || d.entry.Mode&0o077 == 0 && int(d.entry.UID) == r.uid {
		return false
	}
	top := d
	for top.parent != nil {
		top = top.parent
	}
	m, st := r.marks[top], unix.Stat_t{}
	return m != nil && m.found && unix.Fstat(fd, &st) == nil && st.Mode&0o777 == 0o700 && int(st.Uid) == r.uid
}

// memoryOf names the time in which what was written to a directory, if not to disk, is in memory at least: one boot and, as
// far as the kernel tells, one mount. A disk that was pulled out, or a file system that shut down, loses it without a boot.
func memoryOf(at int, path string) string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return noBoot
	}
	boot := strings.TrimSpace(string(id))
	var st unix.Statx_t
	err = unix.Statx(at, path, unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID_UNIQUE, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID_UNIQUE != 0 { // since Linux 6.8; ids of mounts from before are used again
		boot += " " + strconv.FormatUint(st.Mnt_id, 10)
	}
	return boot
}

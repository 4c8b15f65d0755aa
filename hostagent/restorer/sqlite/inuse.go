package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
)

// The bytes that SQLite locks. In the database: PENDING, RESERVED and the SHARED range, https://sqlite.org/src/file/src/os.h;
// in the -shm file, those of the WAL and the "dead man switch", which every connection holds as long as it has the index
// mapped, https://sqlite.org/src/file/src/os_unix.c. SQLite's own lock page keeps the first ones free of content.
const (
	pendingByte = 0x40000000
	pendingLen  = 2 + 510
	shmByte     = 120
	shmLen      = 9
)

// guard holds exclusive locks on a database's files. They are locks of the open file (OFD): unlike POSIX locks they do not
// vanish when somebody else in this process closes the same file.
type guard struct {
	files    []*os.File
	database *os.File // among files; nil: there is no database
}

// lockDatabase takes the locks that keep everybody out of the database at p. An error that is [ErrInUse] names who holds
// one, as far as the kernel tells; what was locked until then stays so in the guard, which is never nil.
func lockDatabase(p place) (*guard, error) {
	g := &guard{}
	var held []string
	for _, l := range []struct {
		side       string
		start, len int64
	}{{"", pendingByte, pendingLen}, {"-shm", shmByte, shmLen}} {
		f, err := os.OpenFile(p.path()+l.side, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return g, err
		}
		g.files = append(g.files, f)
		if l.side == "" {
			g.database = f
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: l.start, Len: l.len}
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			held = append(held, fmt.Sprintf("%s is locked%s", f.Name(), lockedBy(f, l.start, l.len)))
			continue
		}
		if err != nil {
			return g, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
	if len(held) > 0 {
		return g, fmt.Errorf("%w: %s", ErrInUse, strings.Join(held, ", "))
	}
	return g, nil
}

// lockedBy names the process that holds a lock, if the kernel knows one.
func lockedBy(f *os.File, start, length int64) string {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: start, Len: length}
	if unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) != nil || lock.Type == unix.F_UNLCK || lock.Pid <= 0 {
		return ""
	}
	return " by process " + processName(int(lock.Pid))
}

// release gives the locks back. g may be nil.
func (g *guard) release() {
	if g == nil {
		return
	}
	for _, f := range g.files {
		_ = f.Close() // only locks
	}
	g.files, g.database = nil, nil
}

// openers names the processes that have one of the files open, as far as this user may see: an idle connection in a
// rollback mode holds no lock. This program itself reads databases, and never as SQLite does; its processes do not count.
func openers(proc string, files ...inplace.Identity) []string {
	self := programOf("/proc/self")
	list, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if self.same(programOf(filepath.Join(proc, e.Name()))) {
			continue
		}
		if hasOpen(filepath.Join(proc, e.Name(), "fd"), files) {
			out = append(out, processName(pid))
		}
	}
	return out
}

// executable is the file that a process runs.
type executable struct {
	path string      // empty: not known
	info os.FileInfo // nil: not known
}

// programOf looks at a process, by its directory in /proc.
func programOf(dir string) executable {
	exe := filepath.Join(dir, "exe")
	path, _ := os.Readlink(exe) // empty where it is not to be seen
	info, _ := os.Stat(exe)     // nil as well
	return executable{strings.TrimSuffix(path, " (deleted)"), info}
}

// same reports whether two processes run the same program, also where one was started before an upgrade replaced the file.
func (x executable) same(o executable) bool {
	return x.path != "" && x.path == o.path || x.info != nil && o.info != nil && os.SameFile(x.info, o.info)
}

func hasOpen(dir string, files []inplace.Identity) bool {
	list, err := os.ReadDir(dir)
	if err != nil {
		return false // ended, or another user's
	}
	for _, e := range list {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, e.Name()), &st) != nil {
			continue
		}
		if slices.Contains(files, inplace.Identity{Device: uint64(st.Dev), Inode: st.Ino}) { //nolint:unconvert // Dev differs by architecture
			return true
		}
	}
	return false
}

// processName is a process for people: its number and the name of its program.
func processName(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return strconv.Itoa(pid)
	}
	return fmt.Sprintf("%d (%s)", pid, strings.ToValidUTF8(strings.TrimSpace(string(name)), "?"))
}

// patience is how long processes that were told to end may still have the files open.
const patience = 5 * time.Second

// wait is how long to wait for others to be gone: nobody goes who was not told to.
func (o *Options) wait() time.Duration {
	if o.Stop == nil {
		return 0
	}
	return patience
}

// claim locks the database at p and makes sure that nobody has it open. Who was just stopped may take a moment to be gone.
// The guard is never nil, and holds what could be locked.
func claim(p place, wait time.Duration) (*guard, error) {
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		g, err := claimOnce(p)
		if !errors.Is(err, ErrInUse) || time.Since(began) >= wait {
			return g, err
		}
		g.release()
	}
}

func claimOnce(p place) (*guard, error) {
	g, err := lockDatabase(p)
	if err != nil {
		return g, err
	}
	return g, unopened(p.path())
}

// unopened makes sure that no process has the database at path open, or a file beside it.
func unopened(path string) error {
	var files []inplace.Identity
	for _, side := range append([]string{""}, sides()...) {
		id, err := inplace.Identify(path + side)
		if err != nil {
			return err
		}
		if id != (inplace.Identity{}) {
			files = append(files, id)
		}
	}
	if len(files) == 0 {
		return nil
	}
	if who := openers("/proc", files...); len(who) > 0 {
		return inUse(who)
	}
	return nil
}

func inUse(who []string) error { return fmt.Errorf("%w: %s", ErrInUse, strings.Join(who, ", ")) }

package restorer

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// inode names a file on this host.
type inode struct{ device, number uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} } //nolint:unconvert // Dev differs by architecture

func typeOf(st *unix.Stat_t) uint32 { return st.Mode & unix.S_IFMT }

// again repeats a call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func openAt(at int, name string, flags int, mode uint32) (int, error) {
	fd := -1
	err := again(func() (err error) {
		fd, err = unix.Openat(at, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// openDirAt opens the directory name in the directory at, never through a symlink. name is one component.
func openDirAt(at int, name string) (int, error) {
	if err := checkName(name); err != nil {
		return -1, err
	}
	return openAt(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

func lstatAt(at int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func fstat(fd int) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st, err
}

func stat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return st, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st, nil
}

// errName says that a name would lead out of its directory. Trees are checked when they are read; this is the second lock.
var errName = errors.New("not the name of a directory entry")

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%w: %q", errName, name)
	}
	return nil
}

// procPath is a path to the file that fd is open on, whatever that is; it follows no symlink of that name.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// setTimes sets the mtime of what fd, which may be an O_PATH one, is open on.
func setTimes(fd int, opath bool, mtime snapshot.Time) error {
	times := [2]unix.Timespec{
		{Nsec: unix.UTIME_OMIT},
		{Sec: mtime.Sec, Nsec: int64(mtime.Nsec)},
	}
	if opath {
		return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), times[:], 0)
	}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0) //nolint:gosec // utimensat(2) of an open file has no wrapper
	if errno != 0 {
		return errno
	}
	return nil
}

func writeAt(fd int, data []byte, offset int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		data, offset = data[n:], offset+int64(n)
	}
	return nil
}

// readAt fills data from offset; false: the file is shorter or can't be read.
func readAt(fd int, data []byte, offset int64) bool {
	for len(data) > 0 {
		n, err := unix.Pread(fd, data, offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return false
		}
		data, offset = data[n:], offset+int64(n)
	}
	return true
}

// hopeless reports errors that every further file would meet too.
func hopeless(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS) ||
		errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

const (
	tempPrefix = ".holdfast-restore-"
	tempDigits = 24
	markName   = ".holdfast-restore-unfinished"
)

// tempNames makes names for files that are not complete yet.
type tempNames struct {
	run   string // 16 hex digits, so that two runs do not meet
	count atomic.Uint32
}

func newTempNames() *tempNames {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return &tempNames{run: hex.EncodeToString(b[:])}
}

func (t *tempNames) next() string {
	return fmt.Sprintf("%s%s%08x", tempPrefix, t.run, t.count.Add(1))
}

// isTemp reports whether a name was made by tempNames, of whatever run.
func isTemp(name string) bool {
	digits, ok := strings.CutPrefix(name, tempPrefix)
	return ok && len(digits) == tempDigits && strings.Trim(digits, "0123456789abcdef") == ""
}

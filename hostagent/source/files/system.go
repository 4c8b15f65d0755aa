package files

import (
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// system is what is asked of the kernel about content; tests put failures and changes in between.
type system struct {
	// openat opens one name in a directory; it never follows a link at that name.
	openat func(dirFD int, name string, flags int) (int, error)
	// pread reads from an open file.
	pread func(fd int, p []byte, offset int64) (int, error)
	// attributes reads extended attributes.
	attributes func(a inode.Attributes) ([]snapshot.Xattr, error)
}

func realSystem() *system {
	return &system{
		openat: func(dirFD int, name string, flags int) (int, error) {
			return retryInterrupted(func() (int, error) { return unix.Openat(dirFD, name, flags, 0) })
		},
		pread: func(fd int, p []byte, offset int64) (int, error) {
			return retryInterrupted(func() (int, error) { return unix.Pread(fd, p, offset) })
		},
		attributes: inode.Attributes.Read,
	}
}

func retryInterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR { //nolint:errorlint // a bare errno
			return n, err
		}
	}
}

const (
	// readFlags open without side effects: no link is followed, nobody waits for the other end of a FIFO that took the
	// file's place, no terminal becomes ours.
	readFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	pathFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
)

// openQuietly opens for reading, without a mark in the access time where the kernel allows that.
func (s *system) openQuietly(dirFD int, name string, flags int) (int, error) {
	fd, err := s.openat(dirFD, name, readFlags|flags|unix.O_NOATIME)
	if err == unix.EPERM { //nolint:errorlint // a bare errno: the file belongs to somebody else
		fd, err = s.openat(dirFD, name, readFlags|flags)
	}
	return fd, err
}

// readFull reads until p is full or the file ends.
func (s *system) readFull(fd int, p []byte, offset int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := s.pread(fd, p[n:], offset+int64(n))
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

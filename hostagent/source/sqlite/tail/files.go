package tail

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// inode is what the file system says of a file.
type inode struct {
	device, number uint64
	links          uint64
	mode           uint32
	stamp          Stamp
}

func (i inode) same(o inode) bool { return i.device == o.device && i.number == o.number }

func fromStat(st *unix.Stat_t) inode {
	return inode{
		device: uint64(st.Dev), number: st.Ino, links: uint64(st.Nlink), mode: st.Mode, //nolint:unconvert // on other processors
		stamp: Stamp{Size: st.Size, Modified: st.Mtim.Nano(), Changed: st.Ctim.Nano()},
	}
}

// look stats a path; [os.ErrNotExist] if nothing is there.
func look(path string) (inode, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(path, &st) }); err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			err = unix.ENOENT
		}
		return inode{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fromStat(&st), nil
}

func held(f *os.File) (inode, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return inode{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return fromStat(&st), nil
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// open opens a regular file for reading, and waits for nothing, whatever it is.
func open(path string) (*os.File, inode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, inode{}, err
	}
	i, err := held(f)
	if err == nil && i.mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, inode{}, err
	}
	return f, i, nil
}

// files are a database's log and its index, held open: what they hold stays readable when the application removes them.
type files struct {
	wal   *os.File
	walID inode
	index *os.File // nil: there is none
	shmID inode
}

// errMoving tells that the application opens or closes the database just now.
var errMoving = errors.New("files come and go")

// openFiles opens the log and, if there is one, the index. Both were in their places at one moment. It returns
// [os.ErrNotExist] without a log.
func openFiles(walPath, shmPath string) (*files, error) {
	f := &files{}
	var err error
	if f.wal, f.walID, err = open(walPath); err != nil {
		return nil, err
	}
	if err := f.openIndex(shmPath); err != nil {
		f.close()
		return nil, err
	}
	now, err := look(walPath)
	if err == nil && now.same(f.walID) {
		return f, nil
	}
	f.close()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return nil, errMoving
}

// openIndex opens the index that is there now, instead of the one that is held.
func (f *files) openIndex(path string) error {
	if f.index != nil {
		_ = f.index.Close()
		f.index = nil
	}
	index, id, err := open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if now, err := look(path); err != nil || !now.same(id) {
		_ = index.Close()
		return errMoving
	}
	f.index, f.shmID = index, id
	return nil
}

func (f *files) close() {
	if f.wal != nil {
		_ = f.wal.Close()
	}
	if f.index != nil {
		_ = f.index.Close()
	}
}

// indexBytes is the head of a wal-index as it is in the file. Reading instead of mapping it is safe: a mapping of a file that
// is being emptied kills the process.
type indexBytes [sqlite.IndexSize]byte

// commits is the part that changes with each commit, reset and recovery.
func (b *indexBytes) commits() string { return string(b[:96]) }

// are reports whether that part is seen, at the cost of no copy.
func (b *indexBytes) are(seen string) bool { return string(b[:96]) == seen }

func (b *indexBytes) parse() (sqlite.Index, error) { return sqlite.ParseIndex(b[:]) }

func (f *files) readIndex() (indexBytes, error) {
	var b indexBytes
	if _, err := f.index.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return b, err
	}
	return b, nil
}

// connection is whether some process has the index open.
type connection int

const (
	nobody    connection = iota
	opening              // somebody is about to empty it
	connected            // what it says counts
)

// connection asks for the lock that each process with the index open has. It takes none.
func (f *files) connection() (connection, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: sqlite.IndexDMS, Len: 1}
	if err := retry(func() error { return unix.FcntlFlock(f.index.Fd(), unix.F_OFD_GETLK, &lock) }); err != nil {
		return nobody, fmt.Errorf("ask for locks of %s: %w", f.index.Name(), err)
	}
	switch lock.Type {
	case unix.F_UNLCK:
		return nobody, nil
	case unix.F_WRLCK:
		return opening, nil
	}
	return connected, nil
}

// walHeader reads the log's header; ok is false if there is none that counts, and so no frame.
func (f *files) walHeader() (h sqlite.WALHeader, ok bool, err error) {
	var b [sqlite.WALHeaderSize]byte
	n, err := f.wal.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, false, err
	}
	h, err = sqlite.ParseWALHeader(b[:n])
	return h, err == nil, nil
}

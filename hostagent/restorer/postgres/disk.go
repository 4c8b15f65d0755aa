package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk makes durable what is written below some directories. It is opened before anything is written: the kernel tells who
// has a file system open of each error in writing it back, once, and who opens it later of none before. Its methods belong to
// one goroutine, and do nothing where it is nil.
type disk struct {
	systems []*os.File // a directory on each file system
	ahead   chan error // what the sync gave that begin has begun; nil: none is awaited
	syncfs  func(fd int) error
}

// openDisk opens the file systems of directories; what is not there yet will be on that of the directory above it.
func openDisk(dirs []string) (*disk, error) {
	d := &disk{syncfs: unix.Syncfs}
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		f, err := openNearest(dir)
		if err != nil {
			d.close()
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil { //nolint:gosec // a descriptor
			_ = f.Close() // only read
			d.close()
			return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		if device := uint64(st.Dev); seen[device] { //nolint:unconvert // differs by architecture
			_ = f.Close() // as above
		} else {
			seen[device] = true
			d.systems = append(d.systems, f)
		}
	}
	return d, nil
}

// openNearest opens a directory, or the nearest one above it that is there.
func openNearest(dir string) (*os.File, error) {
	for {
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return f, err
		}
		dir = filepath.Dir(dir)
	}
}

// begin has the disk write what there is, beside whatever is done next: the sync at the end has less to wait for.
func (d *disk) begin() {
	if d == nil {
		return
	}
	d.ahead = make(chan error, 1)
	go func() { d.ahead <- d.all() }()
}

// sync makes all durable. Errors: [*os.PathError], also where it was an earlier sync that failed.
func (d *disk) sync() error {
	if d == nil {
		return nil
	}
	return errors.Join(d.wait(), d.all())
}

// wait waits for what begin has begun.
func (d *disk) wait() error {
	if d.ahead == nil {
		return nil
	}
	err := <-d.ahead
	d.ahead = nil
	return err
}

func (d *disk) all() error {
	for _, f := range d.systems {
		if err := d.syncfs(int(f.Fd())); err != nil { //nolint:gosec // a descriptor
			return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
		}
	}
	return nil
}

// close gives it up. It waits for nothing.
func (d *disk) close() {
	if d == nil {
		return
	}
	closing := *d
	go func() {
		_ = closing.wait() // who wants to know has called sync
		for _, f := range closing.systems {
			_ = f.Close() // only read
		}
	}()
}

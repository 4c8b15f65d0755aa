package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	places := []string{filepath.Join(dir, "not", "there", "yet"), dir}
	d, err := openDisk(places)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.systems) != 1 {
		t.Errorf("%d file systems", len(d.systems))
	}
	var calls atomic.Int32
	d.syncfs = func(fd int) error {
		calls.Add(1)
		return unix.Syncfs(fd)
	}
	if err := d.sync(); err != nil || calls.Load() != 1 {
		t.Errorf("%v, %d calls", err, calls.Load())
	}
	d.begin()
	if err := d.sync(); err != nil || calls.Load() != 3 {
		t.Errorf("%v, %d calls", err, calls.Load())
	}
	d.begin()
	d.close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDisk([]string{dir, file}); !errors.Is(err, unix.ENOTDIR) {
		t.Error(err)
	}
	var none *disk
	none.begin()
	if err := none.sync(); err != nil {
		t.Error(err)
	}
	none.close()
}

// TestDiskRemembers has the disk fail while a server recovers, and be well at the end: the kernel does not say it again.
func TestDiskRemembers(t *testing.T) {
	d, err := openDisk([]string{t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	failed := false
	d.syncfs = func(int) error {
		if !failed {
			failed = true
			return unix.EIO
		}
		return nil
	}
	d.begin()
	var at *os.PathError
	if err := d.sync(); !errors.Is(err, unix.EIO) || !errors.As(err, &at) {
		t.Error(err)
	}
}

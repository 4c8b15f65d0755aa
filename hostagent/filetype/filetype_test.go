package filetype_test

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/filetype"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestRoundTrip(t *testing.T) {
	seen := map[uint32]bool{}
	for _, c := range []struct {
		t    snapshot.Type
		bits uint32
	}{
		{snapshot.File, unix.S_IFREG},
		{snapshot.Directory, unix.S_IFDIR},
		{snapshot.Symlink, unix.S_IFLNK},
		{snapshot.FIFO, unix.S_IFIFO},
		{snapshot.Socket, unix.S_IFSOCK},
		{snapshot.CharDevice, unix.S_IFCHR},
		{snapshot.Device, unix.S_IFBLK},
	} {
		if got := filetype.Bits(c.t); got != c.bits || seen[got] {
			t.Errorf("type %d: %o, want %o", c.t, got, c.bits)
		}
		seen[c.bits] = true
		if got := filetype.Of(c.bits | 0o7777); got != c.t {
			t.Errorf("mode %o: type %d, want %d", c.bits, got, c.t)
		}
	}
	if got := filetype.Of(0o644); got != 0 {
		t.Errorf("no type: %d", got)
	}
}

// TestKernel asks the kernel.
func TestKernel(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]snapshot.Type{dir: snapshot.Directory, fifo: snapshot.FIFO, "/dev/null": snapshot.CharDevice} {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || filetype.Of(st.Mode) != want {
			t.Errorf("%s: type %d, want %d, %v", path, filetype.Of(st.Mode), want, err)
		}
	}
}

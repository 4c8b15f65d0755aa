package spool

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// DefaultLeave is how many bytes of the file system stay free for others, such as the application's database; of a
	// small one a twentieth, and of one that has little left half of that.
	DefaultLeave = 1 << 30
	// lookEvery is how much a file grows before the room that is left is looked at again, in bytes.
	lookEvery = 1 << 20
)

// Room sees to it that a file that grows leaves others what they need of the file system. The zero value is for a file
// that is empty.
type Room struct {
	Leave int64 // bytes that stay free; 0: DefaultLeave

	looked int64  // up to which size there was room
	leave  uint64 // bytes that stay free
}

// For fails, with ENOSPC, where f with so many bytes of content would take what others need.
func (r *Room) For(f *os.File, bytes int64) error {
	if bytes <= r.looked {
		return nil
	}
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil || st.Blocks == 0 { //nolint:gosec // a descriptor
		return nil //nolint:nilerr // writing will tell
	}
	block := uint64(max(st.Frsize, 1)) //nolint:gosec // a block size
	free := st.Bavail * block
	if r.looked == 0 {
		r.leave = uint64(r.Leave) //nolint:gosec // not negative
		if r.leave == 0 {
			r.leave = min(DefaultLeave, st.Blocks*block/20, free/2)
		}
	}
	if free < r.leave {
		return fmt.Errorf("%d bytes are left for others: %w", free, unix.ENOSPC)
	}
	r.looked = bytes + lookEvery
	return nil
}

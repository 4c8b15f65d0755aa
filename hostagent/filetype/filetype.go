// Package filetype tells types of entries by the bits that the kernel has for them in st_mode, and the other way round.
package filetype

import (
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Bits are the bits of st_mode (S_IFMT) of a type; 0 for a type that there is not.
func Bits(t snapshot.Type) uint32 {
	switch t {
	case snapshot.File:
		return unix.S_IFREG
	case snapshot.Directory:
		return unix.S_IFDIR
	case snapshot.Symlink:
		return unix.S_IFLNK
	case snapshot.FIFO:
		return unix.S_IFIFO
	case snapshot.Socket:
		return unix.S_IFSOCK
	case snapshot.CharDevice:
		return unix.S_IFCHR
	case snapshot.Device:
		return unix.S_IFBLK
	}
	return 0
}

// Of is the type that st_mode tells; 0 for what no tree can hold.
func Of(mode uint32) snapshot.Type {
	for _, t := range []snapshot.Type{
		snapshot.File, snapshot.Directory, snapshot.Symlink, snapshot.FIFO, snapshot.Socket, snapshot.CharDevice, snapshot.Device,
	} {
		if mode&unix.S_IFMT == Bits(t) {
			return t
		}
	}
	return 0
}

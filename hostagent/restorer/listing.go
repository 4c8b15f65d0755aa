package restorer

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// listing is what was in a directory before this run, so that Delete finds what the snapshot does not have.
type listing struct {
	names  []string // in byte order, as the entries of one directory come
	at     int      // names before it are decided
	extras []string // not in the snapshot
	temps  []string // left behind by an earlier restore
	whole  bool     // the directory is selected: extras may go
	passed bool     // the snapshot has something in it
}

// pass says that the snapshot has name, which is not before those passed earlier.
func (l *listing) pass(name string) {
	l.passed = true
	for l.at < len(l.names) && l.names[l.at] < name {
		l.extras = append(l.extras, l.names[l.at])
		l.at++
	}
	if l.at < len(l.names) && l.names[l.at] == name {
		l.at++
	}
	if len(l.temps) > 0 && isTemp(name) {
		l.temps = slices.DeleteFunc(l.temps, func(x string) bool { return x == name })
	}
}

// rest says that the snapshot has nothing more.
func (l *listing) rest() {
	l.extras = append(l.extras, l.names[l.at:]...)
	l.names, l.at = nil, 0
}

// listDirectory reads what is in an open directory. Names are kept only where Delete needs them.
func (r *run) listDirectory(d *directory, fd int) error {
	err := eachName(fd, func(name string) {
		switch {
		case isTemp(name):
			d.listing.temps = append(d.listing.temps, name)
		case name == markName:
		case r.options.Delete:
			d.listing.names = append(d.listing.names, name)
		}
	})
	slices.Sort(d.listing.names)
	return err
}

// eachName calls fn for each name in the directory that fd is open on; it begins at the start.
func eachName(fd int, fn func(string)) error {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		parseNames(buf[:n], fn)
	}
}

// parseNames reads struct linux_dirent64 (getdents64(2)): inode u64, offset i64, record length u16, type u8, name with a zero byte.
func parseNames(buf []byte, fn func(string)) {
	const header = 19
	for len(buf) > header {
		size := int(binary.NativeEndian.Uint16(buf[16:18]))
		if size <= header || size > len(buf) {
			return
		}
		name := buf[header:size]
		if i := slices.Index(name, 0); i >= 0 {
			name = name[:i]
		}
		if s := string(name); s != "." && s != ".." {
			fn(s)
		}
		buf = buf[size:]
	}
}

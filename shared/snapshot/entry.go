package snapshot

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Flags of an entry as trees write them.
const (
	flagXattrs = 1 << iota
	flagLinked
	flagFileID
	flagNotConsistent
	flagUnreadable
	flagChanged
	flagLacksXattrs
	flagsEnd
)

const (
	maxMode = 0o7777
	maxNsec = 1_000_000_000
)

// Packs calls fn with every range of pack numbers that the entry's content is in, those of map chunks included. Ranges may
// come twice.
func (e *Entry) Packs(fn func(Range)) {
	for i := range e.Extents {
		if !e.Extents[i].Hole {
			fn(Range{e.Extents[i].Ref.Pack, e.Extents[i].Ref.Pack})
		}
	}
	for i := range e.Maps {
		fn(Range{e.Maps[i].Ref.Pack, e.Maps[i].Ref.Pack})
		for _, p := range e.Maps[i].Packs {
			fn(p)
		}
	}
}

// Check reports an entry that a tree does not allow. [AppendEntry] does not check: an entry that fails here would be
// written, and refused by every reader.
func (e *Entry) Check() error {
	if err := CheckPath(e.Path); err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return fmt.Errorf("entry %q: %w", brief(e.Path), err)
	}
	return nil
}

// check does all of Check but the path.
func (e *Entry) check() error {
	if err := e.checkShape(); err != nil {
		return err
	}
	last := ""
	for i := range e.Xattrs {
		if name := e.Xattrs[i].Name; name <= last || hasZero(name) {
			return fmt.Errorf("%w: extended attribute %q after %q", ErrFormat, brief(name), brief(last))
		}
		last = e.Xattrs[i].Name
	}
	length, err := CheckExtents(e.Extents)
	if err != nil {
		return err
	}
	for i := range e.Maps {
		if err := e.Maps[i].check(); err != nil {
			return err
		}
	}
	return e.checkContent(length)
}

// checkShape checks the fields that every entry has, and that only its type has what only its type may have.
func (e *Entry) checkShape() error {
	switch {
	case e.Mode > maxMode:
		return fmt.Errorf("%w: mode %o", ErrFormat, e.Mode)
	case e.MTime.Nsec >= maxNsec || e.CTime.Nsec >= maxNsec:
		return fmt.Errorf("%w: time with %d, %d nanoseconds", ErrFormat, e.MTime.Nsec, e.CTime.Nsec)
	case len(e.Target) > MaxPath || hasZero(e.Target):
		return fmt.Errorf("%w: target of a link of %d bytes, or with a zero byte", ErrFormat, len(e.Target))
	case !e.HasFileID && e.FileID != (FileID{}):
		return fmt.Errorf("%w: file id that is not announced", ErrFormat)
	}
	switch e.Type {
	case File, FIFO, Socket, Symlink, CharDevice, Device:
	case Directory:
		if e.Linked {
			return fmt.Errorf("%w: directory with several names", ErrFormat)
		}
	default:
		return fmt.Errorf("%w: entry of type %q", ErrFormat, byte(e.Type))
	}
	return e.checkForeign()
}

// checkForeign refuses what belongs to other types of entries.
func (e *Entry) checkForeign() error {
	switch {
	case e.Type != Symlink && e.Target != "":
		return fmt.Errorf("%w: target of what is no link", ErrFormat)
	case e.Type != CharDevice && e.Type != Device && (e.Major != 0 || e.Minor != 0):
		return fmt.Errorf("%w: device number of what is no device", ErrFormat)
	case e.Type != File && (e.HasFileID || e.Size != 0 || len(e.Extents)+len(e.Maps) > 0):
		return fmt.Errorf("%w: content of what is no file", ErrFormat)
	}
	return nil
}

// checkContent checks that extents, of length bytes altogether, or maps make up the file.
func (e *Entry) checkContent(length uint64) error {
	switch {
	case e.Size > math.MaxInt64:
		return fmt.Errorf("%w: file of %d bytes", ErrFormat, e.Size)
	case e.Unreadable && (e.Size != 0 || e.HasFileID || len(e.Extents)+len(e.Maps) > 0):
		return fmt.Errorf("%w: content of an unreadable file", ErrFormat)
	case len(e.Maps) > 0 && len(e.Extents) > 0:
		return fmt.Errorf("%w: both extents and maps", ErrFormat)
	case (len(e.Maps) > 0) != (e.Size > MapSpan):
		return fmt.Errorf("%w: %d maps for a file of %d bytes", ErrFormat, len(e.Maps), e.Size)
	case len(e.Maps) > 0:
		return checkMaps(e.Maps, e.Size)
	case length != e.Size:
		return fmt.Errorf("%w: extents of %d bytes for a file of %d", ErrFormat, length, e.Size)
	}
	return nil
}

func (e *Entry) flags() (flags uint64) {
	for _, f := range [...]struct {
		set  bool
		flag uint64
	}{
		{len(e.Xattrs) > 0, flagXattrs},
		{e.Linked, flagLinked},
		{e.HasFileID, flagFileID},
		{e.NotConsistent, flagNotConsistent},
		{e.Unreadable, flagUnreadable},
		{e.Changed, flagChanged},
		{e.LacksXattrs, flagLacksXattrs},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	return flags
}

// AppendEntry appends the entry's record, with its length, as in a tree chunk. prevPath is the path of the entry before it
// in the same chunk, "" for the first. The caller keeps the order, and checks the entry with [Entry.Check].
func AppendEntry(dst []byte, prevPath string, e *Entry) []byte {
	// The length is not known before: leave one byte for it, and move the record if it needs more.
	start := len(dst)
	dst = appendRecord(append(dst, 0), prevPath, e)
	n := len(dst) - start - 1
	if n < 0x80 {
		dst[start] = byte(n)
		return dst
	}
	var length [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(length[:], uint64(n))
	dst = append(dst, length[1:k]...)
	copy(dst[start+k:], dst[start+1:start+1+n])
	copy(dst[start:], length[:k])
	return dst
}

func appendRecord(dst []byte, prevPath string, e *Entry) []byte {
	p := commonPrefix(prevPath, e.Path)
	dst = binary.AppendUvarint(dst, uint64(p))
	dst = appendString(dst, e.Path[p:])
	dst = append(dst, byte(e.Type))
	dst = binary.AppendUvarint(dst, e.flags())
	dst = binary.AppendUvarint(dst, uint64(e.Mode))
	dst = binary.AppendUvarint(dst, uint64(e.UID))
	dst = binary.AppendUvarint(dst, uint64(e.GID))
	dst = appendString(dst, e.User)
	dst = appendString(dst, e.Group)
	for _, t := range [...]Time{e.MTime, e.CTime} {
		dst = binary.AppendVarint(dst, t.Sec)
		dst = binary.AppendUvarint(dst, uint64(t.Nsec))
	}
	dst = binary.AppendUvarint(dst, e.Device)
	dst = binary.AppendUvarint(dst, e.Inode)
	switch e.Type {
	case Symlink:
		dst = appendString(dst, e.Target)
	case CharDevice, Device:
		dst = binary.AppendUvarint(dst, uint64(e.Major))
		dst = binary.AppendUvarint(dst, uint64(e.Minor))
	}
	if len(e.Xattrs) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(e.Xattrs)))
		for i := range e.Xattrs {
			dst = appendString(dst, e.Xattrs[i].Name)
			dst = appendString(dst, e.Xattrs[i].Value)
		}
	}
	if e.Type == File {
		dst = appendContent(dst, e)
	}
	return dst
}

func appendContent(dst []byte, e *Entry) []byte {
	dst = binary.AppendUvarint(dst, e.Size)
	if e.HasFileID {
		dst = append(dst, e.FileID[:]...)
	}
	if len(e.Maps) == 0 {
		return appendExtents(append(dst, 0), e.Extents)
	}
	dst = binary.AppendUvarint(append(dst, 1), uint64(len(e.Maps)))
	for i := range e.Maps {
		dst = appendMapRef(dst, &e.Maps[i])
	}
	return dst
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

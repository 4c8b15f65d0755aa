package snapshot

import "fmt"

// DecodeTree calls fn with every entry of a tree chunk, in order. It refuses what [AppendEntry] would not have written. The
// entry is fresh each time and shares no memory with plain: fn may keep it. An error of fn ends the walk and is returned
// as it is.
func DecodeTree(plain []byte, fn func(*Entry) error) error {
	if len(plain) > MaxChunk {
		return fmt.Errorf("decode tree: %w: %d bytes, over the limit of a chunk", ErrFormat, len(plain))
	}
	d := treeDecoder{r: reader{b: plain}}
	for d.r.left() > 0 {
		e, err := d.next()
		if err != nil {
			return fmt.Errorf("decode tree: after %q: %w", brief(d.prev), err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

type treeDecoder struct {
	r     reader
	prev  string
	path  []byte // the path being built
	names names
}

// names hands out one string for equal user and group names of a chunk.
type names struct {
	last [2]string // the last user name, the last group name
	all  map[string]string
}

func (n *names) get(i int, b []byte) string {
	if string(b) == n.last[i] {
		return n.last[i]
	}
	s, ok := n.all[string(b)]
	if !ok {
		s = string(b)
		if n.all == nil {
			n.all = make(map[string]string)
		}
		n.all[s] = s
	}
	n.last[i] = s
	return s
}

// fileEntry keeps the extent of a small file, nearly always one, in the same allocation as the entry.
type fileEntry struct {
	Entry
	room [1]Extent
}

func (d *treeDecoder) next() (*Entry, error) {
	record := d.r.str()
	if d.r.err != nil {
		return nil, d.r.err
	}
	f := new(fileEntry)
	e := &f.Entry
	r := reader{b: record}
	if err := d.readPath(&r, e); err != nil {
		return nil, err
	}
	flags := d.readAttributes(&r, e)
	switch e.Type {
	case Symlink:
		e.Target = string(r.str())
	case CharDevice, Device:
		e.Major = r.uint32("major device number")
		e.Minor = r.uint32("minor device number")
	}
	if flags&flagXattrs != 0 {
		r.xattrs(e)
	}
	length := uint64(0)
	if e.Type == File {
		length = r.content(f)
	}
	err := r.done()
	if err == nil {
		err = e.checkShape()
	}
	if err == nil {
		err = e.checkContent(length)
	}
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", brief(e.Path), err)
	}
	d.prev = e.Path
	return e, nil
}

// readPath reads the path, which must follow the path of the entry before it and name the longest common prefix.
func (d *treeDecoder) readPath(r *reader, e *Entry) error {
	p, s := r.uvarint(), r.str()
	if r.err != nil {
		return r.err
	}
	if p > uint64(len(d.prev)) || p+uint64(len(s)) > MaxPath {
		return fmt.Errorf("%w: path of %d + %d bytes", ErrFormat, p, len(s))
	}
	if p < uint64(len(d.prev)) && len(s) > 0 && d.prev[p] == s[0] {
		return fmt.Errorf("%w: prefix of %d bytes is not the longest", ErrFormat, p)
	}
	d.path = append(append(d.path[:0], d.prev[:p]...), s...)
	e.Path = string(d.path)
	if d.prev == "" {
		return CheckPath(e.Path)
	}
	if ComparePaths(d.prev[p:], e.Path[p:]) >= 0 {
		return fmt.Errorf("%w: path %q is out of order", ErrFormat, brief(e.Path))
	}
	if p == 0 { // every path has the first '/' in common
		return fmt.Errorf("%w: path %q is not absolute", ErrFormat, brief(e.Path))
	}
	// The components before the prefix's last '/' have been checked with the path before.
	start := int(p)
	for start > 0 && e.Path[start-1] != '/' {
		start--
	}
	return checkComponents(e.Path, start)
}

// readAttributes reads what every entry has and returns the flags.
func (d *treeDecoder) readAttributes(r *reader, e *Entry) (flags uint64) {
	e.Type = Type(r.byte())
	if flags = r.uvarint(); flags >= flagsEnd {
		r.fail("flags %#x", flags)
	}
	e.Linked = flags&flagLinked != 0
	e.HasFileID = flags&flagFileID != 0
	e.NotConsistent = flags&flagNotConsistent != 0
	e.Unreadable = flags&flagUnreadable != 0
	e.Changed = flags&flagChanged != 0
	e.LacksXattrs = flags&flagLacksXattrs != 0
	e.Mode = r.uint32("mode")
	e.UID = r.uint32("user id")
	e.GID = r.uint32("group id")
	e.User = d.names.get(0, r.str())
	e.Group = d.names.get(1, r.str())
	e.MTime = Time{Sec: r.varint(), Nsec: r.uint32("nanoseconds")}
	e.CTime = Time{Sec: r.varint(), Nsec: r.uint32("nanoseconds")}
	e.Device = r.uvarint()
	e.Inode = r.uvarint()
	return flags
}

func (r *reader) xattrs(e *Entry) {
	n := r.count("extended attributes", 3)
	if n == 0 {
		r.fail("no extended attributes where some are announced")
		return
	}
	e.Xattrs = make([]Xattr, 0, min(n, 64))
	last := ""
	for range n {
		x := Xattr{Name: string(r.str())}
		if v := r.str(); len(v) > 0 {
			x.Value = append([]byte(nil), v...)
		}
		if r.err == nil && (x.Name <= last || hasZero(x.Name)) {
			r.fail("extended attribute %q after %q", brief(x.Name), brief(last))
		}
		if r.err != nil {
			return
		}
		e.Xattrs = append(e.Xattrs, x)
		last = x.Name
	}
}

// content reads what only files have and returns how many bytes the extents cover.
func (r *reader) content(f *fileEntry) (length uint64) {
	e := &f.Entry
	e.Size = r.uvarint()
	if e.HasFileID {
		copy(e.FileID[:], r.bytes(uint64(len(e.FileID))))
	}
	switch layout := r.uvarint(); layout {
	case 0:
		e.Extents, length = r.extents(f.room[:0])
	case 1:
		n := r.count("maps", minMapRef)
		if n == 0 {
			r.fail("no maps where some are announced")
			return 0
		}
		e.Maps = make([]MapRef, n)
		for i := range e.Maps {
			if r.mapRef(&e.Maps[i]); r.err != nil {
				return 0
			}
		}
	default:
		r.fail("layout %d", layout)
	}
	return length
}

package snapshot

import "strings"

// sampleRef returns a ref that passes Check, different for each n.
func sampleRef(n int) Ref {
	r := Ref{Pack: uint64(n + 1), Offset: uint32(PackHeaderSize + 1000*n), Sealed: 70_000, Plain: 100_000}
	for i := range r.ID {
		r.ID[i] = byte(n + i)
	}
	return r
}

// sampleEntries are entries of all types and shapes, in order.
func sampleEntries() []*Entry {
	base := Entry{
		Mode: 0o644, UID: 1000, GID: 100, User: "ada", Group: "users", MTime: Time{1_700_000_000, 123_456_789},
		CTime: Time{-5, 999_999_999}, Device: 2049, Inode: 77,
	}
	with := func(path string, typ Type, change func(*Entry)) *Entry {
		e := base
		e.Path, e.Type = path, typ
		if change != nil {
			change(&e)
		}
		return &e
	}
	return []*Entry{
		with("/", Directory, func(e *Entry) { e.Mode, e.UID, e.GID, e.User, e.Group = 0o1777, 0, 0, "root", "root" }),
		with("/a", Directory, nil),
		with("/a/b", File, func(e *Entry) {
			e.Size, e.HasFileID, e.FileID = 5000, true, FileID{1, 2, 3}
			e.Extents = []Extent{{Ref: sampleRef(1), Offset: 95_000, Length: 5000}}
		}),
		with("/a/b2", File, func(e *Entry) {
			e.Size, e.Linked, e.NotConsistent, e.Changed = 300_000, true, true, true
			e.Extents = []Extent{{Ref: sampleRef(1), Length: 100_000}, {Hole: true, Length: 150_000}, {Ref: sampleRef(2), Offset: 3, Length: 50_000}}
		}),
		with("/a/big", File, func(e *Entry) {
			e.Size = 2*MapSpan + 7
			e.Maps = []MapRef{
				{Ref: sampleRef(3), Length: MapSpan, Packs: []Range{{1, 1}, {3, 9}}},
				{Ref: sampleRef(4), Length: MapSpan},
				{Ref: sampleRef(5), Length: 7, Packs: []Range{{200, 200}}},
			}
		}),
		with("/a/empty", File, nil),
		with("/a/secret", File, func(e *Entry) { e.Unreadable = true }),
		with("/a\x01", FIFO, nil),
		with("/a b", Symlink, func(e *Entry) { e.Target = "../\xff\xfe" }),
		with("/dev", Directory, func(e *Entry) {
			e.Xattrs = []Xattr{{"system.posix_acl_access", []byte{2, 0, 0, 0}}, {"user.empty", nil}, {"user.x", []byte("y")}}
		}),
		with("/dev/null", CharDevice, func(e *Entry) { e.Major, e.Minor = 1, 3 }),
		with("/dev/sda", Device, func(e *Entry) { e.Major, e.Minor, e.User, e.Group = 8, 1<<20, "", "disk" }),
		with("/dev/socket", Socket, nil),
		with("/long"+strings.Repeat("/directory", 450), Directory, nil),
	}
}

func encodeTree(entries []*Entry) []byte {
	var b []byte
	prev := ""
	for _, e := range entries {
		b = AppendEntry(b, prev, e)
		prev = e.Path
	}
	return b
}

func decodeTree(b []byte) (entries []*Entry, err error) {
	err = DecodeTree(b, func(e *Entry) error {
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

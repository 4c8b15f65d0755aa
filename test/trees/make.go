package trees

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Options of a random tree. The zero value makes a small tree with everything in it.
type Options struct {
	Entries int   // entries beside one of each type; 0: 150
	MaxFile int64 // largest file in bytes; 0: 300 KiB
	Plain   bool  // only directories, regular files and symlinks with plain names and no xattrs
	Deep    bool  // also a path longer than PATH_MAX
}

// Make fills dir, which must exist, with a random tree. Equal seeds make equal trees, as far as the user who runs the test may.
func Make(t testing.TB, dir string, seed uint64, options Options) {
	t.Helper()
	if options.Entries == 0 {
		options.Entries = 150
	}
	if options.MaxFile == 0 {
		options.MaxFile = 300 << 10
	}
	rng := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // equal seeds must make equal trees
	m := &maker{Options: options, rng: rng, root: os.Geteuid() == 0}
	d, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := m.fill(d, options.Entries, 0); err != nil {
		t.Fatalf("make tree, seed %d: %v", seed, err)
	}
	if err := m.oneOfEach(d); err != nil {
		t.Fatalf("make tree, seed %d: %v", seed, err)
	}
	if err := m.finish(d.self()+"/.", unix.S_IFDIR); err != nil {
		t.Fatal(err)
	}
}

type maker struct {
	Options
	rng   *rand.Rand
	root  bool
	count int
}

// fill makes about n entries in d and below.
func (m *maker) fill(d dir, n, depth int) error {
	var files []string
	for n > 0 {
		if m.rng.IntN(5) == 0 && depth < 8 {
			below := m.rng.IntN(n)
			if err := m.directory(d, m.name(), below, depth); err != nil {
				return err
			}
			n -= below + 1
			continue
		}
		name := m.name()
		kind := m.rng.IntN(12)
		if m.Plain {
			kind %= 9
		}
		var err error
		switch {
		case kind == 11 && len(files) > 0:
			err = os.Link(d.path(files[m.rng.IntN(len(files))]), d.path(name))
		case kind == 10 && m.root:
			err = m.special(d.path(name), []uint32{unix.S_IFCHR, unix.S_IFBLK}[m.rng.IntN(2)])
		case kind >= 9:
			err = m.special(d.path(name), unix.S_IFIFO)
		case kind == 8:
			err = m.symlink(d.path(name))
		default:
			files = append(files, name)
			err = m.file(d.path(name), m.size(), kind == 7)
		}
		if err != nil {
			return err
		}
		n--
	}
	return nil
}

func (m *maker) directory(d dir, name string, n, depth int) error {
	if err := os.Mkdir(d.path(name), 0o700); err != nil {
		return err
	}
	sub, err := d.open(name)
	if err != nil {
		return err
	}
	defer sub.close()
	if err := m.fill(sub, n, depth+1); err != nil {
		return err
	}
	return m.finish(sub.self()+"/.", unix.S_IFDIR)
}

// oneOfEach makes sure that small trees have everything too.
func (m *maker) oneOfEach(d dir) error {
	steps := []func() error{
		func() error { return m.directory(d, "empty", 0, 0) },
		func() error { return m.file(d.path("file"), 5000, false) },
		func() error { return m.file(d.path("no content"), 0, false) },
		func() error { return m.symlink(d.path("symlink")) },
	}
	if !m.Plain {
		steps = append(
			steps,
			func() error { return m.file(d.path("sparse"), 4<<20, true) },
			func() error { return m.hollow(d.path("only a hole"), 1<<20) },
			func() error { return m.file(d.path("linked"), 10000, false) },
			func() error { return os.Link(d.path("linked"), d.path("linked too")) },
			func() error { return m.special(d.path("fifo"), unix.S_IFIFO) },
			func() error { return m.special(d.path("socket"), unix.S_IFSOCK) },
			func() error { return m.file(d.path("\xff\xfe not UTF-8 \n\x01"), 10, false) },
			func() error { return m.file(d.path(strings.Repeat("n", 255)), 10, false) },
		)
		if m.root {
			steps = append(
				steps,
				func() error { return m.special(d.path("character device"), unix.S_IFCHR) },
				func() error { return m.special(d.path("block device"), unix.S_IFBLK) },
			)
		}
	}
	if m.Deep {
		steps = append(steps, func() error { return m.deep(d, 20) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// deep makes nested directories with names of 250 bytes and a file in each.
func (m *maker) deep(d dir, levels int) error {
	name := strings.Repeat("d", 250)
	if err := os.Mkdir(d.path(name), 0o700); err != nil {
		return err
	}
	sub, err := d.open(name)
	if err != nil {
		return err
	}
	defer sub.close()
	if err := m.file(sub.path("file"), 100, false); err != nil {
		return err
	}
	if levels > 1 {
		if err := m.deep(sub, levels-1); err != nil {
			return err
		}
	}
	return m.finish(sub.self()+"/.", unix.S_IFDIR)
}

func (m *maker) name() string {
	m.count++
	odd := []string{" ", "-", ".", "'\"", "*?", "\\", "ü", "\xff", "\n", "~", "$(x)", "!", "0", "A", "\x7f"}
	prefix := ""
	if !m.Plain {
		prefix = odd[m.rng.IntN(len(odd))]
	}
	return fmt.Sprintf("%s%x.%d", prefix, m.rng.IntN(1<<16), m.count)
}

func (m *maker) size() int64 {
	switch m.rng.IntN(10) {
	case 0:
		return 0
	case 1:
		return m.rng.Int64N(m.MaxFile + 1)
	}
	return m.rng.Int64N(min(m.MaxFile, 8000) + 1)
}

func (m *maker) bytes(n int64) []byte {
	data := make([]byte, n+8)
	switch m.rng.IntN(3) {
	case 0: // compresses
		word := fmt.Appendf(nil, "line %d of a file\n", m.rng.IntN(100))
		for i := range data {
			data[i] = word[i%len(word)]
		}
	case 1: // zero bytes that are no hole
		data[0] = 1
	default:
		for i := 0; i+8 <= len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], m.rng.Uint64())
		}
	}
	return data[:n]
}

func (m *maker) file(path string, size int64, sparse bool) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if !sparse {
		if _, err := f.Write(m.bytes(size)); err != nil {
			return err
		}
		return m.finish(path, unix.S_IFREG)
	}
	for at := m.rng.Int64N(3) * 8192; at < size; at += (1 + m.rng.Int64N(20)) * 65536 {
		n := min(size-at, m.rng.Int64N(65536)+1)
		if _, err := f.WriteAt(m.bytes(n), at); err != nil {
			return err
		}
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return m.finish(path, unix.S_IFREG)
}

func (m *maker) hollow(path string, size int64) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	return m.finish(path, unix.S_IFREG)
}

func (m *maker) symlink(path string) error {
	targets := []string{"/nonexistent/absolute", "..", "nowhere", "file", "a/b/\xff", strings.Repeat("/long", 200)}
	if err := os.Symlink(targets[m.rng.IntN(len(targets))], path); err != nil {
		return err
	}
	return m.finish(path, unix.S_IFLNK)
}

func (m *maker) special(path string, kind uint32) error {
	rdev := 0
	if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
		rdev = int(unix.Mkdev(uint32(m.rng.IntN(200)), uint32(m.rng.IntN(70000))))
	}
	if err := unix.Mknod(path, kind|0o600, rdev); err != nil {
		return err
	}
	return m.finish(path, kind)
}

// finish sets random metadata. A path that ends in "/." goes through an open directory.
func (m *maker) finish(path string, kind uint32) error {
	if m.root && m.rng.IntN(2) == 0 {
		if err := os.Lchown(path, m.rng.IntN(70000), m.rng.IntN(70000)); err != nil {
			return err
		}
	}
	if !m.Plain && m.rng.IntN(3) == 0 {
		if err := m.attributes(path, kind); err != nil {
			return err
		}
	}
	modes := []uint32{0o644, 0o600, 0o640, 0o755, 0o400, 0o444, 0o4755, 0o2755, 0o666}
	if kind == unix.S_IFDIR {
		modes = []uint32{0o755, 0o700, 0o750, 0o500, 0o1777, 0o2755}
	}
	if kind != unix.S_IFLNK {
		if err := unix.Chmod(path, modes[m.rng.IntN(len(modes))]); err != nil {
			return err
		}
	}
	seconds := 1_000_000_000 + m.rng.Int64N(700_000_000)
	if m.rng.IntN(20) == 0 {
		seconds = -m.rng.Int64N(1_000_000) // before 1970
	}
	when := unix.Timespec{Sec: seconds, Nsec: m.rng.Int64N(1_000_000_000)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW)
}

func (m *maker) attributes(path string, kind uint32) error {
	type attribute struct {
		name  string
		value []byte
	}
	var all []attribute
	if kind == unix.S_IFREG || kind == unix.S_IFDIR {
		all = append(all, attribute{"user.holdfast", m.bytes(m.rng.Int64N(100))}, attribute{"user.empty", nil}, attribute{"system.posix_acl_access", acl(uint32(m.rng.IntN(60000)))})
	}
	if kind == unix.S_IFDIR {
		all = append(all, attribute{"system.posix_acl_default", acl(uint32(m.rng.IntN(60000)))})
	}
	if m.root {
		all = append(all, attribute{"trusted.holdfast", m.bytes(20)})
	}
	if m.root && kind == unix.S_IFREG {
		all = append(all, attribute{"security.capability", capability()})
	}
	for _, a := range slices.Backward(all) {
		err := unix.Lsetxattr(path, a.name, a.value, 0)
		if err != nil && err != unix.ENOTSUP && err != unix.EPERM {
			return fmt.Errorf("set %s: %w", a.name, err)
		}
	}
	return nil
}

// acl encodes user::rwx, user:UID:r--, group::r--, mask::r--, other::---, as include/uapi/linux/posix_acl_xattr.h has it.
func acl(uid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, ^uint32(0)}, {2, 4, uid}, {4, 4, ^uint32(0)}, {16, 4, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// capability encodes cap_net_bind_service=ep, revision 2 of include/uapi/linux/capability.h.
func capability() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	for _, v := range []uint32{1 << 10, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ErrRoom says that a cluster does not fit where it should go.
var ErrRoom = errors.New("there is no room for it")

// survey is what is known of a base before anything is written.
type survey struct {
	bytes    map[uint32]uint64 // by the tablespace's OID; 0: the data directory itself
	unlogged int               // relations that were not logged: they are restored empty
}

// surveyed walks through the base's entries.
func (b *build) surveyed(ctx context.Context) (survey, error) {
	s := survey{bytes: map[uint32]uint64{}}
	for e, err := range b.src.Base.Entries(ctx, "") {
		if err != nil {
			return s, err
		}
		rel, ok := strings.CutPrefix(e.Path, strings.TrimSuffix(b.src.Root, "/")+"/")
		if !ok || e.Type != snapshot.File || dropped(rel) {
			continue
		}
		oid := spaceOf(rel)
		if !slices.ContainsFunc(b.result.Tablespaces, func(t Tablespace) bool { return t.OID == oid }) {
			oid = 0
		}
		s.bytes[oid] += e.Size
		if name := filepath.Base(rel); strings.HasSuffix(name, "_init") && strings.Trim(strings.TrimSuffix(name, "_init"), "0123456789") == "" {
			s.unlogged++
		}
	}
	return s, nil
}

// room refuses a base that does not fit, before anything is touched, and tells of what people should know beforehand.
func (b *build) room(ctx context.Context) error {
	s, err := b.surveyed(ctx)
	if err != nil {
		return err
	}
	if s.unlogged > 0 {
		b.warn("%d unlogged tables, indexes and sequences are empty, as after a crash: PostgreSQL keeps no log of them", s.unlogged)
	}
	places := map[string]uint64{b.dir: s.bytes[0]}
	for _, t := range b.result.Tablespaces {
		places[t.Place] += s.bytes[t.OID]
	}
	need, where := map[uint64]uint64{}, map[uint64]string{}
	for place, bytes := range places {
		at := standing(place)
		id, err := inplace.Identify(at)
		if err != nil {
			return err
		}
		need[id.Device] += bytes
		where[id.Device] = at
	}
	wal := uint64(0)
	if l := b.src.Log; l != nil && l.End > b.src.Start {
		wal = min(uint64(l.End-b.src.Start), recoveryRoom)
	}
	own, err := inplace.Identify(standing(b.dir))
	if err != nil {
		return err
	}
	for device, bytes := range need {
		free, exact := freeAt(where[device])
		switch {
		case free >= bytes+wal || device != own.Device && free >= bytes:
		case free < bytes && exact:
			return fmt.Errorf("%w: it needs %s on the file system of %s, and %s are free", ErrRoom, humanize.IBytes(bytes), where[device], humanize.IBytes(free))
		default:
			b.options.note("%s are free on the file system of %s: the base needs %s, and the recovery some of its log; it ends without harm if they do not suffice", humanize.IBytes(free), where[device], humanize.IBytes(bytes))
		}
	}
	return nil
}

// recoveryRoom is about how much of the log lies in the data directory at once, in bytes: what waits in the spool, and what
// the server keeps between two restart points.
const recoveryRoom = windowBytes + 2<<30

// standing is the directory itself, or the nearest above it that is there.
func standing(path string) string {
	for at := path; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			if real, err := filepath.EvalSymlinks(at); err == nil {
				return real
			}
			return at
		}
	}
}

// File systems that store less than they are given: statfs(2).
var compressing = []int64{0x9123683e, 0x2fc12fc1, 0xca451a4e, 0xf2f52010} // btrfs, ZFS, bcachefs, F2FS

// freeAt is how many bytes are free for this program, and whether that is all that can be written.
func freeAt(dir string) (free uint64, exact bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return 1 << 62, false // it does not tell; writing will
	}
	free = st.Bavail
	if os.Geteuid() == 0 {
		free = st.Bfree
	}
	return free * uint64(max(st.Frsize, 1)), !slices.Contains(compressing, int64(st.Type)) //nolint:gosec,unconvert // a block size; types differ by architecture
}

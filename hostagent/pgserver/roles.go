package pgserver

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

const (
	// authorizations is the OID of pg_authid, the table of roles.
	authorizations = 1260
	// mapMagic begins pg_filenode.map, which says in which files such tables are.
	mapMagic = 0x592717
	// mostRoles is how many candidates there are at most.
	mostRoles = 20
)

// rolesIn names the superusers of a cluster that may log in, from its files, the one that initdb made first. Who stands there
// may be gone, or not be in the file yet: they are candidates. In a container the superuser is often not called postgres.
func rolesIn(dir string) []string {
	at, ok := fileOf(filepath.Join(dir, "global", "pg_filenode.map"), authorizations)
	if !ok {
		return nil
	}
	const most = 16 << 20
	path := filepath.Join(dir, "global", fmt.Sprint(at))
	if st, err := os.Stat(path); err != nil || st.Size() > most {
		return nil
	}
	b, err := os.ReadFile(path) //nolint:gosec // in the data directory
	if err != nil {
		return nil
	}
	var all []role
	for ; len(b) >= postgres.BlockSize; b = b[postgres.BlockSize:] {
		all = append(all, superusersOn(b[:postgres.BlockSize])...)
	}
	slices.SortStableFunc(all, func(a, b role) int { return cmp.Compare(a.oid, b.oid) })
	var out []string
	for _, r := range all {
		if !slices.Contains(out, r.name) && len(out) < mostRoles {
			out = append(out, r.name)
		}
	}
	return out
}

type role struct {
	oid  uint32
	name string
}

// fileOf reads a map of relations: src/backend/utils/cache/relmapper.c.
func fileOf(path string, oid uint32) (uint32, bool) {
	b, err := os.ReadFile(path) //nolint:gosec // in the data directory
	le := binary.LittleEndian
	if err != nil || len(b) < 8 || le.Uint32(b) != mapMagic {
		return 0, false
	}
	n := le.Uint32(b[4:])
	for b = b[8:]; n > 0 && len(b) >= 8; b, n = b[8:], n-1 {
		if le.Uint32(b) == oid {
			return le.Uint32(b[4:]), true
		}
	}
	return 0, false
}

// superusersOn reads the roles on a page of pg_authid: src/include/access/htup_details.h, src/include/catalog/pg_authid.h.
func superusersOn(page []byte) []role {
	const (
		itemSize, normal  = 4, 1
		headerSize        = 23
		nameAt, nameSize  = 4, 64
		superAt, canLogin = nameAt + nameSize, nameAt + nameSize + 4
	)
	le := binary.LittleEndian
	h := postgres.ParsePage(page)
	var out []role
	for at := 24; at+itemSize <= min(int(h.Lower), len(page)); at += itemSize {
		item := le.Uint32(page[at:])
		offset, flags, length := int(item&0x7FFF), item>>15&3, int(item>>17)
		if flags != normal || length < headerSize || offset+length > len(page) {
			continue
		}
		tuple := page[offset : offset+length]
		begin := int(tuple[22])
		if begin+canLogin >= len(tuple) {
			continue
		}
		row := tuple[begin:]
		name, _, _ := bytes.Cut(row[nameAt:nameAt+nameSize], []byte{0})
		if row[superAt] == 1 && row[canLogin] == 1 && len(name) > 0 {
			out = append(out, role{le.Uint32(row), string(name)})
		}
	}
	return out
}

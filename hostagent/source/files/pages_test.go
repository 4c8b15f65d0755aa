package files

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// sqliteFile makes a file of n pages that begins as an SQLite database does.
func sqliteFile(rng *rand.ChaCha8, page, n int) []byte {
	b := make([]byte, page*n)
	_, _ = rng.Read(b)
	copy(b, paged.SQLiteHeader)
	binary.BigEndian.PutUint16(b[16:], uint16(page))
	return b
}

func postgresFile(rng *rand.ChaCha8, n int) []byte {
	b := make([]byte, paged.PostgresPage*n)
	_, _ = rng.Read(b)
	for i, v := range []uint16{24, 100, paged.PostgresPage, paged.PostgresPage | 4} {
		binary.LittleEndian.PutUint16(b[12+2*i:], v)
	}
	return b
}

func TestPageSize(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{1})
	for _, c := range []struct {
		name string
		data []byte
		want uint64
	}{
		{"sqlite", sqliteFile(rng, 4096, 100), 4096},
		{"sqlite of 64 KiB pages", append([]byte(paged.SQLiteHeader), append([]byte{0, 1}, make([]byte, 1<<20)...)...), 64 << 10},
		{"small", sqliteFile(rng, 512, 100), 0},
		{"odd page size", append([]byte(paged.SQLiteHeader), append([]byte{3, 1}, make([]byte, 1<<20)...)...), 0},
		{"postgres", postgresFile(rng, 100), paged.PostgresPage},
		{"postgres, torn", postgresFile(rng, 100)[:paged.PostgresPage*99+1], 0},
		{"text", bytes.Repeat([]byte("text "), 100_000), 0},
	} {
		if got := paged.PageSize(c.data[:100], uint64(len(c.data))); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestPagesOverGenerations changes a database file at random, in place, longer and shorter, and captures each state: the
// content must be right, and little more than the changed pages may be stored.
func TestPagesOverGenerations(t *testing.T) {
	for name, c := range map[string]struct {
		page int
		data func(*rand.ChaCha8) []byte
	}{
		"sqlite":   {4096, func(r *rand.ChaCha8) []byte { return sqliteFile(r, 4096, 2100) }},
		"postgres": {paged.PostgresPage, func(r *rand.ChaCha8) []byte { return postgresFile(r, 1100) }},
		"inline":   {4096, func(r *rand.ChaCha8) []byte { return sqliteFile(r, 4096, 300) }},
	} {
		t.Run(name, func(t *testing.T) {
			source := rand.NewChaCha8([32]byte{2})
			rng := rand.New(source)
			data := c.data(source)
			path := filepath.Join(t.TempDir(), "file.db")
			s := newSession()
			for generation := range 16 {
				changed := 0
				switch {
				case generation == 0:
				case generation%7 == 3:
					more := make([]byte, c.page*(1+rng.IntN(20)))
					_, _ = source.Read(more)
					data = append(data, more...)
					changed = len(more)
				case generation%7 == 5:
					data = data[:len(data)-c.page*(1+rng.IntN(20))]
				default:
					for range 1 + rng.IntN(30) {
						at := c.page * (1 + rng.IntN(len(data)/c.page-1))
						_, _ = source.Read(data[at+rng.IntN(c.page/2):][:10])
						changed += c.page
					}
				}
				s = s.child(time.Now().Add(-time.Hour))
				wantPaged(t, s, path, data)
				if generation > 0 && s.added > changed+paged.Parts(s.extents(t, s.entry(t, path)))*1000+200_000 && generation < paged.MaxParts/2 {
					t.Errorf("generation %d: %d bytes stored for %d bytes of changed pages", generation, s.added, changed)
				}
			}
		})
	}
}

func wantPaged(t *testing.T, s *fakeSession, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	captured(t, s, Options{Roots: []string{path}})
	e := s.entry(t, path)
	if !bytes.Equal(s.content(t, e), data) {
		t.Fatalf("content of %d bytes differs", len(data))
	}
	if (len(e.Maps) > 0) != (len(data) > snapshot.MapSpan) {
		t.Errorf("%d maps for %d bytes", len(e.Maps), len(data))
	}
}

// TestPagesRegionIsStoredWhole checks that what grew out of too many runs is laid out anew.
func TestPagesRegionIsStoredWhole(t *testing.T) {
	source := rand.NewChaCha8([32]byte{3})
	data := sqliteFile(source, 4096, 300)
	path := filepath.Join(t.TempDir(), "file.db")
	s := newSession()
	most := 0
	for generation := range 2 * paged.MaxParts {
		_, _ = source.Read(data[4096*(1+generation*7%299):][:100])
		s = s.child(time.Now().Add(-time.Hour))
		wantPaged(t, s, path, data)
		most = max(most, paged.Parts(s.extents(t, s.entry(t, path))))
	}
	if most > paged.MaxParts+1 {
		t.Errorf("a region is made of %d chunks", most)
	}
}

// TestPagesOfAnotherSize has a database whose page size changes, while its last page is cut short and happens to be
// equal to the page that had its number before.
func TestPagesOfAnotherSize(t *testing.T) {
	source := rand.NewChaCha8([32]byte{4})
	data := sqliteFile(source, 4096, 81)
	path := filepath.Join(t.TempDir(), "file.db")
	s := newSession().child(time.Now().Add(-time.Hour))
	wantPaged(t, s, path, data)
	copy(data[80*4096:], data[40*4096:41*4096])
	binary.BigEndian.PutUint16(data[16:], 8192)
	wantPaged(t, s.child(time.Now().Add(-time.Hour)), path, data)
}

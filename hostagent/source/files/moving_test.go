package files

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestPagesOfAMovingFile has a database that is written to, cut and made longer after each reading of a part of it. What
// the snapshot holds must be what the last attempt has read, byte for byte, whatever of it is taken over from the parent.
func TestPagesOfAMovingFile(t *testing.T) {
	for seed := range byte(4) {
		source := rand.NewChaCha8([32]byte{seed})
		rng := rand.New(source)
		path := filepath.Join(t.TempDir(), "file.db")
		pages := []int{300, 2040, 2100, 4200}[rng.IntN(4)]
		if err := os.WriteFile(path, sqliteFile(source, 4096, pages), 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSession()
		for generation := range 6 {
			var read []byte
			sys := realSystem()
			pread := sys.pread
			sys.pread = func(fd int, p []byte, offset int64) (int, error) {
				n, err := pread(fd, p, offset)
				if offset == 0 && len(p) > 100 {
					read = read[:0]
				}
				if len(p) > 100 {
					read = append(read[:offset], p[:n]...)
				}
				move(t, path, source, rng)
				return n, err
			}
			s = s.child(time.Now().Add(-time.Hour))
			captureSystem(t, s, Options{Roots: []string{path}}, sys)
			e := s.entry(t, path)
			if got := s.content(t, e); uint64(len(got)) != e.Size || !bytes.Equal(got, read) {
				t.Fatalf("seed %d, generation %d: %d bytes stored, %d read; maps %d", seed, generation, len(got), len(read), len(e.Maps))
			}
			if err := e.Check(); err != nil {
				t.Fatalf("seed %d, generation %d: %v", seed, generation, err)
			}
		}
	}
}

// move changes the file, or not.
func move(t *testing.T, path string, source *rand.ChaCha8, rng *rand.Rand) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Error(err)
		return
	}
	b := make([]byte, 1+rng.IntN(9000))
	_, _ = source.Read(b)
	switch n := rng.IntN(40); {
	case n == 0:
		err = f.Truncate(max(paged.MinSize, info.Size()-int64(rng.IntN(snapshot.MapSpan))))
	case n < 4:
		_, err = f.WriteAt(b, info.Size())
	case n < 20:
		_, err = f.WriteAt(b, 4096+rng.Int64N(info.Size()-4096))
	}
	if err != nil {
		t.Error(err)
	}
}

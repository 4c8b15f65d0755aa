package soak

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/test/trees"
)

// workload is a directory tree that changes: everything that a file system can hold, which stays, and files that are
// edited, among them one that looks like a database of pages.
type workload struct {
	t      *testing.T
	random *rand.Rand
	top    string
	edited string
	count  int
}

const databasePages = 300

func newWorkload(t *testing.T, random *rand.Rand) *workload {
	t.Helper()
	w := &workload{t: t, random: random, top: filepath.Join(trees.TempDir(t), "tree")}
	w.edited = filepath.Join(w.top, "edited")
	everything := filepath.Join(w.top, "everything")
	must(t, os.MkdirAll(everything, 0o755))
	must(t, os.MkdirAll(w.edited, 0o755))
	trees.Make(t, everything, random.Uint64(), trees.Options{Entries: 40})
	for range 40 {
		w.create()
	}
	db := make([]byte, databasePages*4096)
	copy(db, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(db[16:], 4096)
	w.fill(db[4096:])
	w.write(filepath.Join(w.edited, "database"), db)
	return w
}

func (w *workload) fill(b []byte) {
	switch w.random.IntN(3) {
	case 0:
		line := fmt.Appendf(nil, "line %d of the log, which compresses\n", w.random.IntN(1000))
		for i := range b {
			b[i] = line[i%len(line)]
		}
	default:
		for i := 0; i+8 <= len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], w.random.Uint64())
		}
	}
}

func (w *workload) write(name string, b []byte) {
	must(w.t, os.WriteFile(name, b, 0o600))
}

// create makes a new file of up to 200 KiB.
func (w *workload) create() {
	w.count++
	b := make([]byte, w.random.IntN(1<<(6+w.random.IntN(12))))
	w.fill(b)
	dir := filepath.Join(w.edited, fmt.Sprintf("directory %d", w.random.IntN(5)))
	must(w.t, os.MkdirAll(dir, 0o755))
	w.write(filepath.Join(dir, fmt.Sprintf("file %d", w.count)), b)
}

// edit changes some of the tree.
func (w *workload) edit() {
	for range 1 + w.random.IntN(5) {
		w.create()
	}
	files, err := filepath.Glob(filepath.Join(w.edited, "directory*", "file*"))
	must(w.t, err)
	for range 4 {
		name := files[w.random.IntN(len(files))]
		if b, err := os.ReadFile(name); err == nil { //nolint:gosec // of the test's own tree
			w.change(name, b)
		}
	}
	w.editDatabase()
	large := filepath.Join(w.edited, "large")
	switch w.random.IntN(6) {
	case 0:
		b := make([]byte, 20<<20) // several packs
		w.fill(b)
		w.write(large, b)
	case 1:
		must(w.t, os.RemoveAll(large))
	case 2:
		if b, err := os.ReadFile(large); err == nil { //nolint:gosec // as above
			at := w.random.IntN(len(b) - 1000)
			w.fill(b[at : at+1000])
			w.write(large, b)
		}
	}
}

func (w *workload) change(name string, b []byte) {
	switch w.random.IntN(5) {
	case 0:
		must(w.t, os.Remove(name))
	case 1:
		must(w.t, os.Rename(name, name+" renamed"))
	case 2:
		more := make([]byte, w.random.IntN(5000))
		w.fill(more)
		w.write(name, append(b, more...))
	case 3:
		must(w.t, os.Chmod(name, os.FileMode(0o600+w.random.IntN(0o200))))
	default:
		if len(b) > 0 {
			b[w.random.IntN(len(b))] ^= byte(1 + w.random.IntN(255)) // the size stays
		}
		w.write(name, b)
	}
}

// editDatabase changes some pages in place.
func (w *workload) editDatabase() {
	f, err := os.OpenFile(filepath.Join(w.edited, "database"), os.O_RDWR, 0)
	must(w.t, err)
	page := make([]byte, 4096)
	for range 1 + w.random.IntN(6) {
		w.fill(page)
		_, err := f.WriteAt(page, int64(1+w.random.IntN(databasePages-1))*4096)
		must(w.t, err)
	}
	must(w.t, f.Close())
}

// remember reads the tree as it is.
func (w *workload) remember() []trees.Node {
	w.t.Helper()
	nodes, err := trees.Read(w.top)
	must(w.t, err)
	return nodes
}

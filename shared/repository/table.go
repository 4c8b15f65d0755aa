package repository

import (
	"crypto/rand"
	"hash/maphash"
	"os"
	"path/filepath"
)

// Table keeps records of one size, each a key and a value, on disk for as long as its owner works with a snapshot: of each
// some 4 bytes are in memory. Its file has no name and goes with the process. It is safe for concurrent use.
type Table struct {
	disk *diskTable
	seed maphash.Seed
}

// NewTable makes an empty table of records of size record, of which the first key bytes are the key. Its file will be in
// dir, or in the system's directory for such files if dir is empty; it is made when there is something to write.
func NewTable(dir string, key, record int) *Table {
	if dir == "" {
		dir = os.TempDir()
	}
	return &Table{
		disk: newDiskTable(filepath.Join(dir, "holdfast-table-"+rand.Text()), key, record),
		seed: maphash.MakeSeed(),
	}
}

func (t *Table) hash(record []byte) uint32 {
	return uint32(maphash.Bytes(t.seed, record[:t.disk.key])) //nolint:gosec // any 32 bits
}

// Put adds a record, before all others with the same key. It reports false if it could not be kept: the disk is full.
func (t *Table) Put(record []byte) bool {
	_, ok := t.disk.put(t.hash(record), record)
	return ok
}

// Find looks for the newest record with the key with which record begins, and fills in the rest of it.
func (t *Table) Find(record []byte) bool {
	_, ok := t.disk.find(t.hash(record), record)
	return ok
}

// Damaged reports whether a record that was to be compared could not be read back. Then Find may have missed what is there.
func (t *Table) Damaged() bool { return t.disk.damaged.Load() }

// Usage is how many records there are and how many bytes of memory they take.
func (t *Table) Usage() (records, memory int) { return t.disk.usage() }

// Close gives the file up. The table is empty then and stays so.
func (t *Table) Close() { t.disk.close() }

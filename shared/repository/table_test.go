package repository

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

func TestTable(t *testing.T) {
	dir := t.TempDir()
	table := NewTable(dir, 12, testRecord)
	defer table.Close()
	const n = 50_000
	for key := range uint64(n) {
		if !table.Put(numbered(key, key+1)) {
			t.Fatalf("key %d was not kept", key)
		}
	}
	for key := range uint64(n) {
		if r := numbered(key, 0); !table.Find(r) || binary.BigEndian.Uint64(r[12:]) != key+1 {
			t.Fatalf("key %d leads to %x", key, r)
		}
	}
	if table.Find(numbered(n, 0)) || table.Damaged() {
		t.Error("what was never put is there, or damage is seen")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", err, left)
	}
	if records, memory := table.Usage(); records != n || memory > 2<<20 {
		t.Errorf("%d records take %d bytes", records, memory)
	}
	flip(t, table.disk, 3)
	missing := 0
	for key := range uint64(n) {
		if !table.Find(numbered(key, 0)) {
			missing++
		}
	}
	if missing == 0 || missing > diskBlock || !table.Damaged() {
		t.Errorf("%d records are missing, damaged: %v", missing, table.Damaged())
	}
}

// TestTableWithoutDisk keeps what is in memory and takes nothing more.
func TestTableWithoutDisk(t *testing.T) {
	table := NewTable(filepath.Join(t.TempDir(), "nowhere"), 12, testRecord)
	defer table.Close()
	kept := uint64(0)
	for ; table.Put(numbered(kept, kept)); kept++ {
		if kept > diskParts*diskBlock {
			t.Fatal("it takes more than it can keep")
		}
	}
	for key := range kept {
		if !table.Find(numbered(key, 0)) {
			t.Fatalf("key %d is lost", key)
		}
	}
	table.Close()
	if table.Find(numbered(0, 0)) || table.Put(numbered(0, 0)) {
		t.Error("a closed table is in use")
	}
}

package repository

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

const testRecord = 20 // 12 of key, 8 of value

// testTable is a table of records that have a number as key.
func testTable(t *testing.T) *diskTable {
	t.Helper()
	table := newDiskTable(filepath.Join(t.TempDir(), "test.table"), 12, testRecord)
	t.Cleanup(table.close)
	return table
}

func numbered(key, value uint64) []byte {
	var r [testRecord]byte
	binary.BigEndian.PutUint64(r[4:], key)
	binary.BigEndian.PutUint64(r[12:], value)
	return r[:]
}

// spread is a hash of a number.
func spread(key uint64) uint32 { return uint32(key * 0x9E3779B97F4A7C15 >> 32) }

// value returns what a table has under a number.
func value(table *diskTable, hash uint32, key uint64) (uint64, bool) {
	r := numbered(key, 0)
	_, ok := table.find(hash, r)
	return binary.BigEndian.Uint64(r[12:]), ok
}

// TestDiskTable compares a table with a map: much is put, some of it several times, and looked up between.
func TestDiskTable(t *testing.T) {
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, seed))
	table, model := testTable(t), map[uint64]uint64{}
	at := map[uint64]diskAt{}
	for i := range 80_000 {
		key := rng.Uint64N(60_000)
		where, ok := table.put(spread(key), numbered(key, uint64(i)))
		if !ok {
			t.Fatalf("put %d: %v", i, table.err)
		}
		model[key], at[key] = uint64(i), where
		key = rng.Uint64N(60_000)
		got, ok := value(table, spread(key), key)
		if want, has := model[key]; ok != has || has && got != want {
			t.Fatalf("after %d: key %d leads to %d, %v instead of %d, %v", i, key, got, ok, want, has)
		}
	}
	for key, want := range model {
		r := make([]byte, testRecord)
		if !table.at(at[key], r) || string(r) != string(numbered(key, want)) {
			t.Fatalf("at the place of key %d is %x", key, r)
		}
	}
	where, added, ok := table.putNew(spread(7), numbered(7, 1))
	if _, has := model[7]; !ok || added == has || has && where != at[7] {
		t.Errorf("putNew of a key that is there is %v: added %v at %v", has, added, where)
	}
}

// TestDiskTableCollisions gives records with different keys the same hash.
func TestDiskTableCollisions(t *testing.T) {
	table := testTable(t)
	const n = 5*diskBlock + 3
	for key := range uint64(n) {
		if _, added, ok := table.putNew(12345, numbered(key, key*key)); !added || !ok {
			t.Fatalf("key %d was taken for another one", key)
		}
	}
	for key := range uint64(n) {
		if got, ok := value(table, 12345, key); !ok || got != key*key {
			t.Errorf("key %d leads to %d, %v", key, got, ok)
		}
	}
	if _, ok := value(table, 12345, n); ok {
		t.Error("a key that was never put is there")
	}
}

// TestDiskTableMemory asserts what a record costs.
func TestDiskTableMemory(t *testing.T) {
	table := testTable(t)
	for key := range uint64(quarter) {
		table.put(spread(key), numbered(key, key))
	}
	if each := atAMillion(t, table); each > 4 {
		t.Errorf("%.1f bytes each", each)
	}
}

// TestDiskTableDamage damages blocks in several ways: what was in them is absent, nothing is wrong, and what is put
// again is there.
func TestDiskTableDamage(t *testing.T) {
	const n = 36_000
	for name, damage := range map[string]func(t *testing.T, table *diskTable){
		"bit": func(t *testing.T, table *diskTable) {
			t.Helper()
			for block := range int64(table.blocks) / 2 {
				flip(t, table, 2*block*int64(table.blockSize())+block%int64(table.blockSize()))
			}
		},
		"swapped": func(t *testing.T, table *diskTable) {
			t.Helper()
			size := int64(table.blockSize())
			b := make([]byte, 2*size)
			if _, err := table.f.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := table.f.WriteAt(append(b[size:], b[:size]...), 0); err != nil {
				t.Fatal(err)
			}
		},
		"cut": func(t *testing.T, table *diskTable) {
			t.Helper()
			if err := table.f.Truncate(int64(table.blocks) * int64(table.blockSize()) / 2); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			table := testTable(t)
			for key := range uint64(n) {
				table.put(spread(key), numbered(key, key+1))
			}
			damage(t, table)
			lost := 0
			for key := range uint64(n) {
				got, ok := value(table, spread(key), key)
				if ok && got != key+1 {
					t.Fatalf("key %d leads to %d", key, got)
				}
				if !ok {
					lost++
					table.put(spread(key), numbered(key, key+1))
				}
			}
			if lost == 0 || lost > n*2/3 {
				t.Errorf("%d of %d are lost", lost, n)
			}
			for key := range uint64(n) {
				if got, ok := value(table, spread(key), key); !ok || got != key+1 {
					t.Fatalf("put again, key %d leads to %d, %v", key, got, ok)
				}
			}
		})
	}
}

func flip(t *testing.T, table *diskTable, at int64) {
	t.Helper()
	var b [1]byte
	if _, err := table.f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := table.f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestDiskTableWithoutFile can't make its file: it keeps what it has and takes nothing more.
func TestDiskTableWithoutFile(t *testing.T) {
	table := newDiskTable(filepath.Join(t.TempDir(), "missing", "test.table"), 12, testRecord)
	defer table.close()
	kept := uint64(0)
	for key := range uint64(100_000) {
		if _, ok := table.put(spread(key), numbered(key, key)); !ok {
			break
		}
		kept++
	}
	if kept == 0 || kept == 100_000 {
		t.Fatalf("%d records were taken", kept)
	}
	for key := range kept {
		if got, ok := value(table, spread(key), key); !ok || got != key {
			t.Fatalf("key %d leads to %d, %v", key, got, ok)
		}
	}
	if _, ok := value(table, spread(kept), kept); ok {
		t.Error("what was not taken is there")
	}
}

// TestDiskTableLeavesNothing has a file in the way, as from a crash, and looks for the table's own.
func TestDiskTableLeavesNothing(t *testing.T) {
	table := testTable(t)
	if err := os.WriteFile(table.path, []byte("from a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	for key := range uint64(100_000) {
		if _, ok := table.put(spread(key), numbered(key, key)); !ok {
			t.Fatal(table.err)
		}
	}
	if table.blocks == 0 {
		t.Fatal("nothing is on disk")
	}
	left, err := os.ReadDir(filepath.Dir(table.path))
	if err != nil || len(left) > 0 {
		t.Errorf("in the directory are %v, %v", left, err)
	}
	table.close()
	if _, ok := value(table, spread(1), 1); ok {
		t.Error("a closed table has something")
	}
	if _, ok := table.put(spread(1), numbered(1, 1)); ok {
		t.Error("a closed table takes something")
	}
}

// TestDiskTableConcurrent puts and looks up in several goroutines.
func TestDiskTableConcurrent(t *testing.T) {
	table := testTable(t)
	const each, workers = 20_000, 4
	var group sync.WaitGroup
	for w := range uint64(workers) {
		group.Go(func() {
			for i := range uint64(each) {
				key := i*workers + w
				table.putNew(spread(key), numbered(key, key))
				if got, ok := value(table, spread(key/2), key/2); ok && got != key/2 {
					t.Errorf("key %d leads to %d", key/2, got)
				}
			}
		})
	}
	group.Wait()
	for key := range uint64(each * workers) {
		if got, ok := value(table, spread(key), key); !ok || got != key {
			t.Fatalf("key %d leads to %d, %v", key, got, ok)
		}
	}
}

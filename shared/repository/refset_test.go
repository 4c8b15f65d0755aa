package repository

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func testRefset(t *testing.T) *refset {
	t.Helper()
	s := &state{dir: t.TempDir()}
	t.Cleanup(func() {
		for _, table := range s.tables {
			table.close()
		}
	})
	return newRefset(s)
}

// numberedID is an id as keyed hashes are: the number is spread over all of it.
func numberedID(n uint64) (id snapshot.Hash) {
	for i := range 4 {
		binary.BigEndian.PutUint64(id[8*i:], (n+uint64(i))*0x9E3779B97F4A7C15+n)
	}
	return id
}

func numberedRef(n uint64) KindRef {
	return KindRef{Kind: snapshot.Content, Ref: snapshot.Ref{
		Pack: n / 1000, Offset: uint32(n), Sealed: uint32(n) + 17, Plain: uint32(n) + 1, ID: numberedID(n),
	}}
}

// atAMillion is what each of a million records takes in memory, by what each of those takes that a table has, a quarter of a
// million: blocks that are not full are no more then, and everything else has grown four times.
func atAMillion(t *testing.T, table *diskTable) float64 {
	t.Helper()
	records, memory := table.usage()
	if records != quarter {
		t.Fatalf("%d records instead of %d", records, quarter)
	}
	fixed := 0
	for i := range table.parts {
		fixed += diskPartSize + cap(table.parts[i].tail)
	}
	each := (4*float64(memory-fixed) + float64(fixed)) / (4 * quarter)
	t.Logf("%.2f bytes each", each)
	return each
}

const quarter = 250_000

// TestRefsetMemory asserts the promise of REPOSITORY.md for what a parent costs: of a million chunks and a million small
// files in others, each takes less than 8 bytes of memory.
func TestRefsetMemory(t *testing.T) {
	s := testRefset(t)
	const n = quarter
	for i := range uint64(n) {
		s.add(numberedRef(i))
	}
	for i := range uint64(n) {
		id := numberedID(n + i)
		s.learn(snapshot.FileID(id[:16]), 100, []snapshot.Extent{{Ref: numberedRef(i / 1000).Ref, Offset: uint32(i % 1000), Length: 100}})
	}
	for name, table := range map[string]*diskTable{"chunks": s.chunks, "small files": s.files} {
		if each := atAMillion(t, table); each > 8 {
			t.Errorf("%s take %.1f bytes each", name, each)
		}
	}
	for i := uint64(0); i < n; i += 777 {
		if ref, ok, err := s.find(snapshot.Content, numberedID(i)); !ok || err != nil || ref != numberedRef(i).Ref {
			t.Fatalf("chunk %d leads to %v, %v, %v", i, ref, ok, err)
		}
		id := numberedID(n + i)
		x, ok := s.file(snapshot.FileID(id[:16]), 100)
		if !ok || len(x) != 1 || x[0].Ref != numberedRef(i/1000).Ref || x[0].Offset != uint32(i%1000) || x[0].Length != 100 {
			t.Fatalf("small file %d leads to %v, %v", i, x, ok)
		}
	}
}

// TestRefsetTruncatedIDs has chunks and small files whose ids differ in their last byte only, or in nothing but the kind
// or the size: none is taken for another.
func TestRefsetTruncatedIDs(t *testing.T) {
	s := testRefset(t)
	id := func(i int) (h snapshot.Hash) { h[31] = byte(i); return h }
	file := func(i int) (f snapshot.FileID) { f[15] = byte(i); return f }
	for i := range 200 {
		s.add(KindRef{Kind: snapshot.Content, Ref: snapshot.Ref{Pack: 1, Offset: uint32(i), ID: id(i)}})
		ref := snapshot.Ref{Pack: 1, Offset: uint32(i), ID: id(i)}
		s.learn(file(i), 7, []snapshot.Extent{{Ref: ref, Offset: uint32(i), Length: 7}})
	}
	for i := range 256 {
		ref, ok, err := s.find(snapshot.Content, id(i))
		if err != nil || ok != (i < 200) || ok && ref.Offset != uint32(i) {
			t.Errorf("chunk %d leads to %v, %v, %v", i, ref, ok, err)
		}
		if _, ok, _ := s.find(snapshot.Map, id(i)); ok {
			t.Errorf("chunk %d of another kind is there", i)
		}
		x, ok := s.file(file(i), 7)
		if ok != (i < 200) || ok && (x[0].Offset != uint32(i) || x[0].Ref.ID != id(i)) {
			t.Errorf("small file %d leads to %v, %v", i, x, ok)
		}
		if _, ok := s.file(file(i), 8); ok {
			t.Errorf("small file %d is there with another size", i)
		}
	}
}

// TestRefsetDamage damages all that is on disk: what was there counts as not stored, and is known when it was stored
// again.
func TestRefsetDamage(t *testing.T) {
	s := testRefset(t)
	const n = 40_000
	for i := range uint64(n) {
		s.add(numberedRef(i))
	}
	for block := range int64(s.chunks.blocks) {
		flip(t, s.chunks, block*int64(s.chunks.blockSize())+block%1000)
	}
	lost := 0
	for i := range uint64(n) {
		ref, ok, err := s.find(snapshot.Content, numberedID(i))
		if err != nil || ok && ref != numberedRef(i).Ref {
			t.Fatalf("chunk %d leads to %v, %v", i, ref, err)
		}
		if !ok {
			lost++
			again := numberedRef(i)
			again.Pack = 1 << 20
			s.add(again)
			if ref, ok, err := s.find(snapshot.Content, numberedID(i)); err != nil || !ok || ref.Pack != 1<<20 {
				t.Fatalf("chunk %d, stored again, leads to %v, %v, %v", i, ref, ok, err)
			}
		}
	}
	if lost < n/2 {
		t.Errorf("only %d of %d are lost", lost, n)
	}
}

// TestRefsetParentFails has a parent that can't be read: each question for content gets the error, and no file is known.
func TestRefsetParentFails(t *testing.T) {
	s := testRefset(t)
	broken := errors.New("broken")
	calls := 0
	s.load = func(add func(KindRef), _ func(snapshot.FileID, uint64, []snapshot.Extent)) error {
		calls++
		add(numberedRef(1))
		return broken
	}
	if _, ok := s.file(snapshot.FileID{}, 1); ok {
		t.Error("a file is known")
	}
	for range 2 {
		if _, _, err := s.find(snapshot.Content, numberedID(2)); !errors.Is(err, broken) {
			t.Errorf("find: %v", err)
		}
	}
	if calls != 1 {
		t.Errorf("the parent was read %d times", calls)
	}
}

// TestSessionWithDamagedTables damages what a session knows on disk before some of its chunks come again: they are stored
// again, and the snapshot is what it should be.
func TestSessionWithDamagedTables(t *testing.T) {
	id, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Init(t.Context(), mem.New(), id, id.Recipients(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	src := snapshot.Source{Host: "host", Name: "files"}
	s, err := r.Begin(t.Context(), BeginOptions{Source: src, Kind: "files", State: t.TempDir(), Tool: "test", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	const n, again = 36_000, 6_000
	content := func(i int) []byte { return fmt.Appendf(nil, "content %d", i%n) }
	for i := range n + again {
		if i == n {
			for _, table := range s.state.tables {
				for block := range int64(table.blocks) {
					flip(t, table, block*int64(table.blockSize())+block%100)
				}
			}
		}
		plain := content(i)
		ref, err := s.Chunk(t.Context(), snapshot.Content, plain)
		if err != nil {
			t.Fatal(err)
		}
		e := &snapshot.Entry{Path: fmt.Sprintf("/%06d", i), Type: snapshot.File, Size: uint64(len(plain)), Extents: []snapshot.Extent{{Ref: ref, Length: uint64(len(plain))}}}
		if err := s.Emit(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if s.refs.chunks.blocks == 0 {
		t.Fatal("nothing was on disk")
	}
	stored, err := s.Commit(t.Context(), Result{Roots: []string{"/"}, Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := r.Snapshot(t.Context(), stored)
	if err != nil {
		t.Fatal(err)
	}
	var refs []KindRef
	for e, err := range snap.Entries(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, KindRef{Kind: snapshot.Content, Ref: e.Extents[0].Ref})
	}
	if len(refs) != n+again {
		t.Fatalf("%d entries", len(refs))
	}
	err = snap.Chunks(t.Context(), refs, func(i int, plain []byte, err error) error {
		if err == nil && string(plain) != string(content(i)) {
			err = fmt.Errorf("entry %d is %q", i, plain)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

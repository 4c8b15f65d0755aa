package repository_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// countingStore counts what is read.
type countingStore struct {
	objstore.Store
	mu   sync.Mutex
	gets int // guarded by mu
}

func (s *countingStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.gets++
	s.mu.Unlock()
	return s.Store.Get(ctx, key, offset, length)
}

func (s *countingStore) counted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.gets
	s.gets = 0
	return n
}

// TestFewReads counts the reads of a tree of many chunks: each would be a round trip to a store that is far away.
func TestFewReads(t *testing.T) {
	m := mem.New()
	r, id := initialise(t, m)
	tree := files{}
	for i := range 9_000 {
		tree[fmt.Sprintf("/etc/%05d%0200d", i, i)] = []byte{byte(i), 1}
	}
	stored := mustBackup(t, r, t.TempDir(), "", tree)
	counting := &countingStore{Store: m}
	snap, err := open(t, counting, id).Snapshot(t.Context(), stored)
	if err != nil {
		t.Fatal(err)
	}
	root, err := snap.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(root.Chunks) < 40 {
		t.Fatalf("only %d tree chunks: this tests nothing", len(root.Chunks))
	}
	counting.counted()
	first := root.Chunks[0].First
	for range 2 {
		if e, err := snap.Lookup(t.Context(), first); err != nil || e.Path != first {
			t.Errorf("look up %q: got %v, %v", first, e, err)
		}
	}
	if n := counting.counted(); n != 1 {
		t.Errorf("%d reads for two looks at the same entry", n)
	}
	var paths []string
	for e, err := range snap.Entries(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, e.Path)
	}
	if n := counting.counted(); n > len(root.Chunks)/3 {
		t.Errorf("%d reads for %d tree chunks", n, len(root.Chunks)-1)
	}
	if !slices.IsSortedFunc(paths, snapshot.ComparePaths) || len(paths) < len(tree) {
		t.Errorf("%d entries for %d files, in order: %v", len(paths), len(tree), slices.IsSortedFunc(paths, snapshot.ComparePaths))
	}
	for range snap.Entries(t.Context(), "") {
		break
	}
	if n := counting.counted(); n > 1 {
		t.Errorf("%d reads for the first entry", n)
	}
}

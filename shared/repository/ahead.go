package repository

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sort"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// groupFirst is how many chunks the first read of a sequence of tree or map chunks takes: whoever wants one entry
	// should not read many. Each read after it takes twice as many as the one before.
	groupFirst = 4
	// groupMost and groupBytes end this growth; groupBytes is of plain bytes and bounds, with groupsAhead, memory.
	groupMost  = 64
	groupBytes = 256 << 10
	// groupsAhead is how many reads are under way while an earlier one is used.
	groupsAhead = 2
)

// groups cuts a sequence of n chunks into reads. plain tells the plain length of each.
func groups(n int, plain func(i int) uint32) [][2]int {
	var out [][2]int
	for from, size := 0, groupFirst; from < n; size = min(2*size, groupMost) {
		to := from + 1
		for sum := uint64(plain(from)); to < min(from+size, n); to++ {
			if sum += uint64(plain(to)); sum > groupBytes {
				break
			}
		}
		out = append(out, [2]int{from, to})
		from = to
	}
	return out
}

// ahead calls read for 0 to n-1, from several goroutines, and use with each result in order, as long as use returns true.
// The second read begins when the first result was used up, as few need more than that; from then on groupsAhead are under way.
func ahead[T any](ctx context.Context, n int, read func(ctx context.Context, i int) (T, error), use func(T, error) bool) {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	type result struct {
		value T
		err   error
	}
	next := 0
	var under []chan result
	for i := range n {
		for ; next < n && next <= i+min(i, 1)*groupsAhead; next++ {
			done := make(chan result, 1)
			under = append(under, done)
			at := next
			reading.Go(func() {
				value, err := read(ctx, at)
				done <- result{value, err}
			})
		}
		r := <-under[0]
		under = under[1:]
		if !use(r.value, r.err) || r.err != nil {
			return
		}
	}
}

// Entries yields the snapshot's entries in order, beginning with the first whose path is not before from.
// After an error it ends.
func (s *Snapshot) Entries(ctx context.Context, from string) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		root, err := s.Root(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		s.yieldTrees(ctx, root.Chunks[treeOf(root.Chunks, from):], from, yield)
	}
}

// treeOf is the index of the last tree chunk that begins at or before path: the one that may have it. It is 0 if there is none.
func treeOf(chunks []snapshot.TreeChunk, path string) int {
	i := sort.Search(len(chunks), func(i int) bool { return snapshot.ComparePaths(chunks[i].First, path) > 0 })
	return max(i-1, 0)
}

// all yields all entries.
func (s *Snapshot) all(ctx context.Context) iter.Seq2[*snapshot.Entry, error] {
	return s.Entries(ctx, "")
}

// yieldTrees reads chunks, some at a time and ahead, and yields their entries from from on.
func (s *Snapshot) yieldTrees(ctx context.Context, chunks []snapshot.TreeChunk, from string, yield func(*snapshot.Entry, error) bool) {
	var parts [][2]int
	known := 0
	if len(chunks) > 0 && s.looked.get(chunks[0].Ref) != nil {
		parts, known = [][2]int{{0, 1}}, 1 // no need to read what was looked into a moment ago
	}
	for _, p := range groups(len(chunks)-known, func(i int) uint32 { return chunks[known+i].Ref.Plain }) {
		parts = append(parts, [2]int{known + p[0], known + p[1]})
	}
	last := ""
	ahead(ctx, len(parts), func(ctx context.Context, i int) ([][]*snapshot.Entry, error) {
		return s.readTrees(ctx, chunks[parts[i][0]:parts[i][1]])
	}, func(trees [][]*snapshot.Entry, err error) bool {
		if err != nil {
			yield(nil, err)
			return false
		}
		for _, tree := range trees {
			for _, e := range tree {
				if last != "" && snapshot.ComparePaths(last, e.Path) >= 0 {
					yield(nil, fmt.Errorf("read the tree of %s: %w: %q stands after %q", s.stored.ID(), snapshot.ErrFormat, e.Path, last))
					return false
				}
				last = e.Path
				if snapshot.ComparePaths(e.Path, from) >= 0 && !yield(e, nil) {
					return false
				}
			}
		}
		return true
	})
}

// readTrees reads and decodes tree chunks.
func (s *Snapshot) readTrees(ctx context.Context, chunks []snapshot.TreeChunk) ([][]*snapshot.Entry, error) {
	if len(chunks) == 1 {
		if tree := s.looked.get(chunks[0].Ref); tree != nil {
			return [][]*snapshot.Entry{tree}, nil
		}
	}
	refs := make([]KindRef, len(chunks))
	for i, c := range chunks {
		refs[i] = KindRef{Kind: snapshot.Tree, Ref: c.Ref}
	}
	trees := make([][]*snapshot.Entry, len(chunks))
	err := s.Chunks(ctx, refs, func(i int, plain []byte, err error) error {
		if err == nil {
			trees[i], err = decodeTree(plain, chunks[i].First)
		}
		if err != nil {
			return fmt.Errorf("read the tree of %s from %q: %w", s.stored.ID(), chunks[i].First, err)
		}
		return nil
	})
	return trees, err
}

func decodeTree(plain []byte, first string) ([]*snapshot.Entry, error) {
	var out []*snapshot.Entry
	err := snapshot.DecodeTree(plain, func(e *snapshot.Entry) error {
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 || out[0].Path != first {
		return nil, fmt.Errorf("%w: the tree chunk does not begin with %q", snapshot.ErrFormat, first)
	}
	return out, nil
}

// Lookup returns the entry of one path. Errors: ErrNoPath.
func (s *Snapshot) Lookup(ctx context.Context, path string) (*snapshot.Entry, error) {
	root, err := s.Root(ctx)
	if err != nil {
		return nil, err
	}
	if len(root.Chunks) > 0 {
		c := root.Chunks[treeOf(root.Chunks, path):][:1]
		trees, err := s.readTrees(ctx, c)
		if err != nil {
			return nil, err
		}
		s.looked.put(c[0].Ref, trees[0])
		i, found := slices.BinarySearchFunc(trees[0], path, func(e *snapshot.Entry, path string) int { return snapshot.ComparePaths(e.Path, path) })
		if found {
			return trees[0][i], nil
		}
	}
	return nil, fmt.Errorf("%w: %q in %s", ErrNoPath, path, s.stored.ID())
}

// treeMemo keeps the tree chunk that was looked into last: what begins with a look at a root goes on with the entries
// after it, and every read of a store that is far away costs a round trip.
type treeMemo struct {
	mu   sync.Mutex
	ref  snapshot.Ref      // guarded by mu
	tree []*snapshot.Entry // guarded by mu; nil: nothing is kept. Entries are not changed by who gets them
}

func (m *treeMemo) get(ref snapshot.Ref) []*snapshot.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ref != ref {
		return nil
	}
	return m.tree
}

func (m *treeMemo) put(ref snapshot.Ref, tree []*snapshot.Entry) {
	if ref.Plain > 2*treeMax {
		return // entries of huge files, which nobody wants to keep
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ref, m.tree = ref, tree
}

// Extents calls fn with the extents of e's content in order, reading its maps where it has any.
func (s *Snapshot) Extents(ctx context.Context, e *snapshot.Entry, fn func(snapshot.Extent) error) error {
	for _, x := range e.Extents {
		if err := fn(x); err != nil {
			return err
		}
	}
	parts := groups(len(e.Maps), func(i int) uint32 { return e.Maps[i].Ref.Plain })
	var fault error
	ahead(ctx, len(parts), func(ctx context.Context, i int) ([][]snapshot.Extent, error) {
		return s.readMaps(ctx, e.Maps[parts[i][0]:parts[i][1]])
	}, func(maps [][]snapshot.Extent, err error) bool {
		for _, extents := range maps {
			for _, x := range extents {
				if fault = fn(x); fault != nil {
					return false
				}
			}
		}
		if err != nil {
			fault = fmt.Errorf("read the map of %q: %w", e.Path, err)
		}
		return fault == nil
	})
	return fault
}

// readMaps reads and checks maps. With an error it returns nothing.
func (s *Snapshot) readMaps(ctx context.Context, maps []snapshot.MapRef) ([][]snapshot.Extent, error) {
	refs := make([]KindRef, len(maps))
	for i, m := range maps {
		refs[i] = KindRef{Kind: snapshot.Map, Ref: m.Ref}
	}
	out := make([][]snapshot.Extent, len(maps))
	err := s.Chunks(ctx, refs, func(i int, plain []byte, err error) error {
		if err == nil {
			out[i], err = CheckedMap(plain, maps[i])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Map reads one map chunk and checks that it covers what its ref says.
func (s *Snapshot) Map(ctx context.Context, m snapshot.MapRef) ([]snapshot.Extent, error) {
	maps, err := s.readMaps(ctx, []snapshot.MapRef{m})
	if err != nil {
		return nil, err
	}
	return maps[0], nil
}

// CheckedMap decodes a map chunk and checks that it covers what its ref says.
func CheckedMap(plain []byte, m snapshot.MapRef) ([]snapshot.Extent, error) {
	extents, err := snapshot.DecodeMap(plain)
	if err != nil {
		return nil, err
	}
	var sum uint64
	for _, x := range extents {
		sum += x.Length
	}
	if sum != m.Length {
		return nil, fmt.Errorf("%w: a map covers %d bytes, its ref says %d", snapshot.ErrFormat, sum, m.Length)
	}
	return extents, nil
}

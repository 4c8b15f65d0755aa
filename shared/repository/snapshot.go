package repository

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sort"
	"sync"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ErrNoPath says that the snapshot has no entry of that path.
var ErrNoPath = errors.New("no such path in the snapshot")

// Snapshot reads one snapshot's content. It is safe for concurrent use.
type Snapshot struct {
	repo   *Repository
	stored *Stored
	chain  snapshot.ChainID
	keys   *seal.Keys
	packs  map[uint64]*pack

	rootOnce sync.Once
	root     *snapshot.RootTable
	rootErr  error
}

// pack is one pack of a snapshot with its key, derived when it is first used.
type pack struct {
	info snapshot.PackInfo
	key  string // of the object
	once sync.Once
	open *seal.Pack
}

// Snapshot opens a snapshot for reading: it unwraps the chain's data key and reads the pack lists.
// Errors: keyring.ErrNoIdentity, *DamageError.
func (r *Repository) Snapshot(ctx context.Context, m *Stored) (*Snapshot, error) {
	src := m.ID().Source
	chain, err := layout.ParseChain(m.Chain)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: chain: %w", m.ID(), err)
	}
	keys, err := r.unwrap(ctx, m.Manifest, chain)
	if err != nil {
		return nil, err
	}
	infos, err := r.Lists(ctx, m.Manifest)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{repo: r, stored: m, chain: chain, keys: keys, packs: make(map[uint64]*pack, len(infos))}
	for _, p := range infos {
		s.packs[p.Number] = &pack{info: p, key: layout.PackKey(src, chain, p.ID)}
	}
	return s, nil
}

// unwrap recovers the keys of m's chain with the repository's identity.
func (r *Repository) unwrap(ctx context.Context, m *snapshot.Manifest, chain snapshot.ChainID) (*seal.Keys, error) {
	key, err := r.unwrapKey(ctx, m, chain)
	if err != nil {
		return nil, err
	}
	return seal.NewKeys(key, seal.Context{Repository: r.id, Source: m.ID().Source, Chain: chain}), nil
}

func (r *Repository) unwrapKey(ctx context.Context, m *snapshot.Manifest, chain snapshot.ChainID) (seal.DataKey, error) {
	if len(m.Keys) == 0 {
		return seal.DataKey{}, fmt.Errorf("manifest %s: %w: it names no key", m.ID(), snapshot.ErrFormat)
	}
	context := seal.Context{Repository: r.id, Source: m.ID().Source, Chain: chain}
	key, err := keyring.UnwrapKey(ctx, r.identity, m.Keys[0], context)
	if err == nil {
		return key, nil
	}
	// A recipient that was added later is not in the manifest but has a key object.
	if later, lerr := r.keyObjects(ctx, m.ID().Source, m.Keys[0].Key); lerr == nil && len(later.Wrapped) > 0 {
		if key, lerr := keyring.UnwrapKey(ctx, r.identity, later, context); lerr == nil {
			return key, nil
		}
	}
	return seal.DataKey{}, fmt.Errorf("open the key of %s: %w", m.ID(), err)
}

// Manifest is the snapshot's manifest.
func (s *Snapshot) Manifest() *Stored { return s.stored }

// Keys are the keys of the snapshot's chain.
func (s *Snapshot) Keys() *seal.Keys { return s.keys }

// Pack describes the pack with this number, if the snapshot uses it.
func (s *Snapshot) Pack(number uint64) (snapshot.PackInfo, bool) {
	p, ok := s.packs[number]
	if !ok {
		return snapshot.PackInfo{}, false
	}
	return p.info, true
}

// Root reads the snapshot's table of roots and tree chunks.
func (s *Snapshot) Root(ctx context.Context) (*snapshot.RootTable, error) {
	s.rootOnce.Do(func() { s.root, s.rootErr = s.readRoot(ctx) })
	return s.root, s.rootErr
}

func (s *Snapshot) readRoot(ctx context.Context) (*snapshot.RootTable, error) {
	ref, err := s.stored.Root.Ref()
	if err != nil {
		return nil, fmt.Errorf("manifest %s: root: %w", s.stored.ID(), err)
	}
	plain, err := s.Chunk(ctx, snapshot.Root, ref)
	if err != nil {
		return nil, fmt.Errorf("read the root of %s: %w", s.stored.ID(), err)
	}
	root, err := snapshot.DecodeRoot(plain)
	if err != nil {
		return nil, fmt.Errorf("read the root of %s: %w", s.stored.ID(), err)
	}
	return root, nil
}

// Problems reads what the backup could not capture as it should.
func (s *Snapshot) Problems(ctx context.Context) ([]snapshot.Problem, error) {
	if s.stored.Report == nil {
		return nil, nil
	}
	ref, err := s.stored.Report.Ref()
	if err != nil {
		return nil, fmt.Errorf("manifest %s: report: %w", s.stored.ID(), err)
	}
	plain, err := s.Chunk(ctx, snapshot.Report, ref)
	if err != nil {
		return nil, fmt.Errorf("read the report of %s: %w", s.stored.ID(), err)
	}
	return snapshot.ParseReport(plain)
}

// treeAhead is how many tree chunks are read before they are needed.
const treeAhead = 4

// Entries yields the snapshot's entries in order, beginning with the first whose path is not before from.
// After an error it ends.
func (s *Snapshot) Entries(ctx context.Context, from string) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		root, err := s.Root(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		chunks := root.Chunks
		// The last chunk that begins at or before from may hold it.
		i := sort.Search(len(chunks), func(i int) bool { return snapshot.ComparePaths(chunks[i].First, from) > 0 })
		if i > 0 {
			chunks = chunks[i-1:]
		}
		s.yieldTrees(ctx, chunks, from, yield)
	}
}

// all yields all entries.
func (s *Snapshot) all(ctx context.Context) iter.Seq2[*snapshot.Entry, error] {
	return s.Entries(ctx, "")
}

// yieldTrees reads chunks, some at a time and ahead, and yields their entries from from on.
func (s *Snapshot) yieldTrees(ctx context.Context, chunks []snapshot.TreeChunk, from string, yield func(*snapshot.Entry, error) bool) {
	last := ""
	for len(chunks) > 0 {
		n := min(len(chunks), treeAhead)
		refs := make([]KindRef, n)
		for i, c := range chunks[:n] {
			refs[i] = KindRef{Kind: snapshot.Tree, Ref: c.Ref}
		}
		trees := make([][]*snapshot.Entry, n)
		err := s.Chunks(ctx, refs, func(i int, plain []byte, err error) error {
			if err != nil {
				return fmt.Errorf("read the tree of %s from %q: %w", s.stored.ID(), chunks[i].First, err)
			}
			trees[i], err = decodeTree(plain, chunks[i].First)
			if err != nil {
				return fmt.Errorf("read the tree of %s from %q: %w", s.stored.ID(), chunks[i].First, err)
			}
			return nil
		})
		if err != nil {
			yield(nil, err)
			return
		}
		for _, tree := range trees {
			for _, e := range tree {
				if last != "" && snapshot.ComparePaths(last, e.Path) >= 0 {
					yield(nil, fmt.Errorf("read the tree of %s: %w: %q stands after %q", s.stored.ID(), snapshot.ErrFormat, e.Path, last))
					return
				}
				last = e.Path
				if snapshot.ComparePaths(e.Path, from) >= 0 && !yield(e, nil) {
					return
				}
			}
		}
		chunks = chunks[n:]
	}
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
	for e, err := range s.Entries(ctx, path) {
		if err != nil {
			return nil, err
		}
		if e.Path == path {
			return e, nil
		}
		break
	}
	return nil, fmt.Errorf("%w: %q in %s", ErrNoPath, path, s.stored.ID())
}

// Extents calls fn with the extents of e's content in order, reading its maps where it has any.
func (s *Snapshot) Extents(ctx context.Context, e *snapshot.Entry, fn func(snapshot.Extent) error) error {
	for _, x := range e.Extents {
		if err := fn(x); err != nil {
			return err
		}
	}
	for _, m := range e.Maps {
		extents, err := s.Map(ctx, m)
		if err != nil {
			return fmt.Errorf("read the map of %q: %w", e.Path, err)
		}
		for _, x := range extents {
			if err := fn(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// Map reads one map chunk and checks that it covers what its ref says.
func (s *Snapshot) Map(ctx context.Context, m snapshot.MapRef) ([]snapshot.Extent, error) {
	plain, err := s.Chunk(ctx, snapshot.Map, m.Ref)
	if err != nil {
		return nil, err
	}
	return CheckedMap(plain, m)
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

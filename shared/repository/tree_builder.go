package repository

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"slices"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// A tree chunk is cut after an entry whose path hashes to zero modulo treeModulus, once it has treeMin bytes; so
	// an edit changes only the chunk that it falls into.
	treeMin     = 16 << 10
	treeMax     = 256 << 10
	treeModulus = 128

	maxMapRef = 128 // bytes that a map usually takes in an entry, at most
)

// treeBuilder cuts the sequence of entries into tree chunks.
type treeBuilder struct {
	store func(ctx context.Context, kind snapshot.Kind, plain []byte) (snapshot.Ref, error)
	cache *parentWriter
	live  *bitset // packs that the tree needs
	alive *liveness

	buf         []byte
	first, last string
	chunks      []snapshot.TreeChunk
}

func (t *treeBuilder) emit(ctx context.Context, e *snapshot.Entry) error {
	if t.last != "" && snapshot.ComparePaths(t.last, e.Path) >= 0 {
		return fmt.Errorf("entry %q comes after %q", e.Path, t.last)
	}
	if err := e.Check(); err != nil {
		return err // it would be written, and every reader would refuse it
	}
	if len(e.Maps)*maxMapRef > treeMax {
		// A long entry gets a chunk of its own, which can be as long as chunks can.
		if err := t.cut(ctx); err != nil {
			return err
		}
	}
	prev := t.last
	if len(t.buf) == 0 {
		prev, t.first = "", e.Path
	}
	t.buf = snapshot.AppendEntry(t.buf, prev, e)
	t.last = e.Path
	e.Packs(t.live.setRange)
	t.alive.entry(e)
	if len(t.buf) >= treeMax || len(t.buf) >= treeMin && pathHash(e.Path)%treeModulus == 0 {
		return t.cut(ctx)
	}
	return nil
}

// pathHash decides where tree chunks end. Readers do not care, and what the cuts tell is hidden: chunk lengths are only
// visible to who has the key.
func pathHash(path string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(path))
	v := h.Sum32()
	return v ^ v>>15
}

func (t *treeBuilder) cut(ctx context.Context) error {
	if len(t.buf) == 0 {
		return nil
	}
	if len(t.buf) > snapshot.MaxChunk {
		return fmt.Errorf("the entry of %q takes %d bytes, more than a chunk holds", t.last, len(t.buf))
	}
	ref, err := t.store(ctx, snapshot.Tree, t.buf)
	if err != nil {
		return err
	}
	t.cache.chunk(t.buf)
	t.live.set(ref.Pack)
	t.chunks = append(t.chunks, snapshot.TreeChunk{First: t.first, Ref: ref})
	t.buf = t.buf[:0]
	return nil
}

// finish stores the last tree chunk and the root, and returns the root's ref and plain bytes.
func (t *treeBuilder) finish(ctx context.Context, roots []string) (snapshot.Ref, []byte, error) {
	if err := t.cut(ctx); err != nil {
		return snapshot.Ref{}, nil, err
	}
	plain := snapshot.EncodeRoot(&snapshot.RootTable{Roots: roots, Chunks: t.chunks})
	if len(plain) > snapshot.MaxChunk {
		return snapshot.Ref{}, nil, errors.New("the table of tree chunks is larger than a chunk: split the source")
	}
	ref, err := t.store(ctx, snapshot.Root, plain)
	if err != nil {
		return ref, nil, err
	}
	t.live.set(ref.Pack)
	return ref, plain, nil
}

func (t *treeBuilder) discard() {
	if t.cache != nil {
		t.cache.discard()
	}
}

// bitset is a set of pack numbers.
type bitset struct{ words []uint64 }

func (b *bitset) set(n uint64) {
	i := n / 64
	for uint64(len(b.words)) <= i {
		b.words = append(b.words, 0)
	}
	b.words[i] |= 1 << (n % 64)
}

func (b *bitset) setRange(r snapshot.Range) {
	for n := r.First; n <= r.Last; n++ {
		b.set(n)
	}
}

func (b *bitset) has(n uint64) bool {
	i := n / 64
	return i < uint64(len(b.words)) && b.words[i]&(1<<(n%64)) != 0
}

// firstNotIn returns the first number of the set that none of the packs has.
func (b *bitset) firstNotIn(lists ...[]snapshot.PackInfo) (uint64, bool) {
	rest := bitset{words: slices.Clone(b.words)}
	for _, packs := range lists {
		for _, p := range packs {
			if rest.has(p.Number) {
				rest.words[p.Number/64] &^= 1 << (p.Number % 64)
			}
		}
	}
	for i, w := range rest.words {
		if w != 0 {
			return uint64(i)*64 + uint64(bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}

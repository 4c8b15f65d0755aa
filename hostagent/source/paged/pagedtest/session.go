// Package pagedtest has a session for tests of sources: it keeps snapshots in memory, and shares chunks and hashes of pages
// with the snapshot before, as those of a chain do.
package pagedtest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Session is the session of one snapshot. Its methods may be called from several goroutines, except Emit.
type Session struct {
	// Stored is called before a chunk is stored, with no lock held; an error fails it. May be nil.
	Stored func(kind snapshot.Kind, plain []byte) error
	// Forgetful sessions know no hashes of pages.
	Forgetful bool
	// Entries are those that were emitted.
	Entries []*snapshot.Entry

	parent   []*snapshot.Entry
	captured time.Time
	begun    time.Time
	chain    *chain

	mu    sync.Mutex
	added int // guarded by mu
}

// chain is what snapshots share.
type chain struct {
	mu     sync.Mutex
	chunks map[snapshot.Hash][]byte
	refs   map[snapshot.Hash]snapshot.Ref
	pages  map[string][]byte
	next   snapshot.Ref
}

// New returns the session of a first snapshot.
func New() *Session {
	return &Session{begun: time.Now(), chain: &chain{
		chunks: map[snapshot.Hash][]byte{}, refs: map[snapshot.Hash]snapshot.Ref{}, pages: map[string][]byte{},
		next: snapshot.Ref{Pack: 1, Offset: 40},
	}}
}

// Child returns the session of a snapshot that builds on this one, whose capture began when captured says; zero: when it
// really did.
func (s *Session) Child(captured time.Time) *Session {
	if captured.IsZero() {
		captured = s.begun
	}
	return &Session{begun: time.Now(), parent: s.Entries, captured: captured, chain: s.chain}
}

// Added is how many bytes of new chunks were stored.
func (s *Session) Added() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.added
}

// Parent yields the entries of the snapshot before.
func (s *Session) Parent(context.Context) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, e := range s.parent {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Captured is when the capture of the snapshot before began.
func (s *Session) Captured() time.Time { return s.captured }

// Gear is a table for the chunker.
func (s *Session) Gear() *[256]uint64 {
	var gear [256]uint64
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same for each test
	for i := range gear {
		gear[i] = r.Uint64()
	}
	return &gear
}

// FileID is a keyed hash.
func (s *Session) FileID(content []byte) snapshot.FileID {
	h := hmac.New(sha256.New, []byte("file id"))
	h.Write(content)
	return snapshot.FileID(h.Sum(nil)[:16])
}

// PageID is a keyed hash.
func (s *Session) PageID(content []byte) snapshot.FileID { return s.FileID(content) }

// Chunk stores a chunk unless it is there.
func (s *Session) Chunk(ctx context.Context, kind snapshot.Kind, plain []byte) (snapshot.Ref, error) {
	if err := ctx.Err(); err != nil {
		return snapshot.Ref{}, err
	}
	if s.Stored != nil {
		if err := s.Stored(kind, plain); err != nil {
			return snapshot.Ref{}, err
		}
	}
	id := snapshot.Hash(sha256.Sum256(append([]byte{byte(kind)}, plain...)))
	c := s.chain
	c.mu.Lock()
	defer c.mu.Unlock()
	if ref, ok := c.refs[id]; ok {
		return ref, nil
	}
	ref := c.next
	ref.ID, ref.Plain, ref.Sealed = id, uint32(len(plain)), uint32(len(plain)+17)
	if c.next.Offset += ref.Sealed; c.next.Offset > 4<<20 {
		c.next = snapshot.Ref{Pack: c.next.Pack + 1 + uint64(len(c.refs)%2), Offset: 40}
	}
	c.refs[id], c.chunks[id] = ref, bytes.Clone(plain)
	s.mu.Lock()
	s.added += len(plain)
	s.mu.Unlock()
	return ref, nil
}

func key(path string, region int, extents []snapshot.Extent) string {
	return fmt.Sprintf("%s %d %x", path, region, sha256.Sum256(snapshot.EncodeMap(extents)))
}

// Pages returns hashes that LearnPages was told, for these extents.
func (s *Session) Pages(path string, region int, extents []snapshot.Extent) ([]byte, bool) {
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	hashes, ok := s.chain.pages[key(path, region, extents)]
	return hashes, ok && !s.Forgetful
}

// LearnPages keeps hashes.
func (s *Session) LearnPages(path string, region int, extents []snapshot.Extent, hashes []byte) {
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	s.chain.pages[key(path, region, extents)] = bytes.Clone(hashes)
}

// ParentMap returns the extents of a map.
func (s *Session) ParentMap(_ context.Context, m snapshot.MapRef) ([]snapshot.Extent, error) {
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	return snapshot.DecodeMap(s.chain.chunks[m.Ref.ID])
}

// Emit adds an entry.
func (s *Session) Emit(_ context.Context, e *snapshot.Entry) error {
	if n := len(s.Entries); n > 0 && snapshot.ComparePaths(s.Entries[n-1].Path, e.Path) >= 0 {
		return fmt.Errorf("%q after %q", e.Path, s.Entries[n-1].Path)
	}
	if err := e.Check(); err != nil {
		return err
	}
	s.Entries = append(s.Entries, e)
	return nil
}

// Content returns what extents and maps stand for; an error if they do not fit.
func (s *Session) Content(extents []snapshot.Extent, maps []snapshot.MapRef) ([]byte, error) {
	all := slices.Clone(extents)
	for i, m := range maps {
		part, err := s.ParentMap(context.Background(), m)
		if err != nil {
			return nil, fmt.Errorf("map %d: %w", i, err)
		}
		if length, err := snapshot.CheckExtents(part); err != nil || length != m.Length {
			return nil, fmt.Errorf("map %d has %d bytes, want %d: %w", i, length, m.Length, err)
		}
		for _, x := range part {
			inside := func(r snapshot.Range) bool { return r.First <= x.Ref.Pack && x.Ref.Pack <= r.Last }
			if !x.Hole && !slices.ContainsFunc(m.Packs, inside) {
				return nil, fmt.Errorf("map %d: pack %d is not in %v", i, x.Ref.Pack, m.Packs)
			}
		}
		all = append(all, part...)
	}
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	var out []byte
	for _, x := range all {
		if x.Hole {
			out = append(out, make([]byte, x.Length)...)
			continue
		}
		out = append(out, s.chain.chunks[x.Ref.ID][x.Offset:][:x.Length]...)
	}
	return out, nil
}

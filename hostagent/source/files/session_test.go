package files

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
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// fakeSession keeps a snapshot in memory. Chunks are shared with its parent, as in a chain.
type fakeSession struct {
	parent   []*snapshot.Entry
	captured time.Time
	fault    error // ends the parent after its entries
	stored   func(kind snapshot.Kind, plain []byte) error

	gear *[256]uint64

	mu      sync.Mutex
	chunks  map[snapshot.Hash][]byte
	refs    map[snapshot.Hash]snapshot.Ref
	known   map[snapshot.FileID][]snapshot.Extent
	pages   map[string][]byte
	next    snapshot.Ref
	added   int // bytes of new chunks
	entries []*snapshot.Entry
}

func newSession() *fakeSession {
	s := &fakeSession{
		gear:   new([256]uint64),
		chunks: map[snapshot.Hash][]byte{}, refs: map[snapshot.Hash]snapshot.Ref{}, known: map[snapshot.FileID][]snapshot.Extent{},
		pages: map[string][]byte{},
		next:  snapshot.Ref{Pack: 1, Offset: 40},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range s.gear {
		s.gear[i] = rng.Uint64()
	}
	return s
}

// child returns the session of a snapshot that builds on this one.
func (s *fakeSession) child(captured time.Time) *fakeSession {
	return &fakeSession{
		parent: s.entries, captured: captured, gear: s.gear,
		chunks: s.chunks, refs: s.refs, known: s.known, pages: s.pages, next: s.next,
	}
}

func pagesKey(path string, region int, extents []snapshot.Extent) string {
	return fmt.Sprintf("%s %d %x", path, region, snapshot.EncodeMap(extents))
}

func (s *fakeSession) Pages(path string, region int, extents []snapshot.Extent) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hashes, ok := s.pages[pagesKey(path, region, extents)]
	return hashes, ok
}

func (s *fakeSession) LearnPages(path string, region int, extents []snapshot.Extent, hashes []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[pagesKey(path, region, extents)] = hashes
}

func (s *fakeSession) ParentMap(_ context.Context, m snapshot.MapRef) ([]snapshot.Extent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot.DecodeMap(s.chunks[m.Ref.ID])
}

func (s *fakeSession) Parent(ctx context.Context) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, e := range s.parent {
			if ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		if s.fault != nil {
			yield(nil, s.fault)
		}
	}
}

func (s *fakeSession) Captured() time.Time { return s.captured }
func (s *fakeSession) Gear() *[256]uint64  { return s.gear }

func (s *fakeSession) FileID(content []byte) snapshot.FileID {
	h := hmac.New(sha256.New, []byte("file id"))
	h.Write(content)
	return snapshot.FileID(h.Sum(nil)[:16])
}

func (s *fakeSession) PageID(content []byte) snapshot.FileID { return s.FileID(content) }

func (s *fakeSession) Chunk(ctx context.Context, kind snapshot.Kind, plain []byte) (snapshot.Ref, error) {
	if err := ctx.Err(); err != nil {
		return snapshot.Ref{}, err
	}
	if s.stored != nil {
		if err := s.stored(kind, plain); err != nil {
			return snapshot.Ref{}, err
		}
	}
	id := snapshot.Hash(sha256.Sum256(append([]byte{byte(kind)}, plain...)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if ref, ok := s.refs[id]; ok {
		return ref, nil
	}
	ref := s.next
	ref.ID, ref.Plain, ref.Sealed = id, uint32(len(plain)), uint32(len(plain)+17)
	if s.next.Offset += ref.Sealed; s.next.Offset > 4<<20 {
		s.next = snapshot.Ref{Pack: s.next.Pack + 1 + uint64(len(s.refs)%2), Offset: 40}
	}
	s.refs[id], s.chunks[id] = ref, bytes.Clone(plain)
	s.added += len(plain)
	return ref, nil
}

func (s *fakeSession) KnownFile(id snapshot.FileID, _ uint64) ([]snapshot.Extent, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.known[id]
	return x, ok
}

func (s *fakeSession) LearnFile(id snapshot.FileID, _ uint64, extents []snapshot.Extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[id] = extents
}

func (s *fakeSession) Emit(_ context.Context, e *snapshot.Entry) error {
	if n := len(s.entries); n > 0 && snapshot.ComparePaths(s.entries[n-1].Path, e.Path) >= 0 {
		return fmt.Errorf("%q after %q", e.Path, s.entries[n-1].Path)
	}
	if err := e.Check(); err != nil {
		return err
	}
	s.entries = append(s.entries, e)
	return nil
}

// extents returns an entry's extents, those of its maps included.
func (s *fakeSession) extents(t testing.TB, e *snapshot.Entry) []snapshot.Extent {
	t.Helper()
	all := slices.Clone(e.Extents)
	for _, m := range e.Maps {
		extents, err := snapshot.DecodeMap(s.chunks[m.Ref.ID])
		if err != nil {
			t.Fatal(err)
		}
		length, err := snapshot.CheckExtents(extents)
		if err != nil || length != m.Length {
			t.Fatalf("%q: map of %d bytes, want %d: %v", e.Path, length, m.Length, err)
		}
		for _, x := range extents {
			inside := func(r snapshot.Range) bool { return r.First <= x.Ref.Pack && x.Ref.Pack <= r.Last }
			if !x.Hole && !slices.ContainsFunc(m.Packs, inside) {
				t.Fatalf("%q: pack %d is not in the map's %v", e.Path, x.Ref.Pack, m.Packs)
			}
		}
		all = append(all, extents...)
	}
	return all
}

// content returns a captured file.
func (s *fakeSession) content(t testing.TB, e *snapshot.Entry) []byte {
	t.Helper()
	var out []byte
	for _, x := range s.extents(t, e) {
		if x.Hole {
			out = append(out, make([]byte, x.Length)...)
			continue
		}
		out = append(out, s.chunks[x.Ref.ID][x.Offset:][:x.Length]...)
	}
	return out
}

func (s *fakeSession) entry(t testing.TB, path string) *snapshot.Entry {
	t.Helper()
	for _, e := range s.entries {
		if e.Path == path {
			return e
		}
	}
	t.Fatalf("%q was not captured", path)
	return nil
}

func (s *fakeSession) paths() []string {
	var out []string
	for _, e := range s.entries {
		out = append(out, e.Path)
	}
	return out
}

// counter is a Progress that adds up.
type counter struct {
	mu                     sync.Mutex
	files, bytes, readByte uint64
}

func (c *counter) Add(files, bytes, readBytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files += files
	c.bytes += bytes
	c.readByte += readBytes
}

func (c *counter) Current(string) {}

// capture captures with success.
func captured(t testing.TB, s *fakeSession, o Options) *Result {
	t.Helper()
	return captureSystem(t, s, o, realSystem())
}

func captureSystem(t testing.TB, s *fakeSession, o Options, sys *system) *Result {
	t.Helper()
	var c counter
	r, err := captureWith(t.Context(), o, s, &c, sys)
	if err != nil {
		t.Fatal(err)
	}
	if c.files != r.Counts.Files || c.bytes < r.Counts.Bytes || c.readByte < r.Counts.ReadBytes {
		t.Errorf("progress saw %d files, %d bytes, %d read; the result has %d, %d, %d",
			c.files, c.bytes, c.readByte, r.Counts.Files, r.Counts.Bytes, r.Counts.ReadBytes)
	}
	return r
}

package repository

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var errClosed = errors.New("the backup is finished already")

// Session writes one snapshot. Chunk, KnownFile and LearnFile are safe for concurrent use; Parent and Emit belong to
// one goroutine each. End with Commit or Close; Close after Commit does nothing.
//
// Until Commit has put the manifest nothing that a session stored is visible; after a crash the next session of the
// same source finds the packs in its journal and uses them again.
type Session struct {
	repo    *Repository
	src     snapshot.Source
	options BeginOptions
	state   *state

	plan    plan
	marked  time.Time // when this run, or what came after its last unfinished snapshot, began; with a monotonic reading
	keys    *seal.Keys
	gear    *[256]uint64
	refs    *refset
	maps    *mapCache
	pages   *pageCache
	packs   *packWriter
	journal *journal
	tree    *treeBuilder
	damaged map[uint64]bool // packs that failed a check, or are gone: nothing of them is used again

	mu      sync.Mutex
	written []storedPack // packs of this run that the newest manifest does not need, and those of the interrupted one; guarded by mu
	named   []storedPack // packs of this run that its last unfinished snapshot needs; guarded by mu

	started      time.Time
	checked      time.Time       // when the last unfinished snapshot was begun, or the run
	checkedBytes uint64          // of addedBytes at that time
	counts       snapshot.Counts // of the entries so far

	addedBytes  atomic.Uint64
	resumed     int
	resumedSize uint64
	done        bool
}

// storedPack is a pack that the store has, and since when at least.
type storedPack struct {
	snapshot.PackInfo
	at time.Time
}

// BeginOptions says what to write.
type BeginOptions struct {
	Source snapshot.Source
	Kind   string                // of the source: "files"
	Type   snapshot.SnapshotType // empty: incremental where possible, else full
	State  string                // directory of the host's state; made if missing
	Tool   string                // "holdfast 1.2.3"
	Now    func() time.Time

	Checkpoint Checkpoint
}

// Resumed is how many packs, and bytes, of an interrupted run this one found again.
func (s *Session) Resumed() (packs int, size uint64) { return s.resumed, s.resumedSize }

// Type is what the snapshot will be, and why, if that differs from what was asked for.
func (s *Session) Type() (t snapshot.SnapshotType, why string) { return s.plan.kind, s.plan.why }

// Sequence is the number that the snapshot will have; it grows with each unfinished snapshot on the way.
func (s *Session) Sequence() uint64 { return s.plan.next }

// Warnings are what was found in the repository and does not keep the backup from going on, such as a rollback.
func (s *Session) Warnings() []error { return s.plan.warnings }

// Captured is when the parent's capture began, by this host's clock; zero without a parent.
func (s *Session) Captured() time.Time {
	if s.plan.parent == nil || s.plan.reread {
		return time.Time{}
	}
	return s.plan.parent.stored.Started
}

// Parent yields the parent's entries in order, and nothing where there is no parent. Entries whose content lies in
// damaged packs are left out, so that they are stored again.
func (s *Session) Parent(ctx context.Context) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		if s.plan.parent == nil || s.plan.reread {
			return
		}
		for e, err := range s.plan.parent.entries(ctx) {
			if err == nil && len(s.damaged) > 0 && s.isDamaged(e) {
				continue
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (s *Session) isDamaged(e *snapshot.Entry) bool {
	bad := false
	e.Packs(func(r snapshot.Range) {
		for n := range s.damaged {
			bad = bad || r.First <= n && n <= r.Last
		}
	})
	return bad
}

// ParentMap reads a map of the parent from the state directory, or from the repository where that is allowed.
func (s *Session) ParentMap(ctx context.Context, m snapshot.MapRef) ([]snapshot.Extent, error) {
	if plain, ok := s.maps.get(m.Ref.ID); ok {
		if s.keys.ChunkID(snapshot.Map, plain) == m.Ref.ID {
			return CheckedMap(plain, m)
		}
		s.maps.forget(m.Ref.ID)
	}
	reader, err := s.plan.reader(ctx)
	if err != nil {
		return nil, err
	}
	return reader.Map(ctx, m)
}

// Gear is the chain's keyed table for the chunker.
func (s *Session) Gear() *[256]uint64 { return s.gear }

// FileID is the keyed hash of a whole file.
func (s *Session) FileID(content []byte) snapshot.FileID { return s.keys.FileID(content) }

// PageID is the keyed hash of a page of a database, as LearnPages and Pages have it.
func (s *Session) PageID(content []byte) snapshot.FileID { return s.keys.PageID(content) }

// KnownFile returns the extents of a small file whose content is stored already.
func (s *Session) KnownFile(id snapshot.FileID, size uint64) ([]snapshot.Extent, bool) {
	return s.refs.file(id, size)
}

// LearnFile notes where the content of a small file was stored.
func (s *Session) LearnFile(id snapshot.FileID, size uint64, extents []snapshot.Extent) {
	s.refs.learn(id, size, extents)
}

// Chunk stores plain unless it is stored already, and returns where it is. It compresses in the caller's goroutine and
// blocks while uploads lag. What it returns is durable only when Commit has succeeded.
func (s *Session) Chunk(ctx context.Context, kind snapshot.Kind, plain []byte) (snapshot.Ref, error) {
	if err := ctx.Err(); err != nil {
		return snapshot.Ref{}, err
	}
	if len(plain) == 0 || len(plain) > snapshot.MaxChunk {
		return snapshot.Ref{}, fmt.Errorf("chunk of %d bytes: from 1 to %d are possible", len(plain), snapshot.MaxChunk)
	}
	id := s.keys.ChunkID(kind, plain)
	if kind == snapshot.Map {
		s.maps.put(id, plain) // also one that an interrupted run stored, or whose copy here was damaged
	}
	ref, ok, err := s.refs.find(kind, id)
	// A run that takes up what another has stored stores at least its root itself: so its list is a new object, the arrival of
	// which tells the store's time, see checkAge.
	own := kind == snapshot.Root && s.resumed > 0
	if err != nil || ok && !own {
		return ref, err
	}
	buf := s.repo.buffers.get(0)
	defer s.repo.buffers.put(buf)
	*buf = s.repo.codec.Compress((*buf)[:0], plain)
	ref, err = s.packs.add(kind, id, *buf, len(plain))
	if err != nil {
		return ref, err
	}
	s.addedBytes.Add(uint64(ref.Sealed))
	s.refs.add(KindRef{Kind: kind, Ref: ref})
	return ref, nil
}

// Added is how many bytes this run has sealed so far.
func (s *Session) Added() uint64 { return s.addedBytes.Load() }

// Emit adds the next entry to the tree; entries come in the order of snapshot.ComparePaths. From time to time it commits
// what there is as an unfinished snapshot: see [Checkpoint].
func (s *Session) Emit(ctx context.Context, e *snapshot.Entry) error {
	if err := s.tree.emit(ctx, e); err != nil {
		return err
	}
	countEntry(&s.counts, e)
	if !s.checkpointDue() {
		return nil
	}
	return s.checkpoint(ctx, e)
}

// packStored is called for each pack that the store has acknowledged.
func (s *Session) packStored(p writtenPack) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = append(s.written, storedPack{PackInfo: p.PackInfo, at: s.options.Now()})
	return s.journal.pack(p)
}

// Close gives the session up, if it was not committed, and its lock. What it stored waits for the next session.
func (s *Session) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	// Packs that are being filled are closed as well: the next run finds them.
	err := s.packs.flush()
	s.tree.discard()
	return errors.Join(ignoreCanceled(err), s.journal.close(), s.maps.close(), s.pages.close(), s.state.close())
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, errClosed) {
		return nil
	}
	return err
}

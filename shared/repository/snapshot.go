package repository

import (
	"context"
	"errors"
	"fmt"
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

	readers *readers
	looked  treeMemo

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
	s := &Snapshot{repo: r, stored: m, chain: chain, keys: keys, packs: make(map[uint64]*pack, len(infos)), readers: newReaders()}
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

// Counts are the manifest's: what its backup saw and did.
func (s *Snapshot) Counts() snapshot.Counts { return s.stored.Counts }

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

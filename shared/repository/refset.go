package repository

import (
	"context"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// refset knows which chunks are stored already: those of the parent, those that an interrupted run left and those of
// this run. It is safe for concurrent use.
//
// The parent's content is looked at when it is first asked for: a run that finds nothing changed never pays for it.
//
// BUG: once something has changed it is all in memory, some 90 bytes for each chunk and 77 for each small file of the parent.
type refset struct {
	load func(add func(KindRef), learn func(snapshot.FileID, uint64, []snapshot.Extent)) error

	once    sync.Once
	loadErr error

	mu    sync.RWMutex
	refs  map[chunkKey]compactRef
	files map[fileKey]compactExtent
}

// chunkKey is half of a chunk id: enough to find a candidate, whose whole id is not kept (the id is a keyed hash that
// nobody outside can steer, and 2^64 chunks are needed before two of them meet by chance).
type chunkKey [16]byte

type compactRef struct {
	rest                  [16]byte // the other half of the chunk id
	pack                  uint64
	offset, sealed, plain uint32
	kind                  snapshot.Kind
}

type fileKey struct {
	id   snapshot.FileID
	size uint64
}

// compactExtent is the one extent of a small file.
type compactExtent struct {
	chunk  chunkKey
	offset uint32
}

func newRefset() *refset {
	return &refset{refs: map[chunkKey]compactRef{}, files: map[fileKey]compactExtent{}}
}

func keyOf(id snapshot.Hash) chunkKey { return chunkKey(id[:16]) }

func (s *refset) add(k KindRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(k)
}

func (s *refset) put(k KindRef) {
	if _, ok := s.refs[keyOf(k.ID)]; ok {
		return
	}
	s.refs[keyOf(k.ID)] = compactRef{rest: [16]byte(k.ID[16:]), pack: k.Pack, offset: k.Offset, sealed: k.Sealed, plain: k.Plain, kind: k.Kind}
}

// find returns where a chunk is stored. For content it looks at the parent too.
func (s *refset) find(kind snapshot.Kind, id snapshot.Hash) (snapshot.Ref, bool, error) {
	if ref, ok := s.lookup(kind, id); ok {
		return ref, true, nil
	}
	if kind != snapshot.Content && kind != snapshot.Map {
		return snapshot.Ref{}, false, nil
	}
	if err := s.loadParent(); err != nil {
		return snapshot.Ref{}, false, err
	}
	ref, ok := s.lookup(kind, id)
	return ref, ok, nil
}

func (s *refset) lookup(kind snapshot.Kind, id snapshot.Hash) (snapshot.Ref, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, ok := s.refs[keyOf(id)]
	if !ok || c.kind != kind || c.rest != [16]byte(id[16:]) {
		return snapshot.Ref{}, false
	}
	return snapshot.Ref{Pack: c.pack, Offset: c.offset, Sealed: c.sealed, Plain: c.plain, ID: id}, true
}

func (s *refset) loadParent() error {
	s.once.Do(func() {
		if s.load != nil {
			s.loadErr = s.load(s.add, s.learn)
		}
	})
	return s.loadErr
}

func (s *refset) learn(id snapshot.FileID, size uint64, extents []snapshot.Extent) {
	if len(extents) != 1 || extents[0].Hole || extents[0].Length != size {
		return
	}
	x := extents[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(KindRef{Kind: snapshot.Content, Ref: x.Ref})
	s.files[fileKey{id: id, size: size}] = compactExtent{chunk: keyOf(x.Ref.ID), offset: x.Offset}
}

// file returns the extents of a small file whose content is stored already.
func (s *refset) file(id snapshot.FileID, size uint64) ([]snapshot.Extent, bool) {
	if s.loadParent() != nil {
		return nil, false // the next Chunk call reports it
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	f, ok := s.files[fileKey{id: id, size: size}]
	if !ok {
		return nil, false
	}
	c, ok := s.refs[f.chunk]
	if !ok || c.kind != snapshot.Content {
		return nil, false
	}
	var hash snapshot.Hash
	copy(hash[:16], f.chunk[:])
	copy(hash[16:], c.rest[:])
	ref := snapshot.Ref{Pack: c.pack, Offset: c.offset, Sealed: c.sealed, Plain: c.plain, ID: hash}
	return []snapshot.Extent{{Ref: ref, Offset: f.offset, Length: size}}, true
}

// loadFrom fills the set with what the parent's entries name. Maps are read by readMap; one that can't be read costs
// only repeated storage of its chunks.
func loadFrom(ctx context.Context, p *parent, readMap func(snapshot.MapRef) ([]snapshot.Extent, error), add func(KindRef), learn func(snapshot.FileID, uint64, []snapshot.Extent)) error {
	for e, err := range p.entries(ctx) {
		if err != nil {
			return err
		}
		if e.HasFileID {
			learn(e.FileID, e.Size, e.Extents)
		}
		for _, x := range e.Extents {
			if !x.Hole {
				add(KindRef{Kind: snapshot.Content, Ref: x.Ref})
			}
		}
		for _, m := range e.Maps {
			add(KindRef{Kind: snapshot.Map, Ref: m.Ref})
			extents, err := readMap(m)
			if err != nil {
				continue
			}
			for _, x := range extents {
				if !x.Hole {
					add(KindRef{Kind: snapshot.Content, Ref: x.Ref})
				}
			}
		}
	}
	return nil
}

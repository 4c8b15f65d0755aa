package repository

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// refset knows which chunks are stored already: those of the parent, those that an interrupted run left and those of
// this run. It is safe for concurrent use.
//
// The parent's content is looked at when it is first asked for: a run that finds nothing changed never pays for it. All
// of it is in tables on disk (see [diskTable]), with the whole id of each chunk: one that only resembles another is not
// taken for it. What is lost or damaged there counts as not stored, and is stored again.
type refset struct {
	load func(add func(KindRef), learn func(snapshot.FileID, uint64, []snapshot.Extent)) error

	once    sync.Once
	loaded  atomic.Bool
	loadErr error

	chunks *diskTable
	files  *diskTable

	mu   sync.Mutex
	last lastChunk // guarded by mu
}

// lastChunk is the chunk that was added last: the small files in it follow each other.
type lastChunk struct {
	kind snapshot.Kind
	id   snapshot.Hash
	at   diskAt
	ok   bool
}

// Records of refset's tables. A chunk: kind, id (32); pack number, offset, sealed length, plain length (u32 BE each). A
// small file: file id (16), size (u32 BE); the place of its chunk's record (u16, u32 BE), offset in the chunk (u32 BE).
const (
	chunkKeySize    = 1 + 32
	chunkRecordSize = chunkKeySize + 4*4
	fileKeySize     = 16 + 4
	fileRecordSize  = fileKeySize + 2 + 4 + 4
)

func newRefset(s *state) *refset {
	return &refset{
		chunks: s.table("chunks", chunkKeySize, chunkRecordSize),
		files:  s.table("files", fileKeySize, fileRecordSize),
	}
}

// hashOf is the beginning of an id, which is a keyed hash.
func hashOf[T snapshot.Hash | snapshot.FileID | [16]byte](id T) uint32 {
	return uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])
}

func chunkRecord(kind snapshot.Kind, id snapshot.Hash) (record [chunkRecordSize]byte) {
	record[0] = byte(kind)
	copy(record[1:], id[:])
	return record
}

func decodeChunk(record *[chunkRecordSize]byte) KindRef {
	at := record[chunkKeySize:]
	return KindRef{Kind: snapshot.Kind(record[0]), Ref: snapshot.Ref{
		ID:     snapshot.Hash(record[1:chunkKeySize]),
		Pack:   uint64(binary.BigEndian.Uint32(at)),
		Offset: binary.BigEndian.Uint32(at[4:]), Sealed: binary.BigEndian.Uint32(at[8:]), Plain: binary.BigEndian.Uint32(at[12:]),
	}}
}

func (s *refset) add(k KindRef) { s.place(k) }

// place adds a chunk, if it is not there, and returns where it is in the table.
func (s *refset) place(k KindRef) (diskAt, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.ok && s.last.kind == k.Kind && s.last.id == k.ID {
		return s.last.at, true
	}
	record := chunkRecord(k.Kind, k.ID)
	at := record[chunkKeySize:]
	binary.BigEndian.PutUint32(at, uint32(k.Pack))
	binary.BigEndian.PutUint32(at[4:], k.Offset)
	binary.BigEndian.PutUint32(at[8:], k.Sealed)
	binary.BigEndian.PutUint32(at[12:], k.Plain)
	where, _, ok := s.chunks.putNew(hashOf(k.ID), record[:])
	s.last = lastChunk{kind: k.Kind, id: k.ID, at: where, ok: ok}
	return where, ok
}

// find returns where a chunk is stored. For content it looks at the parent too.
func (s *refset) find(kind snapshot.Kind, id snapshot.Hash) (snapshot.Ref, bool, error) {
	all := s.loaded.Load()
	ref, ok := s.lookup(kind, id)
	if ok || all || kind != snapshot.Content && kind != snapshot.Map {
		return ref, ok, nil
	}
	if err := s.loadParent(); err != nil {
		return snapshot.Ref{}, false, err
	}
	ref, ok = s.lookup(kind, id)
	return ref, ok, nil
}

func (s *refset) lookup(kind snapshot.Kind, id snapshot.Hash) (snapshot.Ref, bool) {
	record := chunkRecord(kind, id)
	if _, ok := s.chunks.find(hashOf(id), record[:]); !ok {
		return snapshot.Ref{}, false
	}
	return decodeChunk(&record).Ref, true
}

func (s *refset) loadParent() error {
	s.once.Do(func() {
		if s.load != nil {
			s.loadErr = s.load(s.add, s.learn)
		}
		s.loaded.Store(s.loadErr == nil)
	})
	return s.loadErr
}

func (s *refset) learn(id snapshot.FileID, size uint64, extents []snapshot.Extent) {
	if len(extents) != 1 || extents[0].Hole || extents[0].Length != size || size > math.MaxUint32 {
		return
	}
	x := extents[0]
	where, ok := s.place(KindRef{Kind: snapshot.Content, Ref: x.Ref})
	if !ok {
		return
	}
	record := fileKey(id, size)
	at := record[fileKeySize:]
	binary.BigEndian.PutUint16(at, where.part)
	binary.BigEndian.PutUint32(at[2:], where.number)
	binary.BigEndian.PutUint32(at[6:], x.Offset)
	s.files.put(hashOf(id), record[:]) // perhaps once more: to look would cost more than the record
}

func fileKey(id snapshot.FileID, size uint64) (record [fileRecordSize]byte) {
	copy(record[:], id[:])
	binary.BigEndian.PutUint32(record[16:], uint32(size))
	return record
}

// file returns the extents of a small file whose content is stored already.
func (s *refset) file(id snapshot.FileID, size uint64) ([]snapshot.Extent, bool) {
	if size > math.MaxUint32 || s.loadParent() != nil {
		return nil, false // the next Chunk call reports it
	}
	record := fileKey(id, size)
	if _, ok := s.files.find(hashOf(id), record[:]); !ok {
		return nil, false
	}
	at := record[fileKeySize:]
	var chunk [chunkRecordSize]byte
	if !s.chunks.at(diskAt{part: binary.BigEndian.Uint16(at), number: binary.BigEndian.Uint32(at[2:])}, chunk[:]) {
		return nil, false
	}
	k := decodeChunk(&chunk)
	return []snapshot.Extent{{Ref: k.Ref, Offset: binary.BigEndian.Uint32(at[6:]), Length: size}}, true
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

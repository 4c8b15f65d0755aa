package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// chunkEntry is what is kept of a chunk that was opened: 28 bytes, for each chunk of the chain once.
type chunkEntry struct {
	offset, sealed, plain uint32
	id                    [14]byte // the beginning of its id
	kind                  snapshot.Kind
	bad                   bool
}

func (e *chunkEntry) is(kind snapshot.Kind, ref *snapshot.Ref) bool {
	return e.kind == kind && e.sealed == ref.Sealed && e.plain == ref.Plain && e.id == [14]byte(ref.ID[:14])
}

// appender collects what is written to it.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// openPack is level content: the pack is read once, its bytes are compared with its name, each chunk is opened and its
// id computed again. What is wrong with single chunks is kept in the table, so that only the files in them are hit.
func (s *source) openPack(ctx context.Context, p *pack, b *buffer) {
	if need := int(p.Size) + 1; cap(b.pack) < need {
		b.pack = make([]byte, 0, need)
	}
	a := appender{b.pack[:0]}
	n, err := s.get(ctx, p, &a, b.copying[:])
	b.pack = a.b
	if !s.judge(ctx, p, sha256.Sum256(a.b), n, err) || p.chain.keys == nil {
		return
	}
	if n > int64(p.Size) {
		a.b = a.b[:p.Size]
	}
	opener := p.chain.keys.Pack(p.Salt)
	index, err := readIndex(opener, p, a.b)
	if err != nil {
		// Without its index the chunks of the pack are not known; those that a tree refers to are read singly.
		s.faultOf(p, err)
		return
	}
	p.table = make([]chunkEntry, 0, len(index))
	offset := uint32(snapshot.PackHeaderSize)
	for _, e := range index {
		entry := chunkEntry{offset: offset, sealed: e.Sealed, plain: e.Plain, id: [14]byte(e.ID[:14]), kind: e.Kind}
		plain, err := s.openChunk(opener, p, b, offset, e, a.b[offset:offset+e.Sealed])
		switch {
		case err != nil:
			entry.bad = true
			s.faultOf(p, fmt.Errorf("the chunk at byte %d: %w", offset, err))
		case e.Kind == snapshot.Map:
			p.chain.maps.add(p.chain, chunkAt{p.Number, offset}, plain)
		}
		p.table = append(p.table, entry)
		offset += e.Sealed
	}
	p.indexed = true
	s.chunks.Add(uint64(len(index)))
}

// faultOf notes that the inside of a pack is not in order.
func (s *source) faultOf(p *pack, err error) {
	problem := NotAuthentic
	if errors.Is(err, snapshot.ErrFormat) || errors.Is(err, seal.ErrEncoding) {
		problem = Malformed
	}
	s.fault(p, problem, err.Error())
}

var errSalt = errors.New("its salt is not the one in the list")

// readIndex opens the index at the end of a pack. It must describe exactly what lies between header and index.
func readIndex(opener *seal.Pack, p *pack, b []byte) ([]snapshot.IndexEntry, error) {
	if uint64(len(b)) != p.Size {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", snapshot.ErrFormat, len(b), p.Size)
	}
	salt, err := snapshot.ParsePackHeader(b)
	if err != nil {
		return nil, err
	}
	if salt != p.Salt {
		return nil, errSalt
	}
	at, length, err := snapshot.ParsePackFooter(b, p.Size)
	if err != nil {
		return nil, err
	}
	encoded, err := opener.Open(nil, at, snapshot.Index, snapshot.Hash{}, b[at:at+length])
	if err != nil {
		return nil, fmt.Errorf("the index: %w", err)
	}
	if encoded[0] != 0 {
		return nil, fmt.Errorf("the index: %w: it is not stored as it is", snapshot.ErrFormat)
	}
	index, err := snapshot.DecodeIndex(encoded[1:])
	if err != nil {
		return nil, err
	}
	end := uint64(snapshot.PackHeaderSize)
	for _, e := range index {
		end += uint64(e.Sealed)
	}
	if end != uint64(at) {
		return nil, fmt.Errorf("%w: the index describes %d bytes, there are %d", snapshot.ErrFormat, end, at)
	}
	return index, nil
}

var errChunkID = errors.New("its id does not match its content")

// openChunk opens one chunk; what it returns is valid until b is used again.
func (s *source) openChunk(opener *seal.Pack, p *pack, b *buffer, offset uint32, e snapshot.IndexEntry, sealed []byte) ([]byte, error) {
	encoded, err := opener.Open(sealed[:0], offset, e.Kind, e.ID, sealed) // in its place: it is not needed again
	if err != nil {
		return nil, err
	}
	plain, err := s.c.repo.Codec().Decompress(b.plain[:0], encoded, int(e.Plain))
	if err != nil {
		return nil, err
	}
	b.plain = plain
	if p.chain.keys.ChunkID(e.Kind, plain) != e.ID {
		return nil, errChunkID
	}
	return plain, nil
}

// readChunk reads and opens one chunk, to know whether it can be.
type readChunk func(repository.KindRef) error

// verdict is what a ref leads to.
type verdict struct {
	fault *place // it lies in something damaged
	wrong string // it leads to nothing that it could mean
}

func (v verdict) ok() bool { return v.fault == nil && v.wrong == "" }

// resolve says what a ref leads to, by what was found when the packs were read. read fetches a chunk whose pack has no
// usable index.
func (ch *chain) resolve(kind snapshot.Kind, ref *snapshot.Ref, read readChunk) verdict {
	p := ch.packs[ref.Pack]
	switch {
	case p == nil || !p.used:
		return verdict{wrong: fmt.Sprintf("pack %d is in no list", ref.Pack)}
	case p.lost:
		return verdict{fault: p.fault.Load()}
	case uint64(ref.Offset)+uint64(ref.Sealed) > p.Size-snapshot.PackFooterSize:
		return verdict{wrong: fmt.Sprintf("it leads past the end of pack %d", ref.Pack)}
	case ch.source.c.opts.Level != Content || !p.read:
		return verdict{fault: p.fault.Load()} // none, or all of the pack
	case !p.indexed:
		if read != nil && read(repository.KindRef{Kind: kind, Ref: *ref}) == nil {
			return verdict{}
		}
		return verdict{fault: p.fault.Load()}
	}
	i, ok := slices.BinarySearchFunc(p.table, ref.Offset, func(e chunkEntry, offset uint32) int {
		return compareNumbers(uint64(e.offset), uint64(offset))
	})
	switch {
	case !ok || !p.table[i].is(kind, ref):
		return verdict{wrong: fmt.Sprintf("at byte %d of pack %d is no such chunk", ref.Offset, ref.Pack)}
	case p.table[i].bad:
		return verdict{fault: p.fault.Load()}
	}
	return verdict{}
}

package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
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

// tailRead is how much is read from the end of a pack to find its index there.
const tailRead = 64 << 10

// openPack is level content: first the index at the pack's end, then the pack once from beginning to end: its bytes are
// compared with its name, each chunk is opened as it comes and its id computed again. What is wrong with single chunks is
// kept in the table, so that only the files in them are hit.
func (s *source) openPack(ctx context.Context, p *pack, b *buffer) {
	if p.chain.keys == nil {
		s.hashPack(ctx, p, b)
		return
	}
	opener := p.chain.keys.Pack(p.Salt)
	at, tail, index, indexErr := s.readIndex(ctx, opener, p)
	r := &packReader{hash: sha256.New(), limit: int64(p.Size) + 1}
	var table []chunkEntry
	fault, err := s.stream(ctx, p, r, func() error {
		if indexErr != nil {
			return indexErr
		}
		var fault error
		table, fault = s.openChunks(opener, p, b, r, index)
		if end, err := r.take(&b.pack, len(tail)); fault == nil && (err != nil || r.n != int64(at)+int64(len(tail)) || !bytes.Equal(end, tail)) {
			fault = errIndexChanged
		}
		return fault
	})
	if !s.judge(ctx, p, snapshot.Hash(r.hash.Sum(nil)), r.n, err) {
		return
	}
	if fault != nil {
		s.faultOf(p, fault)
	}
	if indexErr != nil {
		return // the chunks of the pack are not known; those that a tree refers to are read singly
	}
	p.table, p.indexed = table, true
	s.chunks.Add(uint64(len(index)))
	if r := s.c.opts.Resume; r != nil && p.fault.Load() == nil {
		r.keep(s.inv.PackKey(p.name()), s.inv.Packs[p.name()], table)
	}
}

var (
	errSalt         = errors.New("its salt is not the one in the list")
	errIndexChanged = errors.New("the index: it is another when it is read again")
)

// stream reads a pack through r: first what read takes of it, then the rest. It returns the error of read, and that of
// the store.
func (s *source) stream(ctx context.Context, p *pack, r *packReader, read func() error) (fault, err error) {
	body, err := s.c.repo.Store().Get(ctx, s.inv.PackKey(p.name()), 0, r.limit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	r.r = body
	fault = read()
	_, err = io.Copy(io.Discard, r)
	if err == nil && r.n > int64(p.Size) {
		err = errLong
	}
	return fault, err
}

// packReader hashes and counts what is read of a pack.
type packReader struct {
	r     io.Reader
	hash  hash.Hash
	n     int64
	limit int64
}

func (r *packReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.hash.Write(b[:n])
	r.n += int64(n)
	return n, err
}

// take reads the next n bytes into buf.
func (r *packReader) take(buf *[]byte, n int) ([]byte, error) {
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	_, err := io.ReadFull(r, (*buf)[:n])
	return (*buf)[:n], err
}

// openChunks opens the chunks that index describes as they come from r. It returns what is known of each, and the first
// fault.
func (s *source) openChunks(opener *seal.Pack, p *pack, b *buffer, r *packReader, index []snapshot.IndexEntry) (table []chunkEntry, fault error) {
	if _, err := r.take(&b.pack, snapshot.PackHeaderSize); err == nil {
		if salt, err := snapshot.ParsePackHeader(b.pack[:snapshot.PackHeaderSize]); err != nil {
			fault = err
		} else if salt != p.Salt {
			fault = errSalt
		}
	}
	table = make([]chunkEntry, 0, len(index))
	offset := uint32(snapshot.PackHeaderSize)
	for _, e := range index {
		entry := chunkEntry{offset: offset, sealed: e.Sealed, plain: e.Plain, id: [14]byte(e.ID[:14]), kind: e.Kind}
		sealed, err := r.take(&b.pack, int(e.Sealed))
		var plain []byte
		if err == nil && e.Kind == snapshot.Log {
			err = fmt.Errorf("%w: a chunk of kind %q is none of a pack", snapshot.ErrFormat, byte(e.Kind))
		}
		if err == nil {
			plain, err = s.openChunk(opener, p, b, offset, e, sealed)
		}
		switch {
		case err != nil:
			entry.bad = true
			if fault == nil {
				fault = fmt.Errorf("the chunk at byte %d: %w", offset, err)
			}
		case e.Kind == snapshot.Map:
			p.chain.maps.add(p.chain, chunkAt{p.Number, offset}, plain)
		}
		table = append(table, entry)
		offset += e.Sealed
	}
	return table, fault
}

// faultOf notes that the inside of a pack is not in order.
func (s *source) faultOf(p *pack, err error) {
	problem := NotAuthentic
	if errors.Is(err, snapshot.ErrFormat) || errors.Is(err, seal.ErrEncoding) {
		problem = Malformed
	}
	s.fault(p, problem, err.Error())
}

// readIndex reads and opens the index at the end of a pack, which must describe exactly what lies between header and
// index. It returns where the index begins, and the bytes from there to the pack's end.
func (s *source) readIndex(ctx context.Context, opener *seal.Pack, p *pack) (at uint32, tail []byte, index []snapshot.IndexEntry, err error) {
	tail, err = s.readTail(ctx, p, min(p.Size, tailRead))
	if err != nil {
		return 0, nil, nil, err
	}
	at, length, err := snapshot.ParsePackFooter(tail, p.Size)
	if err != nil {
		return 0, nil, nil, err
	}
	want := uint64(length) + snapshot.PackFooterSize
	if want > uint64(len(tail)) {
		if tail, err = s.readTail(ctx, p, want); err != nil {
			return 0, nil, nil, err
		}
	}
	tail = tail[uint64(len(tail))-want:]
	if index, err = openIndex(opener, at, tail[:length]); err != nil {
		return 0, nil, nil, err
	}
	return at, tail, index, nil
}

// readTail reads the last n bytes of a pack.
func (s *source) readTail(ctx context.Context, p *pack, n uint64) ([]byte, error) {
	r, err := s.c.repo.Store().Get(ctx, s.inv.PackKey(p.name()), int64(p.Size-n), int64(n))
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	tail := make([]byte, n)
	if _, err := io.ReadFull(r, tail); err != nil {
		return nil, fmt.Errorf("%w: it ends before its size", snapshot.ErrFormat)
	}
	return tail, nil
}

func openIndex(opener *seal.Pack, at uint32, sealed []byte) ([]snapshot.IndexEntry, error) {
	encoded, err := opener.Open(nil, at, snapshot.Index, snapshot.Hash{}, sealed)
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

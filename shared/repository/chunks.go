package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// spanMax is the most that is read from a pack in one request, in bytes.
	spanMax = 2 << 20
	// spanGap is how many unwanted bytes are read along rather than beginning another request.
	spanGap = 128 << 10
)

// KindRef is a ref and the kind of chunk that it must lead to.
type KindRef struct {
	Kind snapshot.Kind
	snapshot.Ref
	// Proven says that the caller proves all that it takes of the chunk by a keyed hash of its own, such as a file id: then
	// the chunk is authenticated, and its id, which is bound to it, is not computed again.
	Proven bool
}

// DamageError says that an object does not hold what it must.
type DamageError struct {
	Key    string // of the object
	Pack   uint64 // pack number, 0 if it is no pack
	Offset uint32 // of the chunk, bytes
	Err    error
}

func (e *DamageError) Error() string {
	if e.Pack == 0 {
		return fmt.Sprintf("%s is damaged: %v", e.Key, e.Err)
	}
	return fmt.Sprintf("%s is damaged at byte %d: %v", e.Key, e.Offset, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

var (
	errChunkID  = errors.New("the chunk's id does not match its content")
	errNoPack   = errors.New("the snapshot's lists have no such pack")
	errTooShort = errors.New("the object ends too early")
)

// Chunk reads one chunk, authenticates it and recomputes its id. Errors: *DamageError, those of the store.
func (s *Snapshot) Chunk(ctx context.Context, kind snapshot.Kind, ref snapshot.Ref) ([]byte, error) {
	var out []byte
	err := s.Chunks(ctx, []KindRef{{Kind: kind, Ref: ref}}, func(_ int, plain []byte, err error) error {
		out = slices.Clone(plain)
		return err
	})
	return out, err
}

// span is a run of one pack that is read in one request and the refs that lie in it.
type span struct {
	pack        *pack
	first, last uint32 // bytes [first, last)
	refs        []int  // indexes into the caller's refs, ascending by offset
}

// Chunks reads many chunks: it sorts them by pack and offset, joins neighbours, reads and opens several spans at a
// time and calls fn once for each ref, from several goroutines; refs[i] is what fn's i means. plain is valid only
// until fn returns. A chunk that is damaged or missing is given to fn as err; an error of fn, or of the store as a
// whole, ends the reading.
//
// All calls for one Snapshot share bounds of memory and work, but for those whose refs lie in one span: only such may be
// made by fn.
func (s *Snapshot) Chunks(ctx context.Context, refs []KindRef, fn func(i int, plain []byte, err error) error) error {
	spans, err := s.plan(refs, fn)
	if err != nil {
		return err
	}
	if len(spans) == 1 {
		return s.readSpan(ctx, spans[0], refs, nil, fn)
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, sp := range spans {
		weight := min(int64(sp.last-sp.first), readAhead)
		if s.readers.window.Acquire(gctx, weight) != nil {
			g.Go(gctx.Err) // ctx has ended, or one of the others failed before
			break
		}
		g.Go(func() error {
			defer s.readers.window.Release(weight)
			return s.readSpan(gctx, sp, refs, s.readers.open, fn)
		})
	}
	return g.Wait()
}

// plan groups refs into spans; refs that lead nowhere are answered at once.
func (s *Snapshot) plan(refs []KindRef, fn func(int, []byte, error) error) ([]*span, error) {
	order := make([]int, len(refs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if c := compare(refs[a].Pack, refs[b].Pack); c != 0 {
			return c
		}
		return int(int64(refs[a].Offset) - int64(refs[b].Offset))
	})
	var spans []*span
	var current *span
	for _, i := range order {
		ref := refs[i]
		p, ok := s.packs[ref.Pack]
		end := uint64(ref.Offset) + uint64(ref.Sealed)
		if !ok || end > p.info.Size || ref.Plain > snapshot.MaxChunk {
			if err := fn(i, nil, s.badRef(ref, p)); err != nil {
				return nil, err
			}
			continue
		}
		if current != nil && current.pack == p && ref.Offset <= current.last+spanGap && end-uint64(current.first) <= spanMax {
			current.last = max(current.last, uint32(end))
			current.refs = append(current.refs, i)
			continue
		}
		current = &span{pack: p, first: ref.Offset, last: uint32(end), refs: []int{i}}
		spans = append(spans, current)
	}
	return spans, nil
}

func (s *Snapshot) badRef(ref KindRef, p *pack) error {
	if p == nil {
		return &DamageError{Key: "pack " + fmt.Sprint(ref.Pack) + " of " + s.stored.ID().String(), Pack: ref.Pack, Offset: ref.Offset, Err: errNoPack}
	}
	return &DamageError{Key: p.key, Pack: ref.Pack, Offset: ref.Offset, Err: errors.New("the ref leads past the end of the pack")}
}

// longest is the plain length of the longest chunk of the span.
func (sp *span) longest(refs []KindRef) int {
	n := uint32(0)
	for _, i := range sp.refs {
		n = max(n, refs[i].Plain)
	}
	return int(n)
}

// readSpan fetches one span and opens its chunks in order, with one of tokens unless they are nil. A chunk that several
// refs name is opened once.
func (s *Snapshot) readSpan(ctx context.Context, sp *span, refs []KindRef, tokens chan struct{}, fn func(int, []byte, error) error) error {
	sealed := s.readers.memory.get(int(sp.last - sp.first))
	defer s.readers.memory.put(sealed)
	n, short, err := fetch(ctx, s.repo.store, sp.pack.key, sp.first, *sealed)
	if err != nil {
		return err
	}
	if tokens != nil {
		tokens <- struct{}{} // not for long: who has one waits for nobody
		defer func() { <-tokens }()
	}
	plain := s.readers.memory.get(sp.longest(refs))
	defer s.readers.memory.put(plain)
	sealer := sp.pack.sealer(s)
	var fault error
	elsewhere := map[int][]byte{}
	for k, i := range sp.refs {
		if err := ctx.Err(); err != nil {
			return err
		}
		ref := refs[i]
		if k == 0 || refs[sp.refs[k-1]] != ref {
			from, to := ref.Offset-sp.first, ref.Offset-sp.first+ref.Sealed
			if fault = short; int(to) <= n {
				*plain, fault = s.open(sealer, (*plain)[:0], ref, (*sealed)[from:to])
			}
			if fault != nil {
				*plain, fault = s.again(ctx, sp, elsewhere, *plain, ref, fault)
			}
		}
		var err error
		if fault != nil {
			err = fn(i, nil, &DamageError{Key: sp.pack.key, Pack: ref.Pack, Offset: ref.Offset, Err: fault})
		} else {
			err = fn(i, *plain, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch fills buf from offset of an object. It returns how much there was and why not more: an object that is missing
// or too short is damage of what lies in it, any other failure is one of the store.
func fetch(ctx context.Context, store objstore.Store, key string, offset uint32, buf []byte) (n int, short, err error) {
	r, err := store.Get(ctx, key, int64(offset), int64(len(buf)))
	if errors.Is(err, objstore.ErrNotExist) {
		return 0, objstore.ErrNotExist, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer func() { _ = r.Close() }()
	n, err = io.ReadFull(r, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return n, errTooShort, nil
	}
	if err != nil {
		return n, nil, fmt.Errorf("read %s: %w", key, err)
	}
	return n, nil, nil
}

// open authenticates, decompresses and checks one chunk; it appends the plain bytes to dst.
func (s *Snapshot) open(sealer *seal.Pack, dst []byte, ref KindRef, sealed []byte) ([]byte, error) {
	encoded, err := sealer.Open(sealed[:0], ref.Offset, ref.Kind, ref.ID, sealed)
	if err != nil {
		return dst, err
	}
	plain, err := s.repo.codec.Decompress(dst, encoded, int(ref.Plain))
	if err != nil {
		return dst, err
	}
	if !ref.Proven && s.keys.ChunkID(ref.Kind, plain) != ref.ID {
		return dst, errChunkID
	}
	return plain, nil
}

// sealer derives the pack's key when it is first needed.
func (p *pack) sealer(s *Snapshot) *seal.Pack {
	p.once.Do(func() { p.open = s.keys.Pack(p.info.Salt) })
	return p.open
}

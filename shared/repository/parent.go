package repository

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const parentMagic = "HFTREE01"

// parentWriter keeps the tree of the snapshot that is being written in the state directory, so that the next run
// needs no right to read packs. The file: magic, then each tree chunk (u32 BE length, plain bytes), then the root chunk
// in the same way and its length once more (u32 BE): it is read from its end.
//
// It is only a cache: every chunk is checked against the id that the manifest or the root chunk states.
type parentWriter struct {
	f   *os.File
	w   *bufio.Writer
	err error
}

func newParentWriter(s *state) (*parentWriter, error) {
	f, err := os.OpenFile(s.path(parentFile+".new"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	p := &parentWriter{f: f, w: bufio.NewWriterSize(f, 128<<10)}
	_, p.err = p.w.WriteString(parentMagic)
	return p, nil
}

func (p *parentWriter) chunk(plain []byte) {
	if p.err != nil {
		return
	}
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(plain)))
	_, err := p.w.Write(n[:])
	if err == nil {
		_, err = p.w.Write(plain)
	}
	p.err = err
}

// commit puts the file in place of the one of the parent's parent, which name is. It is not synced: after a power cut its ids do not
// match and it counts as lost.
func (p *parentWriter) commit(s *state, name string, root []byte) error {
	p.chunk(root)
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(root)))
	if p.err == nil {
		_, p.err = p.w.Write(n[:])
	}
	err := errors.Join(p.err, p.w.Flush(), p.f.Close())
	if err == nil {
		err = os.Rename(p.f.Name(), s.path(name))
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (p *parentWriter) discard() {
	_ = p.f.Close()
	_ = os.Remove(p.f.Name())
}

// parent is the tree that a run compares with.
type parent struct {
	stored *Stored
	root   *snapshot.RootTable
	// entries yields all entries in order.
	entries func(ctx context.Context) iter.Seq2[*snapshot.Entry, error]
}

var errNoCache = errors.New("no usable copy of the parent's tree in the state directory")

// cachedParent opens the copy of m's tree in the state directory, which is the file name. Errors: errNoCache.
func cachedParent(ctx context.Context, s *state, name string, keys *seal.Keys, m *Stored) (*parent, error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil, errNoCache
	}
	defer func() { _ = f.Close() }()
	root, err := readCachedRoot(f, keys, m)
	if err != nil {
		return nil, errNoCache
	}
	path := f.Name()
	// Every chunk is checked now, so that a run that relies on the copy does not fail in its middle.
	if err := eachCached(ctx, path, keys, root, func(snapshot.TreeChunk, []byte) error { return nil }); err != nil {
		return nil, errNoCache
	}
	return &parent{stored: m, root: root, entries: func(ctx context.Context) iter.Seq2[*snapshot.Entry, error] {
		return func(yield func(*snapshot.Entry, error) bool) { yieldCached(ctx, path, keys, root, yield) }
	}}, nil
}

func readCachedRoot(f *os.File, keys *seal.Keys, m *Stored) (*snapshot.RootTable, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var n [4]byte
	if _, err := f.ReadAt(n[:], info.Size()-4); err != nil {
		return nil, err
	}
	size := int64(binary.BigEndian.Uint32(n[:]))
	if size != int64(m.Root.Plain) || size+16 > info.Size() {
		return nil, errNoCache
	}
	plain := make([]byte, size)
	if _, err := f.ReadAt(plain, info.Size()-4-size); err != nil {
		return nil, err
	}
	if keys.ChunkID(snapshot.Root, plain).String() != m.Root.ID {
		return nil, errNoCache
	}
	return snapshot.DecodeRoot(plain)
}

// eachCached calls fn with the plain bytes of every tree chunk, checked against its id; plain is valid until fn returns.
func eachCached(ctx context.Context, path string, keys *seal.Keys, root *snapshot.RootTable, fn func(c snapshot.TreeChunk, plain []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the parent's tree: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 256<<10)
	if _, err := r.Discard(len(parentMagic)); err != nil {
		return fmt.Errorf("read the parent's tree in %s: %w", path, err)
	}
	var plain []byte
	for _, c := range root.Chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if plain, err = readCached(r, plain, c.Ref.Plain); err == nil && keys.ChunkID(snapshot.Tree, plain) != c.Ref.ID {
			err = errChunkID
		}
		if err != nil {
			return fmt.Errorf("read the parent's tree in %s: %w", path, err)
		}
		if err := fn(c, plain); err != nil {
			return err
		}
	}
	return nil
}

// errStop ends a loop over chunks whose consumer wants no more.
var errStop = errors.New("stop")

func yieldCached(ctx context.Context, path string, keys *seal.Keys, root *snapshot.RootTable, yield func(*snapshot.Entry, error) bool) {
	err := eachCached(ctx, path, keys, root, func(_ snapshot.TreeChunk, plain []byte) error {
		return snapshot.DecodeTree(plain, func(e *snapshot.Entry) error {
			if !yield(e, nil) {
				return errStop
			}
			return nil
		})
	})
	if err = ignoreStop(err); err != nil {
		yield(nil, err)
	}
}

func ignoreStop(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func readCached(r io.Reader, buf []byte, want uint32) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return buf, err
	}
	if binary.BigEndian.Uint32(n[:]) != want {
		return buf, errChunkID
	}
	if cap(buf) < int(want) {
		buf = make([]byte, want)
	}
	buf = buf[:want]
	_, err := io.ReadFull(r, buf)
	return buf, err
}

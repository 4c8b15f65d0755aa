package repository

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	packMagic    = "HFPACK01"
	trailerMagic = "HFPACKIX"
	packHeader   = len(packMagic) + 32
	packTrailer  = 4 + len(trailerMagic)

	// packUploads is how many packs travel at the same time; with the one that is being filled it bounds memory.
	packUploads = 2
)

// writtenPack is a pack that the store has acknowledged.
type writtenPack struct {
	snapshot.PackInfo
	index []snapshot.IndexEntry
}

// packWriter seals chunks into packs and uploads them. It is safe for concurrent use: add seals in the caller's
// goroutine under a lock (sealing is some ten times faster than compression), uploads run beside.
type packWriter struct {
	store  objstore.Store
	src    snapshot.Source
	chain  snapshot.ChainID
	keys   *seal.Keys
	stored func(writtenPack) error // called for each acknowledged pack, one at a time

	mu      sync.Mutex
	next    uint64 // number of the next pack; guarded by mu
	content *openPack
	meta    *openPack
	full    bool // a pack has been filled: meta gets packs of its own
	err     error

	free    chan []byte // buffers of packs
	uploads *errgroup.Group
	ctx     context.Context //nolint:containedctx // of the uploads: it ends when one fails
	ackMu   sync.Mutex
}

// openPack is a pack that is being filled.
type openPack struct {
	number uint64
	salt   [32]byte
	sealer *seal.Pack
	buf    []byte
	index  []snapshot.IndexEntry
}

func newPackWriter(ctx context.Context, store objstore.Store, src snapshot.Source, chain snapshot.ChainID, keys *seal.Keys, next uint64, stored func(writtenPack) error) *packWriter {
	w := &packWriter{store: store, src: src, chain: chain, keys: keys, next: next, stored: stored, free: make(chan []byte, packUploads+2)}
	for range cap(w.free) {
		w.free <- nil
	}
	w.uploads, w.ctx = errgroup.WithContext(ctx)
	w.uploads.SetLimit(packUploads)
	return w
}

// add seals one chunk, whose bytes are encoded already, and returns where it will be. The chunk is durable when flush
// has returned nil. It blocks while uploads lag behind.
func (w *packWriter) add(kind snapshot.Kind, id snapshot.Hash, encoded []byte, plain int) (snapshot.Ref, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failed(); err != nil {
		return snapshot.Ref{}, err
	}
	slot := w.slot(kind)
	if *slot == nil {
		p, err := w.begin()
		if err != nil {
			return snapshot.Ref{}, err
		}
		*slot = p
	}
	p := *slot
	offset := uint32(len(p.buf))
	// The cipher grows its buffer by just what it needs: growing it here keeps that from copying for each chunk.
	p.buf = p.sealer.Seal(slices.Grow(p.buf, len(encoded)+seal.Overhead), offset, kind, id, encoded)
	sealed := uint32(len(p.buf)) - offset
	p.index = append(p.index, snapshot.IndexEntry{Kind: kind, ID: id, Sealed: sealed, Plain: uint32(plain)})
	ref := snapshot.Ref{Pack: p.number, Offset: offset, Sealed: sealed, Plain: uint32(plain), ID: id}
	if len(p.buf) >= snapshot.PackTarget || len(p.index) >= snapshot.MaxPackChunks-1 {
		*slot = nil
		w.full = true
		w.finish(p)
	}
	return ref, nil
}

// slot is where a chunk of this kind goes: once a run has more than one pack, what describes the tree is kept apart
// from content, so that listing and the next comparison read little.
func (w *packWriter) slot(kind snapshot.Kind) **openPack {
	if kind == snapshot.Content || !w.full {
		return &w.content
	}
	return &w.meta
}

func (w *packWriter) failed() error {
	if w.err != nil {
		return w.err
	}
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return nil
}

func (w *packWriter) begin() (*openPack, error) {
	p := &openPack{number: w.next}
	if _, err := rand.Read(p.salt[:]); err != nil {
		return nil, fmt.Errorf("make a pack's salt: %w", err)
	}
	select {
	case p.buf = <-w.free:
	case <-w.ctx.Done():
		return nil, context.Cause(w.ctx)
	}
	w.next++
	p.sealer = w.keys.Pack(p.salt)
	p.buf = append(append(p.buf[:0], packMagic...), p.salt[:]...)
	return p, nil
}

// finish closes a pack and hands it to an upload. It is called with w.mu held.
func (w *packWriter) finish(p *openPack) {
	w.uploads.Go(func() error {
		info, err := w.upload(p)
		if err != nil {
			return err
		}
		w.free <- p.buf
		w.ackMu.Lock()
		defer w.ackMu.Unlock()
		return w.stored(writtenPack{PackInfo: info, index: p.index})
	})
}

func (w *packWriter) upload(p *openPack) (snapshot.PackInfo, error) {
	index := append([]byte{0}, snapshot.EncodeIndex(p.index)...)
	offset := uint32(len(p.buf))
	p.buf = p.sealer.Seal(p.buf, offset, snapshot.Index, snapshot.Hash{}, index)
	p.buf = binary.BigEndian.AppendUint32(p.buf, uint32(len(p.buf))-offset)
	p.buf = append(p.buf, trailerMagic...)
	content := objstore.Bytes(p.buf)
	info := snapshot.PackInfo{Number: p.number, ID: content.SHA256, Salt: p.salt, Size: uint64(content.Size)}
	if err := w.store.Put(w.ctx, layout.PackKey(w.src, w.chain, info.ID), content); err != nil {
		return info, fmt.Errorf("store pack %s: %w", info.ID, err)
	}
	return info, nil
}

// flush closes the packs that are being filled and waits until everything that was added is durable.
// Nothing can be added afterwards.
func (w *packWriter) flush() error {
	w.mu.Lock()
	for _, p := range []*openPack{w.content, w.meta} {
		if p != nil {
			w.finish(p)
		}
	}
	w.content, w.meta = nil, nil
	w.mu.Unlock()
	err := w.uploads.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	if err == nil {
		w.err = errClosed
	}
	return err
}

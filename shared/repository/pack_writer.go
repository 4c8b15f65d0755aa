package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// packUploads is how many packs travel at the same time.
const packUploads = 2

// writtenPack is a pack that the store has acknowledged.
type writtenPack struct {
	snapshot.PackInfo
	index []snapshot.IndexEntry
}

// packWriter seals chunks into packs and uploads them. It is safe for concurrent use: add seals in the caller's
// goroutine under a lock (sealing is some ten times faster than compression), uploads run beside. Packs are spooled, so
// that they take no memory.
type packWriter struct {
	store  objstore.Store
	dir    string // for spools
	src    snapshot.Source
	chain  snapshot.ChainID
	keys   *seal.Keys
	stored func(writtenPack) error // called for each acknowledged pack, one at a time

	mu      sync.Mutex
	next    uint64      // number of the next pack; guarded by mu
	begun   []*openPack // not all of them are in the store yet; guarded by mu
	content *openPack
	meta    *openPack
	full    bool // a pack has been filled: meta gets packs of its own
	err     error

	scratch []byte        // of sealed bytes; guarded by mu
	open    chan struct{} // a token for each pack that is not in the store yet
	uploads *errgroup.Group
	ctx     context.Context //nolint:containedctx // of the uploads: it ends when one fails
	ackMu   sync.Mutex
}

// openPack is a pack that is being filled.
type openPack struct {
	number uint64
	salt   [32]byte
	sealer *seal.Pack
	spool  objstore.Spool
	size   uint32
	index  []snapshot.IndexEntry
	done   chan struct{} // closed when the store has it
}

func newPackWriter(ctx context.Context, store objstore.Store, dir string, src snapshot.Source, chain snapshot.ChainID, keys *seal.Keys, next uint64, stored func(writtenPack) error) *packWriter {
	w := &packWriter{store: store, dir: dir, src: src, chain: chain, keys: keys, next: next, stored: stored, open: make(chan struct{}, packUploads+2)}
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
	offset := p.size
	w.scratch = p.sealer.Seal(slices.Grow(w.scratch[:0], len(encoded)+seal.Overhead), offset, kind, id, encoded)
	if err := p.write(w.scratch); err != nil {
		// Part of the chunk may be in the pack, where its index would not expect it: the pack is given up.
		*slot = nil
		w.err = errors.Join(err, p.spool.Discard())
		return snapshot.Ref{}, w.err
	}
	sealed := p.size - offset
	p.index = append(p.index, snapshot.IndexEntry{Kind: kind, ID: id, Sealed: sealed, Plain: uint32(plain)})
	ref := snapshot.Ref{Pack: p.number, Offset: offset, Sealed: sealed, Plain: uint32(plain), ID: id}
	if p.size >= snapshot.PackTarget || len(p.index) >= snapshot.MaxPackChunks-1 {
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
	select {
	case w.open <- struct{}{}:
	case <-w.ctx.Done():
		return nil, context.Cause(w.ctx)
	}
	p := &openPack{number: w.next, salt: seal.NewSalt(), done: make(chan struct{})}
	w.next++
	w.begun = append(slices.DeleteFunc(w.begun, (*openPack).isStored), p)
	p.sealer = w.keys.Pack(p.salt)
	var err error
	if p.spool, err = objstore.NewSpool(w.ctx, w.store, w.dir); err == nil {
		if err = p.write(snapshot.AppendPackHeader(nil, p.salt)); err != nil {
			err = errors.Join(err, p.spool.Discard())
		}
	}
	if err != nil {
		w.err = fmt.Errorf("begin a pack: %w", err)
	}
	return p, w.err
}

func (p *openPack) write(b []byte) error {
	if _, err := p.spool.Write(b); err != nil {
		return fmt.Errorf("write a pack: %w", err)
	}
	p.size += uint32(len(b))
	return nil
}

// finish closes a pack and hands it to an upload. It is called with w.mu held.
func (w *packWriter) finish(p *openPack) {
	w.uploads.Go(func() error {
		info, err := w.upload(p)
		if err != nil {
			return errors.Join(err, p.spool.Discard())
		}
		<-w.open
		w.ackMu.Lock()
		defer w.ackMu.Unlock()
		if err := w.stored(writtenPack{PackInfo: info, index: p.index}); err != nil {
			return err
		}
		close(p.done)
		return nil
	})
}

func (p *openPack) isStored() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// sync waits until everything that was added before is durable. The packs that are being filled are closed for it; what
// is added meanwhile goes into others.
func (w *packWriter) sync() error {
	w.mu.Lock()
	if err := w.failed(); err != nil {
		w.mu.Unlock()
		return err
	}
	for _, p := range []*openPack{w.content, w.meta} {
		if p != nil {
			w.finish(p)
		}
	}
	w.content, w.meta = nil, nil
	waiting := slices.Clone(w.begun)
	w.mu.Unlock()
	for _, p := range waiting {
		select {
		case <-p.done:
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
	}
	return nil
}

func (w *packWriter) upload(p *openPack) (snapshot.PackInfo, error) {
	end := p.sealer.SealIndex(nil, p.size, p.index)
	if err := p.write(snapshot.AppendPackFooter(end, len(end))); err != nil {
		return snapshot.PackInfo{}, err
	}
	sum, size := p.spool.Sum()
	info := snapshot.PackInfo{Number: p.number, ID: sum, Salt: p.salt, Size: uint64(size)}
	if err := p.spool.Commit(w.ctx, layout.PackKey(w.src, w.chain, info.ID)); err != nil {
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
	if w.err == nil {
		w.err = errClosed
		return nil
	}
	if errors.Is(w.err, errClosed) {
		return nil
	}
	return w.err
}

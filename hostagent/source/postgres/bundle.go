package postgres

import (
	"context"
	"fmt"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// bundler puts small files together into chunks, in the order in which they come. Its methods belong to one goroutine.
type bundler struct {
	c        *capture
	pool     *pool
	open     *bundle
	unstored []*bundle // cut, perhaps not stored yet
}

// bundle is a content chunk of several small files.
type bundle struct {
	buf  *buffer
	data []byte
	ids  map[snapshot.FileID]place
	done chan struct{} // closed when it is stored

	mu     sync.Mutex
	files  []placed // guarded by mu
	stored bool     // guarded by mu: no file can be added any more
}

type place struct{ offset, size uint32 }

// placed is a file in a bundle.
type placed struct {
	entry, before *snapshot.Entry
	place
}

// take reads a small file and finds a place for it.
func (b *bundler) take(ctx context.Context, f *incoming) error {
	e := f.entry
	e.Size = f.size
	if f.size == 0 {
		return b.c.done(e, f.before)
	}
	buf, data, err := b.room(ctx, int(f.size))
	if err != nil {
		return err
	}
	if err := b.c.read(f, 0, data); err != nil {
		return err
	}
	e.HasFileID, e.FileID = true, b.c.session.FileID(data)
	if known, ok := b.known(f); ok {
		buf.used -= len(data) // it is needed no more
		if known == nil {
			return nil // the bundle that it is in will say where
		}
		e.Extents = known
		return b.c.done(e, f.before)
	}
	o := b.open
	p := place{offset: uint32(len(o.data)), size: uint32(len(data))}
	o.data = o.data[:len(o.data)+len(data)]
	o.ids[e.FileID] = p
	o.mu.Lock()
	o.files = append(o.files, placed{e, f.before, p})
	o.mu.Unlock()
	return nil
}

// room returns memory for a file, right behind the last one of the open bundle.
func (b *bundler) room(ctx context.Context, n int) (*buffer, []byte, error) {
	if b.open != nil && len(b.open.data)+n > bundleSize {
		if err := b.cut(ctx); err != nil {
			return nil, nil, err
		}
	}
	buf, data, err := b.pool.take(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	if b.open == nil {
		b.open = &bundle{buf: buf, data: buf.data[:0], ids: map[snapshot.FileID]place{}, done: make(chan struct{})}
	}
	return buf, data, nil
}

// known finds where the content is already: in the parent's file, elsewhere in what is stored, or in a bundle on its way,
// to which the file is added; then extents is nil.
func (b *bundler) known(f *incoming) (extents []snapshot.Extent, ok bool) {
	e := f.entry
	if p := f.before; p != nil && p.HasFileID && p.FileID == e.FileID && p.Size == e.Size && len(p.Extents) > 0 {
		return p.Extents, true
	}
	if b.open != nil && b.open.add(f) {
		return nil, true
	}
	kept := b.unstored[:0]
	for _, u := range b.unstored {
		select {
		case <-u.done: // the session knows its files
		default:
			kept = append(kept, u)
		}
	}
	clear(b.unstored[len(kept):])
	b.unstored = kept
	for _, u := range b.unstored {
		if u.add(f) {
			return nil, true
		}
	}
	return b.c.session.KnownFile(e.FileID, e.Size)
}

// add adds a file whose content is in the bundle.
func (o *bundle) add(f *incoming) bool {
	p, ok := o.ids[f.entry.FileID]
	if !ok || uint64(p.size) != f.size {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stored {
		return false
	}
	o.files = append(o.files, placed{f.entry, f.before, p})
	return true
}

// cut ends the open bundle and has it stored.
func (b *bundler) cut(ctx context.Context) error {
	o := b.open
	b.open = nil
	if o == nil {
		return nil
	}
	o.buf.Hold()
	b.pool.end() // the next begins at the beginning of a buffer
	if len(o.data) == 0 {
		o.buf.Release()
		return nil
	}
	b.unstored = append(b.unstored, o)
	return b.c.later(ctx, func() error {
		defer o.buf.Release()
		return b.c.storeBundle(ctx, o)
	})
}

// end has the last bundle stored and waits for all.
func (b *bundler) end(ctx context.Context) error {
	if err := b.cut(ctx); err != nil {
		return err
	}
	for _, o := range b.unstored {
		select {
		case <-o.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *capture) storeBundle(ctx context.Context, o *bundle) error {
	ref, err := c.session.Chunk(ctx, snapshot.Content, o.data)
	if err != nil {
		return fmt.Errorf("store small files: %w", err)
	}
	extents := func(p place) []snapshot.Extent {
		return []snapshot.Extent{{Ref: ref, Offset: p.offset, Length: uint64(p.size)}}
	}
	for id, p := range o.ids {
		c.session.LearnFile(id, uint64(p.size), extents(p))
	}
	o.mu.Lock()
	o.stored = true
	files := o.files
	o.mu.Unlock()
	for _, f := range files {
		f.entry.Extents = extents(f.place)
		if err := c.done(f.entry, f.before); err != nil {
			return err
		}
	}
	close(o.done)
	return nil
}

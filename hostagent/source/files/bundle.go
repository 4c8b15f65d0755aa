package files

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// bundle is a content chunk of several small files.
type bundle struct {
	buf    []byte
	files  []placement
	ids    map[snapshot.FileID]int // index of the first of files with this content
	weight int64                   // of all items since the first of files
	done   chan struct{}           // closed when it is stored and its files' entries have their extents
}

// placement is one small file in a bundle.
type placement struct {
	item         *item
	offset, size uint32
}

// bundler puts small files together in the order of the walk. It belongs to one goroutine.
type bundler struct {
	c        *capture
	open     *bundle   // nil if there is none
	unstored []*bundle // cut, perhaps not stored yet
}

// assemble takes all items from c.read, waits until their content is there and hands them on.
func (c *capture) assemble(ctx context.Context) error {
	b := &bundler{c: c}
	for it := range c.read {
		if it.ready != nil && !it.large {
			select {
			case <-it.ready:
			case <-ctx.Done():
				return ctx.Err()
			}
			err := b.take(ctx, it)
			c.giveBack(it)
			if err != nil {
				return err
			}
		}
		if b.open != nil {
			// Without this the emitter could wait for the open bundle, the walk for the emitter, and the bundle for the walk.
			if b.open.weight += it.weight; b.open.weight > windowWeight/2 {
				if err := b.cut(ctx); err != nil {
					return err
				}
			}
		}
		select {
		case c.emits <- it:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return b.cut(ctx)
}

// giveBack returns what an item holds of the budget for small files.
func (c *capture) giveBack(it *item) {
	if it.buf != nil {
		c.smalls.put(it.buf)
		it.buf, it.data = nil, nil
	}
	c.waiting.Release(it.reserved)
	it.reserved = 0
}

// take finds a place for a small file.
func (b *bundler) take(ctx context.Context, it *item) error {
	size := uint64(len(it.data))
	if size == 0 || it.entry == nil {
		return nil
	}
	id := it.entry.FileID
	if b.pending(it, id, size) {
		return nil
	}
	if extents, ok := b.c.session.KnownFile(id, size); ok {
		it.entry.Extents = extents
		return nil
	}
	if b.open != nil && len(b.open.buf)+len(it.data) > bundleMax {
		if err := b.cut(ctx); err != nil {
			return err
		}
	}
	if b.open == nil {
		buf, err := b.c.bundles.get(ctx)
		if err != nil {
			return err
		}
		b.open = &bundle{buf: buf[:0], ids: map[snapshot.FileID]int{}, done: make(chan struct{})}
	}
	o := b.open
	o.ids[id] = len(o.files)
	o.files = append(o.files, placement{item: it, offset: uint32(len(o.buf)), size: uint32(size)})
	o.buf = append(o.buf, it.data...)
	it.bundle = o
	if len(o.buf) >= bundleMin && endsBundle(id, size) {
		return b.cut(ctx)
	}
	return nil
}

// pending finds the content among what is on its way to the session.
func (b *bundler) pending(it *item, id snapshot.FileID, size uint64) bool {
	kept := b.unstored[:0]
	for _, u := range b.unstored {
		select {
		case <-u.done: // the session has learnt its files
		default:
			kept = append(kept, u)
		}
	}
	clear(b.unstored[len(kept):])
	b.unstored = kept
	if b.open != nil && b.open.has(it, id, size) {
		return true
	}
	return slices.ContainsFunc(b.unstored, func(u *bundle) bool { return u.has(it, id, size) })
}

// has makes an item the twin of one with the same content, if the bundle has it.
func (o *bundle) has(it *item, id snapshot.FileID, size uint64) bool {
	i, ok := o.ids[id]
	if !ok || uint64(o.files[i].size) != size {
		return false
	}
	it.bundle, it.twin = o, o.files[i].item
	return true
}

// endsBundle lets the content decide where bundles end, so that the ones after an edit are the same as before: after
// every file with a chance that grows with its size, once in 384 KiB on average.
func endsBundle(id snapshot.FileID, size uint64) bool {
	const mean = 384 << 10
	return uint64(binary.BigEndian.Uint32(id[:]))*mean>>32 < size
}

// cut ends the open bundle and has it stored.
func (b *bundler) cut(ctx context.Context) error {
	o := b.open
	if o == nil {
		return nil
	}
	b.open = nil
	b.unstored = append(b.unstored, o)
	return b.c.later(ctx, func() error { return b.c.storeBundle(ctx, o) })
}

func (c *capture) storeBundle(ctx context.Context, o *bundle) error {
	ref, err := c.session.Chunk(ctx, snapshot.Content, o.buf)
	if err != nil {
		return fmt.Errorf("store small files: %w", err)
	}
	c.bundles.put(o.buf)
	o.buf = nil
	for _, p := range o.files {
		e := p.item.entry
		e.Extents = []snapshot.Extent{{Ref: ref, Offset: p.offset, Length: uint64(p.size)}}
		c.session.LearnFile(e.FileID, uint64(p.size), e.Extents)
	}
	close(o.done)
	return nil
}

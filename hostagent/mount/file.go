package mount

import (
	"context"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// handle is an open file. It keeps the chunk and the map that were read last: programs read forwards.
type handle struct {
	node *treeNode

	mu      sync.Mutex
	ref     snapshot.Ref // of chunk
	chunk   []byte
	region  int // number of the map in extents, from 1; 0: none
	start   uint64
	extents []snapshot.Extent
}

var _ fs.FileReader = (*handle)(nil)

// Read implements [fs.FileReader].
func (h *handle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.node.entry
	at := uint64(off)
	n := 0
	for n < len(dest) && at < e.Size {
		m, err := h.readPart(h.node.view.ctx, dest[n:], at)
		if err != nil {
			return nil, errno(err)
		}
		if m == 0 {
			return nil, syscall.EIO // extents do not cover what the size says
		}
		n += m
		at += uint64(m)
	}
	return fuse.ReadResultData(dest[:n]), fs.OK
}

// readPart reads from the extent that covers at.
func (h *handle) readPart(ctx context.Context, dest []byte, at uint64) (int, error) {
	if err := h.seek(ctx, at); err != nil {
		return 0, err
	}
	begin := h.start
	for _, x := range h.extents {
		if at >= begin+x.Length {
			begin += x.Length
			continue
		}
		within := at - begin
		dest = dest[:min(uint64(len(dest)), x.Length-within)]
		if x.Hole {
			clear(dest)
			return len(dest), nil
		}
		if h.chunk == nil || h.ref != x.Ref {
			chunk, err := h.node.snap.Chunk(ctx, snapshot.Content, x.Ref)
			if err != nil {
				return 0, err
			}
			h.ref, h.chunk = x.Ref, chunk
		}
		return copy(dest, h.chunk[uint64(x.Offset)+within:]), nil
	}
	return 0, nil
}

// seek makes extents those of the region that covers at.
func (h *handle) seek(ctx context.Context, at uint64) error {
	e := h.node.entry
	if len(e.Maps) == 0 {
		h.extents, h.start = e.Extents, 0
		return nil
	}
	start := uint64(0)
	for i := range e.Maps {
		if at >= start+e.Maps[i].Length {
			start += e.Maps[i].Length
			continue
		}
		if h.region != i+1 {
			extents, err := h.node.snap.Map(ctx, e.Maps[i])
			if err != nil {
				return err
			}
			h.region, h.start, h.extents = i+1, start, extents
		}
		return nil
	}
	h.extents = nil
	return nil
}

package snapshot

import (
	"encoding/binary"
	"fmt"
)

// TreeChunk says where a tree chunk is and with which path it begins.
type TreeChunk struct {
	First string // path of its first entry
	Ref   Ref
}

// RootTable is the root chunk of a snapshot: what was captured, and the tree chunks in order.
type RootTable struct {
	Roots  []string // absolute paths, as the source names them
	Chunks []TreeChunk
}

// EncodeRoot returns the plain bytes of a root chunk. The paths must pass [CheckPath], and the tree chunks ascend.
func EncodeRoot(t *RootTable) []byte {
	dst := binary.AppendUvarint(nil, uint64(len(t.Roots)))
	for _, root := range t.Roots {
		dst = appendString(dst, root)
	}
	dst = binary.AppendUvarint(dst, uint64(len(t.Chunks)))
	for i := range t.Chunks {
		dst = appendString(dst, t.Chunks[i].First)
		dst = appendRef(dst, &t.Chunks[i].Ref)
	}
	return dst
}

// DecodeRoot parses a root chunk.
func DecodeRoot(plain []byte) (*RootTable, error) {
	if len(plain) > MaxChunk {
		return nil, fmt.Errorf("decode root: %w: %d bytes, over the limit of a chunk", ErrFormat, len(plain))
	}
	r := reader{b: plain}
	t := &RootTable{}
	for range r.count("roots", 2) {
		t.Roots = append(t.Roots, r.path())
	}
	last := ""
	for range r.count("tree chunks", 2+minRef) {
		c := TreeChunk{First: r.path()}
		r.ref(&c.Ref)
		if r.err == nil && last != "" && ComparePaths(last, c.First) >= 0 {
			r.fail("tree chunk %q after %q", brief(c.First), brief(last))
		}
		if r.err != nil {
			break
		}
		t.Chunks = append(t.Chunks, c)
		last = c.First
	}
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("decode root: %w", err)
	}
	return t, nil
}

// path reads a string that must be a path.
func (r *reader) path() string {
	b := r.str()
	if r.err != nil {
		return ""
	}
	p := string(b)
	if err := CheckPath(p); err != nil {
		r.refuse(err)
	}
	return p
}

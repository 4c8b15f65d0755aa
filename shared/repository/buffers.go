package repository

import "sync"

// buffers keeps memory between reads, so that a restore makes little garbage.
type buffers struct {
	pool sync.Pool // of *[]byte
}

// get returns a buffer of n bytes whose content is undefined.
func (b *buffers) get(n int) *[]byte {
	buf, ok := b.pool.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	*buf = (*buf)[:n]
	return buf
}

func (b *buffers) put(buf *[]byte) { b.pool.Put(buf) }

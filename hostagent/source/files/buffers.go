package files

import "context"

// Sizes of buffers, in bytes. Together they bound the content that a capture holds: 4 MiB of small files that wait for
// their bundle, 6 bundles of 1.1 MiB and 3 buffers of 8 MiB for larger files.
const (
	smallFile    = 128 << 10 // files up to this size are bundled
	smallWaiting = 4 << 20   // small files read, or to be read, before they are in a bundle

	bundleMin = 256 << 10 // a bundle may end from here on, where the content says so
	bundleMax = 1 << 20   // and ends here
	bundles   = 6

	largeBuffer  = 8 << 20 // at least twice the longest chunk
	largeBuffers = 3
	largeFiles   = largeBuffers - 1 // read at the same time: each may hold one buffer and wait for a second
)

// smallClasses are the sizes in which buffers for small files come.
var smallClasses = [...]int{2 << 10, 8 << 10, 32 << 10, smallFile}

// smallBuffers keeps buffers for small files for the next one.
type smallBuffers [len(smallClasses)]chan []byte

func newSmallBuffers() *smallBuffers {
	var s smallBuffers
	for i, size := range smallClasses {
		s[i] = make(chan []byte, smallWaiting/2/size)
	}
	return &s
}

// smallClass returns the class for a file of size bytes.
func smallClass(size uint64) int {
	for i, limit := range smallClasses {
		if size <= uint64(limit) {
			return i
		}
	}
	return len(smallClasses) - 1
}

func (s *smallBuffers) get(size uint64) []byte {
	class := smallClass(size)
	select {
	case b := <-s[class]:
		return b
	default:
		return make([]byte, smallClasses[class])
	}
}

func (s *smallBuffers) put(b []byte) {
	select {
	case s[smallClass(uint64(cap(b)))] <- b[:cap(b)]:
	default:
	}
}

// pool lends a fixed number of values, made when they are first needed.
type pool[T any] struct {
	free chan T
	new  chan struct{}
	make func() T
}

func newPool[T any](n int, construct func() T) *pool[T] {
	p := &pool[T]{free: make(chan T, n), new: make(chan struct{}, n), make: construct}
	for range n {
		p.new <- struct{}{}
	}
	return p
}

// get waits for a value.
func (p *pool[T]) get(ctx context.Context) (T, error) {
	select {
	case v := <-p.free:
		return v, nil
	default:
	}
	select {
	case v := <-p.free:
		return v, nil
	case <-p.new:
		return p.make(), nil
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (p *pool[T]) put(v T) { p.free <- v }

package repository

import (
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// readAhead bounds the sealed bytes that are on their way from the store or wait to be opened.
	readAhead = 10 << 20
	// fewOpeners is how many spans are opened, and their chunks given away, at the same time at least.
	fewOpeners = 4
	// manyOpeners is how many are at most, on a machine of many processors.
	manyOpeners = 16
	// keptMost is the size of the largest buffer that is kept.
	keptMost = 2 * spanMax
)

// readers bounds what all calls of [Snapshot.Chunks] take together. Reading from the store and opening have bounds of their
// own: a store that is far away answers late, so many spans are asked for while a few are opened.
type readers struct {
	window *semaphore.Weighted // of sealed bytes
	open   chan struct{}       // a token for each span that is being opened
	memory freeList
}

func newReaders() *readers {
	openers := min(max(fewOpeners, runtime.GOMAXPROCS(0)), manyOpeners)
	return &readers{
		window: semaphore.NewWeighted(readAhead),
		open:   make(chan struct{}, openers),
		memory: freeList{most: readAhead/spanMax + openers},
	}
}

// freeList keeps buffers between reads. Unlike a sync.Pool it outlives garbage collections, of which a restore makes
// many: there is no need to clear the same megabytes after each.
type freeList struct {
	most int // buffers that are kept

	mu   sync.Mutex
	free []*[]byte // guarded by mu
}

// get returns a buffer of n bytes whose content is undefined: the smallest that has room, else the largest, grown.
func (l *freeList) get(n int) *[]byte {
	l.mu.Lock()
	best := -1
	for i, b := range l.free {
		switch {
		case best < 0:
			best = i
		case cap(*b) >= n && (cap(*b) < cap(*l.free[best]) || cap(*l.free[best]) < n):
			best = i
		case cap(*l.free[best]) < n && cap(*b) > cap(*l.free[best]):
			best = i
		}
	}
	buf := new([]byte)
	if best >= 0 {
		buf = l.free[best]
		l.free = slices.Delete(l.free, best, best+1)
	}
	l.mu.Unlock()
	if cap(*buf) < n {
		*buf = make([]byte, n)
	}
	*buf = (*buf)[:n]
	return buf
}

func (l *freeList) put(buf *[]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) < l.most && cap(*buf) <= keptMost {
		l.free = append(l.free, buf)
	}
}

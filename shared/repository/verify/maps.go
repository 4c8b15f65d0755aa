package verify

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// chunkAt says where a chunk is.
type chunkAt struct {
	pack   uint64
	offset uint32
}

// mapSum is what is kept of a map chunk when its extents have been checked: one for 8 MiB of file.
type mapSum struct {
	length uint64 // bytes of file that it covers
	ranges uint64 // hash of the packs that its extents use
	verdict
}

// mapChecks checks the maps of a chain while its packs are read, so that none is read twice: a map waits until the
// packs that its extents lead to have been read. Packs are read in ascending order. A pack of maps has a low number and
// was filled while many packs of content were: its maps, perhaps those of a hundred gigabytes of files, wait in a file.
type mapChecks struct {
	mu      sync.Mutex
	order   []uint64        // numbers of the packs that will be read, ascending; guarded by mu, as all below
	read    map[uint64]bool // those of order that were read
	waiting []waitingMap
	store   waitingRoom
	sums    map[chunkAt]mapSum
}

type waitingMap struct {
	chain *chain
	at    chunkAt
	last  uint64 // highest pack number in extents
	plain waiter
}

// expect says which packs will be read.
func (m *mapChecks) expect(packs []*pack, ch *chain) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read = map[uint64]bool{}
	for _, p := range packs {
		if p.chain == ch {
			m.order = append(m.order, p.Number)
		}
	}
}

// add takes a map chunk that was just opened.
func (m *mapChecks) add(ch *chain, at chunkAt, plain []byte) {
	extents, err := snapshot.DecodeMap(plain)
	w := waitingMap{chain: ch, at: at}
	for _, x := range extents {
		if !x.Hole {
			w.last = max(w.last, x.Ref.Pack)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.sums[at] = mapSum{verdict: verdict{wrong: err.Error()}}
		return
	}
	w.plain = m.store.put(plain)
	m.waiting = append(m.waiting, w)
}

// done says that a pack was read, and checks the maps that waited for it.
func (m *mapChecks) done(p *pack) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read[p.Number] = true
	before := len(m.order)
	for len(m.order) > 0 && m.read[m.order[0]] {
		delete(m.read, m.order[0])
		m.order = m.order[1:]
	}
	if len(m.order) != before {
		m.check()
	}
}

// finish checks the maps that still wait.
func (m *mapChecks) finish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.order = nil
	m.check()
	m.store.close()
}

// check sums up the maps whose packs were all read. It is called with mu held; the tables that it looks at are
// complete, for done was called after they were.
func (m *mapChecks) check() {
	m.waiting = slices.DeleteFunc(m.waiting, func(w waitingMap) bool {
		if len(m.order) > 0 && m.order[0] <= w.last {
			return false
		}
		// One that does not come back is read again when the walk comes to it.
		if plain, err := m.store.take(w.plain); err == nil {
			if extents, err := snapshot.DecodeMap(plain); err == nil {
				m.sums[w.at] = w.chain.sumMap(extents, nil)
			}
		}
		return true
	})
	if len(m.waiting) == 0 {
		m.waiting = nil
	}
}

// sumMap checks the extents of a map.
func (ch *chain) sumMap(extents []snapshot.Extent, read readChunk) mapSum {
	var sum mapSum
	var numbers []uint64
	for i := range extents {
		x := &extents[i]
		sum.length += x.Length
		if x.Hole {
			continue
		}
		numbers = append(numbers, x.Ref.Pack)
		if v := ch.resolve(snapshot.Content, &x.Ref, read); !v.ok() && sum.ok() {
			sum.verdict = v
		}
	}
	sum.ranges = hashRanges(ranges(numbers))
	return sum
}

// ranges joins numbers into ranges that do not touch.
func ranges(numbers []uint64) []snapshot.Range {
	slices.Sort(numbers)
	var out []snapshot.Range
	for _, n := range numbers {
		if k := len(out); k > 0 && n <= out[k-1].Last+1 {
			out[k-1].Last = n
			continue
		}
		out = append(out, snapshot.Range{First: n, Last: n})
	}
	return out
}

func hashRanges(ranges []snapshot.Range) uint64 {
	h := fnv.New64a()
	var b [16]byte
	for _, r := range ranges {
		binary.BigEndian.PutUint64(b[:8], r.First)
		binary.BigEndian.PutUint64(b[8:], r.Last)
		_, _ = h.Write(b[:])
	}
	return h.Sum64()
}

package repository

import (
	"encoding/binary"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// liveness sums the sealed bytes of the content that a tree leads to, each chunk once: what of its packs is in use.
type liveness struct {
	maps    *mapCache
	seen    *diskTable // pack number and offset of each chunk (u32 BE each)
	last    uint64     // the chunk that was counted last: small files share it
	bytes   uint64
	unknown bool // a map could not be read, or a chunk not be noted
}

const livePlaceSize = 8

func newLiveness(s *state, maps *mapCache) *liveness {
	return &liveness{maps: maps, seen: s.table("live", livePlaceSize, livePlaceSize)}
}

func (l *liveness) entry(e *snapshot.Entry) {
	if l == nil {
		return // of an unfinished snapshot nobody asks
	}
	l.extents(e.Extents)
	for i := range e.Maps {
		l.ref(&e.Maps[i].Ref)
		plain, ok := l.maps.get(e.Maps[i].Ref.ID)
		if !ok {
			l.unknown = true
			continue
		}
		extents, err := CheckedMap(plain, e.Maps[i])
		if err != nil {
			l.unknown = true
			continue
		}
		l.extents(extents)
	}
}

func (l *liveness) extents(extents []snapshot.Extent) {
	for i := range extents {
		if !extents[i].Hole {
			l.ref(&extents[i].Ref)
		}
	}
}

func (l *liveness) ref(r *snapshot.Ref) {
	at := r.Pack<<32 | uint64(r.Offset)
	if at == l.last {
		return
	}
	l.last = at
	var record [livePlaceSize]byte
	binary.BigEndian.PutUint64(record[:], at)
	const golden = 0x9E3779B97F4A7C15 // 2^64 divided by the golden ratio: spreads what differs little
	_, added, ok := l.seen.putNew(uint32(at*golden>>32), record[:])
	if added {
		l.bytes += uint64(r.Sealed)
	}
	l.unknown = l.unknown || !ok
}

// sum is the number of bytes, or 0 if it is not known.
func (l *liveness) sum() uint64 {
	if l.unknown {
		return 0
	}
	return l.bytes
}

package repository

import "github.com/btcdecoded/holdfast/shared/snapshot"

// liveness sums the sealed bytes of the content that a tree leads to, each chunk once: what of its packs is in use. It
// keeps some 20 bytes for each chunk.
type liveness struct {
	maps    *mapCache
	seen    map[uint64]struct{} // pack number and offset
	last    uint64              // the chunk that was counted last: small files share it
	bytes   uint64
	unknown bool // a map could not be read
}

func newLiveness(maps *mapCache) *liveness {
	return &liveness{maps: maps, seen: map[uint64]struct{}{}}
}

func (l *liveness) entry(e *snapshot.Entry) {
	if l == nil {
		return
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
	if _, ok := l.seen[at]; !ok {
		l.seen[at] = struct{}{}
		l.bytes += uint64(r.Sealed)
	}
}

// sum is the number of bytes, or 0 if it is not known.
func (l *liveness) sum() uint64 {
	if l.unknown {
		return 0
	}
	return l.bytes
}

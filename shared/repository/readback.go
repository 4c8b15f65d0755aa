package repository

import (
	"context"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ReadBack makes everything durable that the session has stored, and returns a reader of it: for sources that prove what
// they have stored before they say that it is whole. Only [Snapshot.Chunk], [Snapshot.Chunks] and [Snapshot.Extents] may be
// used of it; what is stored later it does not have.
//
// A host that may only write is refused by the store with its first read, with objstore.ErrDenied.
func (s *Session) ReadBack(ctx context.Context) (*Snapshot, error) {
	if s.done {
		return nil, errClosed
	}
	if err := s.packs.sync(); err != nil {
		return nil, err
	}
	var infos []snapshot.PackInfo
	if s.plan.newest != nil {
		listed, err := s.plan.listed(ctx, s.repo)
		if err != nil {
			return nil, fmt.Errorf("read back: %w", err)
		}
		s.plan.packs = listed // for the commit
		infos = append(infos, listed...)
	}
	if p := s.plan.parent; p != nil && s.plan.newest != nil && p.stored.Sequence != s.plan.newest.Sequence {
		packs, err := s.repo.Lists(ctx, p.stored.Manifest)
		if err != nil {
			return nil, fmt.Errorf("read back: %w", err)
		}
		infos = append(infos, packs...)
	}
	s.mu.Lock()
	for _, list := range [][]storedPack{s.named, s.written} {
		for _, p := range list {
			infos = append(infos, p.PackInfo)
		}
	}
	s.mu.Unlock()
	m := &snapshot.Manifest{Host: s.src.Host, Source: s.src.Name, Sequence: s.plan.next}
	out := &Snapshot{
		repo: s.repo, stored: &Stored{Manifest: m}, chain: s.plan.chain, keys: s.keys, packs: make(map[uint64]*pack, len(infos)), readers: newReaders(),
	}
	for _, p := range infos {
		out.packs[p.Number] = &pack{info: p, key: layout.PackKey(s.src, s.plan.chain, p.ID)}
	}
	return out, nil
}

package verify

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxList bounds the size of a pack list, in bytes.
const maxList = 256 << 20

// listName is a list as a chain names it: the numbers in it are of that chain.
type listName struct {
	chain snapshot.ChainID
	list  string
}

// checkLists reads every pack list of the wanted snapshots once, and compares it with the manifests that name it.
func (s *source) checkLists(ctx context.Context) error {
	users := map[listName][]snapshot.ID{}
	for _, sn := range s.snaps {
		id, err := layout.ParseChain(sn.Chain)
		if err != nil {
			s.c.findings.add(s.inv.ManifestKey(sn.Sequence), Malformed, err.Error(), sn.id)
			continue
		}
		if s.chains[id] == nil {
			s.chains[id] = newChain(s, id)
		}
		sn.chain = s.chains[id]
		for _, l := range sn.Lists {
			name := listName{id, l.List}
			if s.lists[name] == nil {
				s.lists[name] = &list{key: layout.ListKey(s.src, l.List)}
			}
			sn.lists = append(sn.lists, s.lists[name])
			users[name] = append(users[name], sn.id)
		}
	}
	names := make([]listName, 0, len(users))
	for name := range users {
		names = append(names, name)
	}
	infos := make([][]snapshot.PackInfo, len(names))
	err := inParallel(ctx, documentReaders, indexes(len(names)), func(ctx context.Context, i int) {
		infos[i] = s.readList(ctx, names[i], users[names[i]])
	})
	if err != nil {
		return err
	}
	for i, name := range names {
		s.intern(name, infos[i])
	}
	for _, sn := range s.snaps {
		s.compareLists(sn)
	}
	return nil
}

// readList reads and checks one list; what is wrong is noted, and nil returned.
func (s *source) readList(ctx context.Context, name listName, users []snapshot.ID) []snapshot.PackInfo {
	at := s.lists[name]
	note := func(p Problem, detail string) []snapshot.PackInfo {
		s.c.findings.add(at.key, p, detail, users...)
		return nil
	}
	id, err := layout.ParseHash(name.list)
	if err != nil {
		return note(Malformed, err.Error())
	}
	if _, ok := s.inv.Lists[id]; !ok {
		return note(Missing, "")
	}
	b, err := objstore.ReadAll(ctx, s.c.repo.Store(), at.key, maxList)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return note(classify(err), err.Error())
	}
	s.documents.Add(1)
	if sum := snapshot.Hash(sha256.Sum256(b)); sum != id {
		if _, other := s.inv.Lists[sum]; other {
			return note(Replayed, "its bytes are those of "+s.inv.ListKey(sum))
		}
		return note(BytesDiffer, "")
	}
	infos, err := snapshot.DecodeList(b)
	if err != nil {
		return note(Malformed, err.Error())
	}
	at.found = true
	return infos
}

// intern makes one pack of all lines, in whatever list, that are about the same one.
func (s *source) intern(name listName, infos []snapshot.PackInfo) {
	at, chain := s.lists[name], s.chains[name.chain]
	at.packs = make([]*pack, 0, len(infos))
	for _, info := range infos {
		p := chain.packs[info.Number]
		if p == nil {
			p = &pack{PackInfo: info, chain: chain}
			chain.packs[info.Number] = p
		} else if p.PackInfo != info {
			// Numbers are given once per chain. Keep them apart, so that each snapshot is judged by its own list.
			s.c.findings.add(at.key, Contradicts, fmt.Sprintf("pack number %d is another pack in another list of the chain", info.Number))
			p = &pack{PackInfo: info, chain: chain}
		}
		at.packs = append(at.packs, p)
	}
}

// compareLists compares what a manifest says of its lists, and where it points, with the lists themselves.
func (s *source) compareLists(sn *snap) {
	key := s.inv.ManifestKey(sn.Sequence)
	note := func(detail string) { s.c.findings.add(key, Contradicts, detail, sn.id) }
	numbers := map[uint64]bool{}
	complete := sn.chain != nil
	for i, l := range sn.lists {
		if !l.found {
			complete = false
			continue
		}
		var bytes int64
		for _, p := range l.packs {
			bytes += int64(p.Size)
			if numbers[p.Number] {
				note(fmt.Sprintf("pack number %d is in two of its lists", p.Number))
			}
			numbers[p.Number] = true
			if p.Number >= sn.NextPack {
				note(fmt.Sprintf("pack number %d is in use, but the next free one is %d", p.Number, sn.NextPack))
			}
		}
		says := sn.Lists[i]
		size := s.listSize(says.List)
		if says.Packs != len(l.packs) || says.Bytes != bytes || says.Size != size {
			note(fmt.Sprintf("list %s has %d packs of %d bytes, in %d bytes", says.List, len(l.packs), bytes, size))
		}
	}
	if !complete {
		return
	}
	for _, ref := range []*snapshot.JSONRef{&sn.Root, sn.Report} {
		if ref == nil {
			continue
		}
		p := sn.find(ref.Pack)
		if p == nil || uint64(ref.Offset)+uint64(ref.Sealed) > p.Size {
			note(fmt.Sprintf("it points to pack %d, which its lists do not have or which is too short", ref.Pack))
		}
	}
}

func (s *source) listSize(list string) int64 {
	id, err := layout.ParseHash(list)
	if err != nil {
		return -1
	}
	return s.inv.Lists[id].Size
}

// live calls fn for each pack that the snapshot uses, as far as its lists could be read.
func (sn *snap) live(fn func(*pack)) {
	for _, l := range sn.lists {
		for _, p := range l.packs {
			if !sn.without(p.Number) {
				fn(p)
			}
		}
	}
}

// find returns the pack with this number, if the snapshot uses it.
func (sn *snap) find(number uint64) *pack {
	if sn.without(number) {
		return nil
	}
	for _, l := range sn.lists {
		i, ok := slices.BinarySearchFunc(l.packs, number, func(p *pack, n uint64) int { return compareNumbers(p.Number, n) })
		if ok {
			return l.packs[i]
		}
	}
	return nil
}

// without reports whether the manifest leaves the number out.
func (sn *snap) without(number uint64) bool {
	_, ok := slices.BinarySearchFunc(sn.Without, number, func(r [2]uint64, n uint64) int {
		switch {
		case r[1] < n:
			return -1
		case r[0] > n:
			return 1
		}
		return 0
	})
	return ok
}

func compareNumbers(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// packName is the pack's name in the inventory.
func (p *pack) name() inventory.Pack { return inventory.Pack{Chain: p.chain.id, ID: p.ID} }

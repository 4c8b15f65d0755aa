package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// chain is the packs of one chain that the wanted snapshots name.
type chain struct {
	source *source
	id     snapshot.ChainID
	packs  map[uint64]*pack // by number; read only once packs are being read
	keys   *seal.Keys       // nil: not needed, or not to be had
	keyID  string           // that the manifests state, in hex
	maps   mapChecks
}

func newChain(s *source, id snapshot.ChainID) *chain {
	return &chain{source: s, id: id, packs: map[uint64]*pack{}, maps: mapChecks{sums: map[chunkAt]mapSum{}}}
}

// pack is one pack and what was found of it. One goroutine writes it while packs are read; then it is only read.
type pack struct {
	snapshot.PackInfo
	chain    *chain
	used     bool // a wanted snapshot uses it
	lost     bool // nothing of it can be read
	known    bool // on record as damaged, and not read by this run
	read     bool // checked at the level of the run
	spared   spared
	indexed  bool // table has all its chunks
	recalled bool // an earlier run has read it: see [Resume]
	fault    atomic.Pointer[place]
	table    []chunkEntry // level content: its chunks, ascending by offset
}

// checkPacks checks that the packs are there, reads them as the level asks, and finds what damaged ones hit.
func (s *source) checkPacks(ctx context.Context) error {
	for _, sn := range s.snaps {
		sn.live(func(p *pack) { p.used = true })
	}
	packs := s.usedPacks()
	for _, p := range packs {
		s.checkPresence(p)
	}
	for _, sn := range s.snaps {
		sn.live(func(p *pack) {
			if p.known {
				s.c.findings.hit(place{s.inv.PackKey(p.name()), KnownDamaged}, sn.id)
			}
		})
	}
	s.countUnnamed()
	var err error
	switch s.c.opts.Level {
	case Bytes:
		err = s.readPacks(ctx, packs, s.hashPack)
	case Content:
		if err = s.openChains(ctx); err == nil {
			s.recall(packs)
			err = s.readPacks(ctx, packs, s.openPack)
		}
	case Structure:
		for _, p := range packs {
			p.read = !p.lost
		}
	}
	if err != nil {
		return err
	}
	s.tally(packs)
	return s.walk(ctx)
}

// usedPacks returns the packs that any wanted snapshot uses, by chain and number: once each, whatever number of
// snapshots share them.
func (s *source) usedPacks() []*pack {
	seen := map[*pack]bool{}
	var out []*pack
	for _, l := range s.lists {
		for _, p := range l.packs {
			if p.used && !seen[p] {
				seen[p] = true
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b *pack) int {
		if c := slices.Compare(a.chain.id[:], b.chain.id[:]); c != 0 {
			return c
		}
		return compareNumbers(a.Number, b.Number)
	})
	return out
}

// checkPresence compares a pack with the listing.
func (s *source) checkPresence(p *pack) {
	o, ok := s.inv.Packs[p.name()]
	switch {
	case !ok:
		p.lost = true
		s.fault(p, Missing, "")
	case o.Size != int64(p.Size):
		s.fault(p, SizeDiffers, fmt.Sprintf("it has %d bytes, its list says %d", o.Size, p.Size))
	case o.Checksum == inventory.Differs:
		s.fault(p, BytesDiffer, "by the checksum that the store has recorded")
	}
	// Put back after the record was written: it was repaired.
	if d, ok := s.inv.Damaged[p.ID]; ok && !o.Modified.After(d.Modified) && s.c.opts.Level == Structure && p.fault.Load() == nil {
		s.c.findings.warn(s.inv.PackKey(p.name()), KnownDamaged, "repair reads it again, and takes the record back if it is in order")
		p.known = true
	}
}

// fault notes what is wrong with a pack; the first problem stands for all.
func (s *source) fault(p *pack, problem Problem, detail string) {
	if p.fault.Load() != nil {
		return
	}
	at := s.c.findings.add(s.inv.PackKey(p.name()), problem, detail)
	p.fault.CompareAndSwap(nil, &at)
}

// countUnnamed counts packs that no manifest names. That can be told only if all manifests and lists were read.
func (s *source) countUnnamed() {
	if len(s.snaps) != len(s.stored) || len(s.bad) > 0 || s.c.stamp != nil {
		return
	}
	named := map[inventory.Pack]bool{}
	for _, l := range s.lists {
		if !l.found {
			return
		}
		for _, p := range l.packs {
			named[p.name()] = true
		}
	}
	for name, o := range s.inv.Packs {
		if !named[name] {
			s.unnamedPacks++
			s.unnamedBytes += o.Size
		}
	}
}

// openChains gets the keys of all chains. Without any identity that fits, the level can't be reached at all.
func (s *source) openChains(ctx context.Context) error {
	for _, sn := range s.snaps {
		if sn.chain == nil || len(sn.Keys) == 0 {
			continue
		}
		if sn.chain.keys != nil {
			if sn.Keys[0].Key != sn.chain.keyID {
				s.c.findings.add(s.inv.ManifestKey(sn.Sequence), Contradicts, "it states another key than the snapshots of its chain before it", sn.id)
			}
			continue
		}
		keys, err := s.chainKeys(ctx, sn)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, keyring.ErrNoIdentity) {
			return err
		}
		if err != nil {
			s.c.findings.add(s.inv.ManifestKey(sn.Sequence), NotAuthentic, err.Error(), sn.id)
			continue
		}
		sn.chain.keys, sn.chain.keyID = keys, sn.Keys[0].Key
	}
	return nil
}

// chainKeys recovers the keys of a snapshot's chain: from what its manifest repeats, or else from the key objects,
// where later recipients are.
func (s *source) chainKeys(ctx context.Context, sn *snap) (*seal.Keys, error) {
	about := seal.Context{Repository: s.c.repo.ID(), Source: s.src, Chain: sn.chain.id}
	var first error
	for _, k := range sn.Keys {
		key, err := keyring.UnwrapKey(ctx, s.c.repo.Identity(), k, about)
		if err == nil {
			return seal.NewKeys(key, about), nil
		}
		if first == nil {
			first = err
		}
		later := snapshot.Key{Key: k.Key}
		for name := range s.inv.Keys {
			var v snapshot.Wrapped
			if name.ID != k.Key {
				continue
			}
			if _, err := s.c.repo.Document(ctx, s.inv.KeyKey(name), &v); err == nil {
				later.Wrapped = append(later.Wrapped, v)
			}
		}
		if key, err := keyring.UnwrapKey(ctx, s.c.repo.Identity(), later, about); err == nil {
			return seal.NewKeys(key, about), nil
		}
	}
	return nil, fmt.Errorf("open the key of %s: %w", sn.id, first)
}

// readPacks calls read for each chosen pack, in ascending order, several at a time.
func (s *source) readPacks(ctx context.Context, packs []*pack, read func(context.Context, *pack, *buffer)) error {
	var chosen []*pack
	var size int64
	for _, p := range packs {
		if !p.lost && !p.recalled && s.c.opts.Sample.Chooses(p.ID) {
			chosen = append(chosen, p)
			size += int64(p.Size)
		}
	}
	s.c.progress(func(at *Progress) {
		at.Source, at.TotalPacks, at.TotalBytes = s.src, at.TotalPacks+len(chosen), at.TotalBytes+size
	})
	for _, ch := range s.chains {
		ch.maps.expect(chosen, ch)
	}
	buffers := sync.Pool{New: func() any { return new(buffer) }}
	err := inParallel(ctx, s.c.opts.Workers, chosen, func(ctx context.Context, p *pack) {
		b := buffers.Get().(*buffer)
		defer buffers.Put(b)
		read(ctx, p, b)
		p.chain.maps.done(p)
		s.c.progress(func(at *Progress) { at.Packs, at.Bytes = at.Packs+1, at.Bytes+int64(p.Size) })
	})
	for _, ch := range s.chains {
		ch.maps.finish()
	}
	return err
}

// buffer is the memory of one reader.
type buffer struct {
	pack    []byte // level content: a sealed chunk
	plain   []byte
	copying [128 << 10]byte
}

// errLong says that an object goes on after its announced size.
var errLong = errors.New("it goes on after its size")

// get reads the pack into w and returns how many bytes came, at most one more than the pack should have.
func (s *source) get(ctx context.Context, p *pack, w io.Writer, copying []byte) (int64, error) {
	r, err := s.c.repo.Store().Get(ctx, s.inv.PackKey(p.name()), 0, int64(p.Size)+1)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(r, int64(p.Size)+1), copying)
	if err == nil && n > int64(p.Size) {
		err = errLong
	}
	return n, err
}

// judge compares what was read of a pack with its name; it reports whether anything came.
func (s *source) judge(ctx context.Context, p *pack, sum snapshot.Hash, n int64, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	p.read = true
	switch {
	case errors.Is(err, errLong):
		s.fault(p, SizeDiffers, fmt.Sprintf("it has more than the %d bytes that its list says", p.Size))
	case errors.Is(err, objstore.ErrArchived) && s.c.opts.Level == Bytes:
		p.read, p.spared = false, archived // that it was not read is no sign that anything is wrong with it
		return false
	case err != nil:
		p.read, p.lost = false, true
		s.fault(p, classify(err), err.Error())
		return false
	case n != int64(p.Size):
		s.fault(p, SizeDiffers, fmt.Sprintf("%d bytes came, its list says %d", n, p.Size))
	case sum != p.ID:
		other := inventory.Pack{Chain: p.chain.id, ID: sum}
		if _, ok := s.inv.Packs[other]; ok {
			s.fault(p, Replayed, "its bytes are those of "+s.inv.PackKey(other))
		} else {
			s.fault(p, BytesDiffer, "")
		}
	}
	return true
}

// hashPack is level bytes.
func (s *source) hashPack(ctx context.Context, p *pack, b *buffer) {
	h := sha256.New()
	n, err := s.get(ctx, p, h, b.copying[:])
	s.judge(ctx, p, snapshot.Hash(h.Sum(nil)), n, err)
}

// tally counts what was checked, each pack once for the run and once for every snapshot that uses it.
func (s *source) tally(packs []*pack) {
	for _, p := range packs {
		if p.read {
			s.c.result.Packs++
			s.c.result.Bytes += int64(p.Size)
		}
		if p.spared == archived {
			s.c.result.Archived++
		}
	}
}

package repository

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxRun is how old the packs of a run may be when it commits: those that no manifest names are pruned after 14 days.
// A run that takes longer commits unfinished snapshots on the way (checkpoint.go).
const maxRun = 5 * 24 * time.Hour

// Begin takes the source's lock on this host, finds what to build on and prepares to store.
// It writes only the key objects of a new chain.
//
// Errors: ErrLocked, ErrNoSigner, ErrForeignSigner, those of the store.
func (r *Repository) Begin(ctx context.Context, options BeginOptions) (*Session, error) {
	if err := options.Source.Check(); err != nil {
		return nil, err
	}
	if _, ok := r.identity.Signer(); !ok {
		return nil, fmt.Errorf("back up %s: %w", options.Source, ErrNoSigner)
	}
	if !r.MaySign(layout.ManifestPrefix(options.Source)+"x") || !r.MaySign(layout.KeyPrefix(options.Source)+"x") {
		return nil, fmt.Errorf("back up %s: %w", options.Source, ErrForeignSigner)
	}
	st, err := openState(options.State, r.id, options.Source)
	if err != nil {
		return nil, err
	}
	s := &Session{repo: r, src: options.Source, options: options, state: st}
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(err, st.close())
	}
	return s, nil
}

func (s *Session) begin(ctx context.Context) error {
	var err error
	s.marked = s.options.Now()
	s.started, s.checked = s.marked, s.marked
	p := &planner{repo: s.repo, options: s.options, state: s.state, now: s.marked.Round(0)}
	if s.plan, err = p.plan(ctx); err != nil {
		return err
	}
	s.keys = seal.NewKeys(s.plan.key, seal.Context{Repository: s.repo.id, Source: s.src, Chain: s.plan.chain})
	s.gear = s.keys.Gear()
	if s.plan.parent == nil {
		if err := s.putKeys(ctx); err != nil {
			return err
		}
	}
	if s.damaged, err = s.damagedPacks(ctx); err != nil {
		return err
	}
	if s.maps, err = openMapCache(s.state, s.plan.parent == nil); err != nil {
		return err
	}
	if s.pages, err = openPageCache(s.state, s.plan.parent == nil); err != nil {
		return errors.Join(err, s.maps.close())
	}
	s.refs = newRefset(s.state)
	next, err := s.resume(ctx)
	if err != nil {
		return errors.Join(err, s.maps.close(), s.pages.close())
	}
	s.knowParent(ctx)
	cache, err := newParentWriter(s.state)
	if err != nil {
		return errors.Join(err, s.maps.close(), s.pages.close(), s.journal.close())
	}
	s.packs = newPackWriter(ctx, s.repo.store, s.state.dir, s.src, s.plan.chain, s.keys, next, s.packStored)
	s.tree = &treeBuilder{store: s.Chunk, cache: cache, live: new(bitset), alive: newLiveness(s.state, s.maps)}
	return nil
}

// putKeys stores the wrapped data key for each recipient, before anything that is sealed with it.
func (s *Session) putKeys(ctx context.Context) error {
	keyID := s.plan.key.ID(s.repo.id).String()
	for _, w := range s.plan.wrapped {
		doc := KeyDocument{Key: keyID, Chain: s.plan.chain.String(), Wrapped: w}
		if err := s.repo.PutDocument(ctx, layout.KeyKey(s.src, keyID, RecipientID(w.Type, w.Recipient)), doc); err != nil {
			return err
		}
	}
	return nil
}

// knowParent gives the refset the parent's tree chunks at once, and its content when it is first asked for.
func (s *Session) knowParent(ctx context.Context) {
	parent := s.plan.parent
	if parent == nil {
		return
	}
	usable := func(k KindRef) {
		if !s.damaged[k.Pack] {
			s.refs.add(k)
		}
	}
	for _, c := range parent.root.Chunks {
		usable(KindRef{Kind: snapshot.Tree, Ref: c.Ref})
	}
	if ref, err := parent.stored.Root.Ref(); err == nil {
		usable(KindRef{Kind: snapshot.Root, Ref: ref})
	}
	s.refs.load = func(_ func(KindRef), learn func(snapshot.FileID, uint64, []snapshot.Extent)) error {
		readMap := func(m snapshot.MapRef) ([]snapshot.Extent, error) { return s.ParentMap(ctx, m) }
		return loadFrom(ctx, parent, readMap, usable, func(id snapshot.FileID, size uint64, x []snapshot.Extent) {
			// Whoever wants a full believes no content by a file id that a snapshot states.
			if len(x) == 1 && !s.damaged[x[0].Ref.Pack] && !s.plan.reread {
				learn(id, size, x)
			}
		})
	}
}

// resume takes over the packs of an interrupted run that the store really has, and begins this run's journal with
// them. It returns the number of the next new pack.
func (s *Session) resume(ctx context.Context) (uint64, error) {
	chain, next := s.plan.chain.String(), s.plan.nextPack
	var there map[snapshot.Hash]uint64
	err := readJournal(s.state, chain, next, func(head journalHead, _ writtenPack) error {
		if s.plan.begun.Sub(head.Begun).Abs() >= maxRun {
			return errStop
		}
		s.plan.begun = head.Begun
		var err error
		if there, err = s.packsInStore(ctx); err != nil {
			return err
		}
		return errStop // there is one: that was the question
	})
	if err != nil {
		return 0, err
	}
	head := journalHead{Chain: chain, Next: next, Begun: s.plan.begun}
	s.journal, err = beginJournal(s.state, head, func(j *journal) error {
		if there == nil {
			return nil
		}
		return readJournal(s.state, chain, head.Next, func(_ journalHead, p writtenPack) error {
			next = max(next, p.Number+1)
			if there[p.ID] != p.Size {
				return nil
			}
			s.takeOver(p)
			return j.pack(p)
		})
	})
	return next, err
}

func (s *Session) takeOver(p writtenPack) {
	s.resumed++
	s.resumedSize += p.Size
	s.written = append(s.written, storedPack{PackInfo: p.PackInfo, at: s.plan.begun})
	offset := uint32(snapshot.PackHeaderSize)
	for _, e := range p.index {
		s.refs.add(KindRef{Kind: e.Kind, Ref: snapshot.Ref{Pack: p.Number, Offset: offset, Sealed: e.Sealed, Plain: e.Plain, ID: e.ID}})
		offset += e.Sealed
	}
}

// packsInStore lists the packs of the chain with their sizes.
func (s *Session) packsInStore(ctx context.Context) (map[snapshot.Hash]uint64, error) {
	out := map[snapshot.Hash]uint64{}
	prefix := layout.PackPrefix(s.src) + s.plan.chain.String() + "/"
	err := s.repo.store.List(ctx, prefix, func(o objstore.Info) error {
		if _, id, err := layout.ParsePack(s.src, o.Key); err == nil {
			out[id] = uint64(o.Size)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return out, nil
}

// maxLooked is up to how many packs of a chain a run looks whether they are there: a page of a listing has 1,000.
const maxLooked = 10_000

// damagedPacks are the numbers of those packs of the newest snapshot and the parent that failed a check, or that are gone:
// nothing may be built on them. Of a chain of very many packs only verify notices what is gone.
func (s *Session) damagedPacks(ctx context.Context) (map[uint64]bool, error) {
	bad := map[string]bool{}
	prefix := layout.DamagedPrefix(s.src)
	err := s.repo.store.List(ctx, prefix, func(o objstore.Info) error {
		bad[o.Key] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	look := s.plan.newest != nil && len(s.plan.packs) <= maxLooked
	if s.plan.newest == nil || len(bad) == 0 && !look {
		return nil, nil
	}
	var there map[snapshot.Hash]uint64 // nil: not looked
	if look {
		if there, err = s.packsInStore(ctx); err != nil {
			return nil, err
		}
	}
	packs, err := LivePacks(s.plan.newest.Manifest, slices.Clone(s.plan.packs))
	if err != nil {
		return nil, err
	}
	if base := s.plan.parent.stored; base.Sequence != s.plan.newest.Sequence {
		// A differential's parent may use packs that the newest snapshot does not.
		more, err := s.repo.Lists(ctx, base.Manifest)
		if err != nil {
			return nil, err
		}
		packs = append(packs, more...)
	}
	return s.judgePacks(packs, bad, there), nil
}

// judgePacks returns the numbers of those packs that must not be built on, and warns of what is gone.
func (s *Session) judgePacks(packs []snapshot.PackInfo, bad map[string]bool, there map[snapshot.Hash]uint64) map[uint64]bool {
	out, gone := map[uint64]bool{}, map[uint64]bool{}
	for _, p := range packs {
		if bad[layout.DamagedKey(s.src, p.ID)] {
			out[p.Number] = true
		} else if there != nil && there[p.ID] != p.Size {
			out[p.Number], gone[p.Number] = true, true
		}
	}
	if len(gone) > 0 {
		s.plan.warnings = append(s.plan.warnings, fmt.Errorf("%d packs of the chain are missing: what they held is stored again; "+
			"`holdfast verify` tells which earlier snapshots are hit", len(gone)))
	}
	return out
}

func newChainID() (snapshot.ChainID, error) {
	var c snapshot.ChainID
	if _, err := rand.Read(c[:]); err != nil {
		return c, fmt.Errorf("make a chain id: %w", err)
	}
	return c, nil
}

package copier

import (
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// What no manifest of the copy names is removed there by prune some days after it has arrived. A run that was interrupted, or
// that takes very long, counts on such packs and lists. So before it puts a manifest that needs some, and once more after, it
// looks whether they are there, and copies again what is not.

// settled is for how long what a run has copied itself is sure to stay, by this host's clock: less than a day of the two weeks
// that prune waits.
const settled = 24 * time.Hour

// held is what is known of a pack or a list in the copy.
type held struct {
	at    time.Time // when this run has copied it; zero: it was there
	named bool      // a manifest that the copy has names it
}

// sure reports whether nobody takes it away soon.
func (s *source) sure(h held) bool {
	now := s.opts.Now()
	return h.named || !h.at.IsZero() && now.Sub(h.at) < settled && now.Round(0).Sub(h.at.Round(0)) < settled
}

// sureOf reports whether nobody takes anything away soon that a snapshot needs.
func (s *source) sureOf(m *repository.Stored, packs []snapshot.PackInfo) (bool, error) {
	chain, err := layout.ParseChain(m.Chain)
	if err != nil {
		return false, err
	}
	all := func() bool {
		for _, p := range packs {
			if !s.sure(s.done[inventory.Pack{Chain: chain, ID: p.ID}]) {
				return false
			}
		}
		for _, l := range m.Lists {
			if !s.sure(s.listed[l.List]) {
				return false
			}
		}
		return true
	}
	if all() {
		return true, nil
	}
	if err := s.nameBefore(m); err != nil {
		return false, err
	}
	return all(), nil
}

// nameBefore notes what the snapshots name that the copy has of m's chain: the newest before m, and the one with which the chain
// begins, on which a differential builds. Of the others they share what m can need.
func (s *source) nameBefore(m *repository.Stored) error {
	newest := true
	for i := len(s.manifests) - 1; i >= 0; i-- {
		b := s.manifests[i]
		_, there := s.theirs.Manifests[b.Sequence]
		if b.Sequence >= m.Sequence || b.Chain != m.Chain || !there || !newest && b.Sequence != m.ChainStart {
			continue
		}
		newest = false
		if s.known[b.Sequence] {
			continue
		}
		s.known[b.Sequence] = true
		var all []snapshot.PackInfo
		for _, l := range b.Lists {
			infos, err := s.list(l)
			if err != nil {
				return err
			}
			all = append(all, infos...)
		}
		if live, err := repository.LivePacks(b.Manifest, all); err == nil {
			s.name(b, live)
		}
	}
	return nil
}

// name notes that a manifest which the copy has names packs and lists.
func (s *source) name(m *repository.Stored, packs []snapshot.PackInfo) {
	chain, err := layout.ParseChain(m.Chain)
	if err != nil {
		return
	}
	for _, p := range packs {
		name := inventory.Pack{Chain: chain, ID: p.ID}
		h := s.done[name]
		h.named = true
		if _, known := s.done[name]; known {
			s.done[name] = h
		} else if _, there := s.theirs.Packs[name]; there {
			s.done[name] = h
		}
	}
	for _, l := range m.Lists {
		h := s.listed[l.List]
		h.named = true
		s.listed[l.List] = h
	}
}

// again looks what is there by now of what a snapshot needs, and copies what is not. It reports whether all is there.
func (s *source) again(m *repository.Stored, packs []snapshot.PackInfo) (bool, error) {
	chain, err := layout.ParseChain(m.Chain)
	if err != nil {
		return false, err
	}
	now, err := inventory.TakeParts(s.ctx, s.to, s.src, layout.KeyPrefix(s.src), layout.ListPrefix(s.src), layout.PackPrefix(s.src)+m.Chain+"/")
	if err != nil {
		return false, fmt.Errorf("the copy: %w", err)
	}
	s.theirs.Keys, s.theirs.Lists = now.Keys, now.Lists
	if err := s.documents(s.keyDocuments()); err != nil {
		return false, err
	}
	for _, p := range packs {
		name := inventory.Pack{Chain: chain, ID: p.ID}
		if o, there := now.Packs[name]; there {
			s.theirs.Packs[name] = o
			continue
		}
		delete(s.theirs.Packs, name)
		delete(s.done, name)
	}
	return s.copyContent(m, packs)
}

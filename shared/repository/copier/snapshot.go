package copier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/parallel"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// copySnapshot copies what one snapshot needs, then its manifest:
//
//  1. packs, several at a time. A crash leaves packs that nothing names; the next run finds them by their names;
//  2. lists. The same;
//  3. the manifest, if everything else is there. Now the copy has the snapshot.
//
// Where prune may take something of it away meanwhile, all of it is looked at right before 3 and right after it.
//
// BUG: what a prune of the copy takes away even later, as it has read the manifests before 3, stays missing until `verify` of the
// copy finds it: that prune would have to be at work for longer than both looks take.
func (s *source) copySnapshot(m *repository.Stored) error {
	id := m.ID()
	if s.has(id.Sequence) {
		s.present(1)
		if _, there := s.theirs.Manifests[id.Sequence]; there {
			s.had()
		}
		return nil // complete when it was committed
	}
	packs, ok, err := s.packs(m)
	if err != nil {
		return err
	}
	complete, err := s.copyContent(m, packs)
	if err != nil {
		return err
	}
	sure := true
	if ok && complete {
		if sure, err = s.sureOf(m, packs); err == nil && !sure {
			complete, err = s.again(m, packs)
		}
		if err != nil {
			return err
		}
	}
	if !ok || !complete {
		s.withhold(id)
		return nil
	}
	key := layout.ManifestKey(id)
	err = s.put(s.ctx, key, m.Bytes)
	if errors.Is(err, objstore.ErrExist) {
		return &DivergedError{Key: key, Detail: "another manifest with this number appeared in the copy"}
	}
	if err != nil {
		return err
	}
	s.copied(s.src, int64(len(m.Bytes)))
	s.mu.Lock()
	s.result.Committed = append(s.result.Committed, id)
	s.mu.Unlock()
	if sure {
		sure, err = s.sureOf(m, packs) // it may have taken long
	}
	if err == nil && !sure {
		_, err = s.again(m, packs)
	}
	s.name(m, packs)
	return err
}

// copyContent copies the packs and then the lists of a snapshot that the copy does not have; it reports whether it has all of
// them now.
func (s *source) copyContent(m *repository.Stored, packs []snapshot.PackInfo) (bool, error) {
	complete, err := s.copyPacks(m, packs)
	if err != nil || !complete {
		return false, err
	}
	for _, l := range m.Lists {
		if ok, err := s.copyList(l, m.ID()); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// packs returns the packs that the snapshot uses. It reports false, with a finding, if they can't be told.
func (s *source) packs(m *repository.Stored) ([]snapshot.PackInfo, bool, error) {
	var all []snapshot.PackInfo
	ok := true
	for _, l := range m.Lists {
		infos, err := s.list(l)
		if err != nil {
			return nil, false, err
		}
		if key := layout.ListKey(s.src, l.List); s.bad[key] {
			s.note(key, "", false, m.ID())
			ok = false
			continue
		}
		all = append(all, infos...)
	}
	live, err := repository.LivePacks(m.Manifest, all)
	if err != nil {
		s.note(layout.ManifestKey(m.ID()), err.Error(), false, m.ID())
		return nil, false, nil
	}
	return live, ok, nil
}

// list reads a list of the original once; one that is not in order is noted in s.bad.
func (s *source) list(l snapshot.List) ([]snapshot.PackInfo, error) {
	key := layout.ListKey(s.src, l.List)
	infos, known := s.lists[l.List]
	if known || s.bad[key] {
		return infos, nil
	}
	var b memory
	err := s.fetch(s.ctx, key, l.Size, l.List, &b)
	if err == nil {
		infos, err = snapshot.DecodeList(b.Bytes())
	}
	switch {
	case err == nil:
		s.lists[l.List] = infos
	case isDamage(err):
		s.bad[key] = true
		s.note(key, err.Error(), false)
	default:
		return nil, err
	}
	return infos, nil
}

// copyPacks copies those packs that the copy does not have; it reports whether it has all of them now.
func (s *source) copyPacks(m *repository.Stored, packs []snapshot.PackInfo) (bool, error) {
	id := m.ID()
	chain, err := layout.ParseChain(m.Chain)
	if err != nil {
		return false, err
	}
	complete := true
	var missing []snapshot.PackInfo
	for _, p := range packs {
		name := inventory.Pack{Chain: chain, ID: p.ID}
		key := s.ours.PackKey(name)
		o, there := s.theirs.Packs[name]
		_, done := s.done[name]
		switch {
		case done:
		case s.bad[key]:
			s.note(key, "", false, id)
			complete = false
		case there && o.Size == int64(p.Size):
			s.done[name] = held{}
			s.present(1)
		case there:
			s.note(key, fmt.Sprintf("has %d bytes instead of %d", o.Size, p.Size), true, id)
			s.bad[key], complete = true, false
		default:
			missing = append(missing, p)
		}
	}
	arrived := make([]bool, len(missing))
	err = parallel.Each(s.ctx, s.opts.Workers, indexes(len(missing)), func(ctx context.Context, i int) error {
		p := missing[i]
		var err error
		arrived[i], err = s.transfer(ctx, layout.PackKey(s.src, chain, p.ID), int64(p.Size), p.ID.String(), id)
		return err
	})
	for i, p := range missing {
		name := inventory.Pack{Chain: chain, ID: p.ID}
		if arrived[i] {
			s.done[name] = held{at: s.opts.Now()}
			continue
		}
		s.bad[s.ours.PackKey(name)], complete = true, false
	}
	return complete, err
}

func indexes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// copyList copies one list unless the copy has it.
func (s *source) copyList(l snapshot.List, id snapshot.ID) (bool, error) {
	key := layout.ListKey(s.src, l.List)
	hash, err := layout.ParseHash(l.List)
	if err != nil {
		return false, err
	}
	o, there := s.theirs.Lists[hash]
	switch {
	case there && o.Size == l.Size:
		s.present(1)
		return true, nil
	case there:
		s.note(key, fmt.Sprintf("has %d bytes instead of %d", o.Size, l.Size), true, id)
		return false, nil
	}
	ok, err := s.transfer(s.ctx, key, l.Size, l.List, id)
	if ok {
		s.theirs.Lists[hash] = inventory.Object{Size: l.Size}
		s.listed[l.List] = held{at: s.opts.Now(), named: s.listed[l.List].named}
	}
	return ok, err
}

// keyDocuments are the key objects that the copy does not have.
func (s *source) keyDocuments() []string {
	var out []string
	for k := range s.ours.Keys {
		if _, there := s.theirs.Keys[k]; !there {
			out = append(out, s.ours.KeyKey(k))
		}
	}
	slices.Sort(out)
	return out
}

// otherDocuments are the receipts, marks and removals that the copy does not have. Where the copy
// has its own under the same key, such as the announcement of its own removal, that one stays.
func (s *source) otherDocuments() []string {
	var out []string
	add := func(key string, there bool) {
		if !there {
			out = append(out, key)
		}
	}
	for m := range s.ours.Marks {
		_, there := s.theirs.Marks[m]
		add(s.ours.MarkKey(m), there)
	}
	for n := range s.ours.Condemned {
		_, there := s.theirs.Condemned[n]
		add(s.ours.CondemnedKey(n), there)
	}
	for n := range s.ours.Expired {
		_, there := s.theirs.Expired[n]
		add(s.ours.ExpiredKey(n), there)
	}
	// Records of damaged packs stay where they are: they tell of the original's objects, the copy's are good.
	for key := range s.ours.Receipts {
		_, there := s.theirs.Receipts[key]
		add(key, there)
	}
	slices.Sort(out)
	return out
}

// documents copies signed documents, each after its signature was checked.
func (s *source) documents(keys []string) error {
	return parallel.Each(s.ctx, s.opts.Workers, keys, func(ctx context.Context, key string) error {
		doc, err := s.from.Document(ctx, key, nil)
		switch {
		case errors.Is(err, objstore.ErrNotExist):
			return nil // removed meanwhile
		case err != nil && doc != nil:
			s.note(key, err.Error(), false)
			return nil
		case err != nil:
			return err
		}
		err = s.put(ctx, key, doc)
		if errors.Is(err, objstore.ErrExist) {
			if !s.mayDiffer(key) {
				s.note(key, "exists with other content", true)
			}
			return nil
		}
		if err != nil {
			return err
		}
		s.copied(s.src, int64(len(doc)))
		return nil
	})
}

// mayDiffer reports whether the copy can rightly have its own document under the key, written by a prune or a
// verification of the copy: also since this run has listed it.
func (s *source) mayDiffer(key string) bool {
	for _, prefix := range []string{layout.CondemnedPrefix(s.src), layout.ExpiredPrefix(s.src), layout.DamagedPrefix(s.src)} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

package repair

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/parallel"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// readNamed reads an object that is named by its bytes, with its size, into w and says what is wrong with it.
func readNamed(ctx context.Context, store objstore.Store, key string, name snapshot.Hash, size int64, w io.Writer) (problem string, err error) {
	if size < 0 || size > maxNamed {
		return fmt.Sprintf("should have %d bytes", size), nil
	}
	body, err := store.Get(ctx, key, 0, size+1)
	if err != nil {
		return trouble(ctx, err)
	}
	defer func() { _ = body.Close() }()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(sum, w), io.LimitReader(body, size+1))
	switch {
	case err != nil:
		return trouble(ctx, err)
	case n > size:
		return fmt.Sprintf("it has more than its %d bytes", size), nil
	case n < size:
		return fmt.Sprintf("it has %d bytes instead of %d", n, size), nil
	case snapshot.Hash(sum.Sum(nil)) != name:
		return otherBytes, nil
	}
	return "", nil
}

// fetchNamed reads such an object of the copy into memory.
func (s *source) fetchNamed(ctx context.Context, key string, name snapshot.Hash, size int64) ([]byte, string, error) {
	if s.from == nil {
		return nil, "no copy was named", nil
	}
	b := bytes.NewBuffer(make([]byte, 0, max(0, min(size, maxNamed))+bytes.MinRead))
	problem, err := readNamed(ctx, s.from.Store(), key, name, size, b)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("the copy: %w", err)
	case problem != "":
		return nil, "in the copy: " + problem, nil
	}
	return b.Bytes(), "", nil
}

// putNamed puts a list or a pack back from the copy, if it has it, and returns its bytes.
func (s *source) putNamed(ctx context.Context, item *Item, name snapshot.Hash, size int64) ([]byte, error) {
	good, reason, err := s.fetchNamed(ctx, item.Key, name, size)
	if err != nil {
		return nil, err
	}
	if reason == "" {
		reason, err = s.replace(ctx, item.Key, good, item.Problem != missing)
		if err != nil {
			return nil, fmt.Errorf("put %s back: %w", item.Key, err)
		}
	}
	item.Outcome, item.Reason, item.Size = PutBack, reason, size
	if reason != "" {
		item.Outcome = Left
	}
	return good, nil
}

// repairLists reads every list that a manifest names, here or else in the copy, and puts back what is not in order.
func (s *source) repairLists(ctx context.Context) error {
	users := map[string][]*repository.Stored{}
	sizes := map[string]int64{}
	for _, n := range s.numbers() {
		for _, l := range s.manifests[n].Lists {
			users[l.List] = append(users[l.List], s.manifests[n])
			sizes[l.List] = l.Size
		}
	}
	return parallel.Each(ctx, s.opts.Workers, slices.Sorted(maps.Keys(users)), func(ctx context.Context, list string) error {
		name, err := layout.ParseHash(list)
		if err != nil {
			return err // the manifest's own check refuses it
		}
		item := Item{Key: s.inv.ListKey(name)}
		var b bytes.Buffer
		if item.Problem, err = readNamed(ctx, s.store, item.Key, name, sizes[list], &b); err != nil {
			return fmt.Errorf("read %s: %w", item.Key, err)
		}
		good := b.Bytes()
		if item.Problem != "" {
			if good, err = s.putNamed(ctx, &item, name, sizes[list]); err != nil {
				return err
			}
			if item.Outcome == Left {
				item.Snapshots, item.FilesUnknown = ids(users[list]), true
			}
			s.note(item)
		}
		packs, err := snapshot.DecodeList(good)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.absent[item.Key] = item.Outcome == Left
		s.broken = s.broken || err != nil
		if err == nil {
			s.lists[list] = packs
		}
		return nil
	})
}

func ids(manifests []*repository.Stored) []snapshot.ID {
	out := make([]snapshot.ID, len(manifests))
	for i, m := range manifests {
		out[i] = m.ID()
	}
	return out
}

// infos are the packs that m uses; false if a list is not known.
func infos(m *repository.Stored, lists map[string][]snapshot.PackInfo) ([]snapshot.PackInfo, bool) {
	var all []snapshot.PackInfo
	for _, l := range m.Lists {
		packs, ok := lists[l.List]
		if !ok {
			return nil, false
		}
		all = append(all, packs...)
	}
	live, err := repository.LivePacks(m.Manifest, all)
	return live, err == nil
}

// live names the packs that m uses; false if not all are known.
func (s *source) live(m *repository.Stored) ([]inventory.Pack, bool) {
	chain, err := layout.ParseChain(m.Chain)
	all, ok := infos(m, s.lists)
	if err != nil || !ok {
		return nil, false
	}
	out := make([]inventory.Pack, len(all))
	for i, p := range all {
		out[i] = inventory.Pack{Chain: chain, ID: p.ID}
	}
	return out, true
}

// namePacks finds out which packs are named, by whom.
func (s *source) namePacks(context.Context) error {
	for _, n := range s.numbers() {
		m := s.manifests[n]
		names, ok := s.live(m)
		if !ok {
			s.broken = true
			continue
		}
		all, _ := infos(m, s.lists)
		for i, name := range names {
			p := s.packs[name]
			if p == nil {
				p = &pack{Pack: name, key: s.inv.PackKey(name), size: int64(all[i].Size)}
				s.packs[name] = p
			}
			p.users = append(p.users, m)
		}
	}
	return nil
}

// repairPacks looks at the packs that give reason to, or at all.
func (s *source) repairPacks(ctx context.Context) error {
	var chosen []*pack
	var total int64
	for _, p := range s.packs {
		o, there := s.inv.Packs[p.Pack]
		_, marked := s.inv.Damaged[p.ID]
		if !there || marked || s.opts.Check || o.Size != p.size || o.Checksum == inventory.Differs {
			chosen = append(chosen, p)
			total += p.size
		}
	}
	slices.SortFunc(chosen, func(a, b *pack) int { return strings.Compare(a.key, b.key) })
	s.progress(func(at *Progress) {
		at.Source, at.TotalPacks, at.TotalBytes = s.src, at.TotalPacks+len(chosen), at.TotalBytes+total
	})
	return parallel.Each(ctx, s.opts.Workers, chosen, func(ctx context.Context, p *pack) error {
		if err := s.repairPack(ctx, p); err != nil {
			return err
		}
		s.progress(func(at *Progress) { at.Packs, at.Bytes = at.Packs+1, at.Bytes+p.size })
		return nil
	})
}

// repairPack reads one pack and does what is needed:
//
//  1. It is in order: its record, if there is one, is removed. One that is archived is passed by.
//  2. It is not, and the copy has the identical bytes: they are put back as [run.replace] says, then the record is
//     removed. A crash before that leaves the record of a pack that is in order: the next run comes to 1.
//  3. Else the damage is put on record, so that the next backup stores its chunks again.
func (s *source) repairPack(ctx context.Context, p *pack) error {
	item := Item{Key: p.key, Size: p.size}
	var err error
	if _, there := s.inv.Packs[p.Pack]; !there {
		item.Problem = missing
	} else if item.Problem, err = readNamed(ctx, s.store, p.key, p.ID, p.size, io.Discard); err != nil {
		return fmt.Errorf("read %s: %w", p.key, err)
	}
	_, marked := s.inv.Damaged[p.ID]
	if item.Problem == "" {
		s.mu.Lock()
		s.result.Packs++
		s.result.Bytes += p.size
		s.mu.Unlock()
		if !marked {
			return nil
		}
		item.Problem, item.Outcome = "on record as damaged, and in order", Cleared
		return s.clear(ctx, item, s.inv.DamagedKey(p.ID))
	}
	if s.passBy(&item, marked) {
		if marked {
			s.leave(p, item)
		}
		return nil
	}
	if _, err := s.putNamed(ctx, &item, p.ID, p.size); err != nil {
		return err
	}
	if item.Outcome == PutBack && marked {
		return s.clear(ctx, item, s.inv.DamagedKey(p.ID))
	}
	if item.Outcome == PutBack {
		s.note(item)
		return nil
	}
	s.leave(p, item)
	_, signs := s.identity.Signer()
	if marked || !signs || s.opts.DryRun || strings.HasPrefix(item.Problem, unreadable) {
		return nil // that the store could not read it now says nothing about tomorrow
	}
	return s.mark(ctx, p, item.Problem)
}

// leave keeps the item of a pack that stays as it is; it is noted when its files are known.
func (s *source) leave(p *pack, item Item) {
	item.Snapshots = ids(p.users)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.item, s.absent[p.key] = &item, true
}

// clear notes the item and removes the record of its damage, which is under a key.
func (s *source) clear(ctx context.Context, item Item, recordKey string) error {
	forbidden, err := s.takeAway(ctx, recordKey)
	if err != nil {
		return fmt.Errorf("remove the record that %s is damaged: %w", item.Key, err)
	}
	if forbidden != "" {
		item.Reason = "its record could not be removed: " + forbidden
	}
	if forbidden != "" && item.Outcome == Cleared {
		item.Outcome = Left
	}
	s.note(item)
	return nil
}

// mark puts the damage of a pack on record.
func (s *source) mark(ctx context.Context, p *pack, problem string) error {
	err := s.repo.PutDocument(ctx, s.inv.DamagedKey(p.ID), record.Damaged{
		Pack: p.ID.String(), Chain: p.Chain.String(), Time: s.opts.Now().UTC(), Problem: problem,
	})
	if err != nil && !errors.Is(err, objstore.ErrExist) {
		return fmt.Errorf("record the damage of pack %s: %w", p.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Marked++
	return nil
}

// clearRecords removes the records of packs that are gone and that nothing names any more.
func (s *source) clearRecords(ctx context.Context) error {
	if s.broken {
		return nil
	}
	known := map[snapshot.Hash]bool{}
	for name := range s.packs {
		known[name.ID] = true
	}
	for name := range s.inv.Packs {
		known[name.ID] = true // prune removes it, and the record with it
	}
	for id := range s.inv.Damaged {
		if known[id] {
			continue
		}
		item := Item{Key: s.inv.DamagedKey(id), Problem: "it is about a pack that nothing names any more", Outcome: Cleared}
		if err := s.clear(ctx, item, s.inv.DamagedKey(id)); err != nil {
			return err
		}
	}
	return nil
}

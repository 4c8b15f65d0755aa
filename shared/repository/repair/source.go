package repair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// source is the repair of one source.
type source struct {
	*run
	src    snapshot.Source
	inv    *inventory.Inventory
	copied *inventory.Inventory // of the copy; empty where there is none

	manifests map[uint64]*repository.Stored     // in order, here or in the copy
	back      map[uint64]string                 // those of them that only the copy has, with what is wrong here
	wrapped   map[string]repository.KeyDocument // key objects that the manifests repeat
	lists     map[string][]snapshot.PackInfo
	packs     map[inventory.Pack]*pack
	absent    map[string]bool // keys of lists and packs that are not in order after this run
	broken    bool            // not everything that is named is known
}

// pack is a pack that some manifest names.
type pack struct {
	inventory.Pack
	key   string
	size  int64
	users []*repository.Stored // ascending
	item  *Item                // if it was left
}

// repairSource repairs what stands alone first and what names it last, as a backup writes: documents, lists, packs,
// manifests. So a manifest that was missing is put back when all that it names is there.
func (r *run) repairSource(ctx context.Context, src snapshot.Source) error {
	s := &source{
		run: r, src: src, manifests: map[uint64]*repository.Stored{}, back: map[uint64]string{},
		lists: map[string][]snapshot.PackInfo{}, packs: map[inventory.Pack]*pack{}, absent: map[string]bool{},
	}
	for _, step := range []func(context.Context) error{
		s.load, s.repairDocuments, s.repairLists, s.namePacks, s.repairPacks, s.clearRecords, s.repairManifests, s.repairLogs, s.affected,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// load reads the manifests of both sides and lists them.
func (s *source) load(ctx context.Context) error {
	stored, bad, err := manifestsOf(ctx, s.repo, s.src)
	if err != nil {
		return err
	}
	if s.inv, err = inventory.Take(ctx, s.store, s.src); err != nil {
		return err
	}
	for _, m := range stored {
		s.manifests[m.Sequence] = m
	}
	var theirs []*repository.Stored
	s.copied = &inventory.Inventory{Source: s.src}
	if s.from != nil {
		if theirs, _, err = manifestsOf(ctx, s.from, s.src); err != nil {
			return fmt.Errorf("the copy: %w", err)
		}
		if s.copied, err = inventory.Take(ctx, s.from.Store(), s.src); err != nil {
			return fmt.Errorf("the copy: %w", err)
		}
	}
	if err := s.adopt(theirs, bad); err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(bad)) {
		if _, ok := s.manifests[n]; !ok {
			s.broken = true
			s.note(Item{Key: s.inv.ManifestKey(n), Problem: bad[n].Error(), Outcome: Left, Reason: s.noGood()})
		}
	}
	return nil
}

// noGood is why something that a copy could have is not put back.
func (s *source) noGood() string {
	if s.from == nil {
		return "no copy was named"
	}
	return "the copy has none that is in order and fits"
}

func manifestsOf(ctx context.Context, repo *repository.Repository, src snapshot.Source) ([]*repository.Stored, map[uint64]error, error) {
	stored, err := repo.Manifests(ctx, src)
	if err == nil {
		return stored, nil, nil
	}
	bad := new(repository.BadManifestError)
	if !errors.As(err, &bad) {
		return nil, nil, err
	}
	for n, err := range bad.Errors {
		if objstore.IsTransient(err) || errors.Is(err, objstore.ErrDenied) {
			return nil, nil, fmt.Errorf("manifest %d: %w", n, err)
		}
	}
	return stored, bad.Errors, nil
}

// adopt takes the copy's manifests where the repository's are missing or damaged. Retention may have removed some here:
// a record says so. A manifest that is not linked with its neighbours belongs to another history.
func (s *source) adopt(theirs []*repository.Stored, bad map[uint64]error) error {
	for _, m := range theirs {
		ours, there := s.manifests[m.Sequence]
		_, expired := s.inv.Expired[m.Sequence]
		switch {
		case there && ours.Hash != m.Hash:
			return fmt.Errorf("%w: %s", ErrDiverged, layout.ManifestKey(m.ID()))
		case there, expired && bad[m.Sequence] == nil:
			continue
		}
		s.back[m.Sequence] = missing
		if err := bad[m.Sequence]; err != nil {
			s.back[m.Sequence] = err.Error()
		}
		s.manifests[m.Sequence] = m
	}
	for n := range s.back {
		if !s.linked(n) {
			return fmt.Errorf("%w: %s does not follow the snapshot before it, or is not followed by the next", ErrDiverged, s.inv.ManifestKey(n))
		}
	}
	return nil
}

// linked reports whether manifest n fits to those beside it, as far as they are known.
func (s *source) linked(n uint64) bool {
	m := s.manifests[n]
	if before := s.manifests[n-1]; before != nil && m.Previous != before.Hash.String() {
		return false
	}
	after := s.manifests[n+1]
	return after == nil || after.Previous == m.Hash.String()
}

// numbers are the sequence numbers of all manifests, ascending.
func (s *source) numbers() []uint64 { return slices.Sorted(maps.Keys(s.manifests)) }

// repairManifests puts back the manifests that only the copy has, last of all. One that is missing here comes back only
// if what it names is there: a snapshot that is listed is complete.
func (s *source) repairManifests(ctx context.Context) error {
	for _, n := range slices.Sorted(maps.Keys(s.back)) {
		m, item := s.manifests[n], Item{Key: s.inv.ManifestKey(n), Problem: s.back[n], Outcome: Left}
		if item.Problem == missing && !s.complete(m) {
			item.Reason = "not everything that it names is there"
			s.note(item)
			continue
		}
		if _, err := s.store.Stat(ctx, s.inv.ExpiredKey(n)); item.Problem == missing && err == nil {
			continue // prune has removed it meanwhile
		}
		if err := s.putProven(ctx, item, m.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// complete reports whether all lists and packs of m are in order.
func (s *source) complete(m *repository.Stored) bool {
	for _, l := range m.Lists {
		if s.absent[layout.ListKey(s.src, l.List)] {
			return false
		}
	}
	packs, ok := s.live(m)
	return ok && !slices.ContainsFunc(packs, func(p inventory.Pack) bool { return s.absent[s.inv.PackKey(p)] })
}

package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// source is the verification of one source.
type source struct {
	c         *checker
	src       snapshot.Source
	inv       *inventory.Inventory
	stored    map[uint64]*repository.Stored // manifests that are in order
	bad       map[uint64]bool               // manifests that are there but not in order
	gone      map[uint64]bool               // manifests that should be there
	expired   map[uint64]*record.Expired    // valid ones
	snaps     []*snap                       // wanted ones whose manifests are in order, ascending
	lists     map[listName]*list
	chains    map[snapshot.ChainID]*chain
	documents atomic.Int64
	chunks    atomic.Uint64

	unnamedPacks int
	unnamedBytes int64
}

// snap is one snapshot to check.
type snap struct {
	*repository.Stored
	id      snapshot.ID
	chain   *chain
	lists   []*list
	entries uint64
}

// list is one pack list, read once for all snapshots.
type list struct {
	key   string
	found bool // read and in order
	packs []*pack
}

func newSource(c *checker, src snapshot.Source) *source {
	return &source{
		c: c, src: src, stored: map[uint64]*repository.Stored{}, bad: map[uint64]bool{}, gone: map[uint64]bool{}, expired: map[uint64]*record.Expired{},
		lists: map[listName]*list{}, chains: map[snapshot.ChainID]*chain{},
	}
}

// checkSource runs all checks of one source.
func (c *checker) checkSource(ctx context.Context, src snapshot.Source) error {
	s := newSource(c, src)
	if err := s.load(ctx); err != nil {
		return err
	}
	steps := []func(context.Context) error{s.checkRecords, s.checkLinks, s.choose, s.checkKeys, s.checkLists, s.checkPacks, s.checkLogs}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.finish(ctx)
}

// load reads the manifests and then lists the source. In this order, what a backup adds meanwhile is no concern of
// this run, and each pack of a manifest that was read is in the listing; what prune removes meanwhile is no longer
// in the listing as a manifest either, because it goes before its packs.
func (s *source) load(ctx context.Context) error {
	stored, err := s.c.repo.Manifests(ctx, s.src)
	bad := new(repository.BadManifestError)
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	if s.inv, err = inventory.Take(ctx, s.c.repo.Store(), s.src); err != nil {
		return err
	}
	for _, m := range stored {
		if _, ok := s.inv.Manifests[m.Sequence]; ok {
			s.stored[m.Sequence] = m
		}
	}
	for n, err := range bad.Errors {
		if _, ok := s.inv.Manifests[n]; !ok {
			continue
		}
		s.bad[n] = true
		if err := s.badManifest(ctx, n, err); err != nil {
			return err
		}
	}
	s.documents.Add(int64(len(s.stored)))
	for _, o := range s.inv.Unknown {
		s.c.findings.warn(o.Key, Unexpected, "the format has no such object")
	}
	return nil
}

// badManifest notes what is wrong with a manifest; the document is read again to see whether it is another one.
func (s *source) badManifest(ctx context.Context, n uint64, cause error) error {
	key := s.inv.ManifestKey(n)
	doc, err := s.c.repo.Document(ctx, key, nil)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = cause // the signature is in order, what it signs is not
	}
	s.badDocument(key, doc, err, s.id(n))
	return nil
}

func (s *source) id(n uint64) snapshot.ID { return snapshot.ID{Source: s.src, Sequence: n} }

// checkLinks checks that the manifests form one chain from number 1 and reach what was seen before.
func (s *source) checkLinks(context.Context) error {
	highest := s.highest()
	for n := uint64(1); n <= highest; n++ {
		m, there := s.stored[n]
		expired := s.expired[n]
		switch {
		case there && expired != nil:
			// A crash of prune, or a copy of a repository where it was removed: it can still be restored.
		case !there && !s.bad[n] && expired == nil:
			s.gone[n] = true
			s.c.findings.add(s.inv.ManifestKey(n), Missing, "no record says that retention removed it", s.id(n))
		}
		previous, key := "", s.inv.ManifestKey(n)
		switch {
		case there:
			previous = m.Previous
		case expired != nil:
			previous, key = expired.Previous, s.inv.ExpiredKey(n)
		default:
			continue
		}
		if before, known := s.hash(n - 1); known && previous != before {
			s.c.findings.add(key, Unlinked, fmt.Sprintf("it names another manifest %d than the one that is there", n-1), s.thereOnly(n)...)
		}
	}
	s.checkSeen(highest)
	return nil
}

func (s *source) highest() uint64 {
	var highest uint64
	for n := range s.stored {
		highest = max(highest, n)
	}
	for n := range s.bad {
		highest = max(highest, n)
	}
	for n := range s.expired {
		highest = max(highest, n)
	}
	return highest
}

// thereOnly is the snapshot n if its manifest is there.
func (s *source) thereOnly(n uint64) []snapshot.ID {
	if _, ok := s.stored[n]; ok {
		return []snapshot.ID{s.id(n)}
	}
	return nil
}

// hash returns the hash of manifest n, as stored or as recorded at its removal; of number 0 it is empty.
func (s *source) hash(n uint64) (string, bool) {
	if n == 0 {
		return "", true
	}
	if m, ok := s.stored[n]; ok {
		return m.Hash.String(), true
	}
	if e, ok := s.expired[n]; ok {
		return e.Manifest, true
	}
	return "", false
}

// checkSeen compares with what somebody saw before.
func (s *source) checkSeen(highest uint64) {
	seen, ok := s.c.opts.Expect[s.src]
	if !ok || seen.Sequence == 0 {
		return
	}
	key := s.inv.ManifestKey(seen.Sequence)
	if seen.Sequence > highest {
		s.c.findings.add(key, RolledBack, fmt.Sprintf("snapshots end with number %d; number %d was seen before", highest, seen.Sequence), s.id(seen.Sequence))
		return
	}
	now, known := s.hash(seen.Sequence)
	if known && seen.Manifest != (snapshot.Hash{}) && now != seen.Manifest.String() {
		s.c.findings.add(key, RolledBack, "it is not the manifest that was seen before under this number", s.id(seen.Sequence))
	}
}

// choose picks the wanted snapshots.
func (s *source) choose(context.Context) error {
	for _, id := range s.c.opts.Snapshots {
		if id.Source != s.src || s.stored[id.Sequence] != nil || s.bad[id.Sequence] {
			continue
		}
		if s.expired[id.Sequence] != nil || id.Sequence > s.highest() {
			return fmt.Errorf("%w: %s", repository.ErrNoSnapshot, id)
		}
	}
	numbers := make([]uint64, 0, len(s.stored))
	for n := range s.stored {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		if s.c.wanted(s.id(n)) {
			s.snaps = append(s.snaps, &snap{Stored: s.stored[n], id: s.id(n)})
		}
	}
	return nil
}

// meter counts what is read, for the progress.
type meter struct {
	mu sync.Mutex
	at Progress // guarded by mu
}

func (c *checker) progress(change func(*Progress)) {
	c.meter.mu.Lock()
	defer c.meter.mu.Unlock()
	change(&c.meter.at)
	if c.opts.Progress != nil {
		c.opts.Progress(c.meter.at)
	}
}

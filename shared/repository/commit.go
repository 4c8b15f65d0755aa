package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var (
	// ErrConflict says that another host committed the snapshot's number first. Nothing is lost: the next run goes on
	// from there.
	ErrConflict = errors.New("another run committed this snapshot's number first")
	// ErrTooOld says that a run took so long that its first packs might be pruned.
	ErrTooOld = errors.New("run is older than 5 days")
	// ErrCondemned says that the parent was condemned while the run was at work.
	ErrCondemned = errors.New("the parent is about to be removed")
)

const (
	maxLists = 32 // more are joined
	// A list of more packs might be larger than objects may be.
	maxListPacks = 500_000
	// A new list is written when more than a quarter of what the lists name is not used any more.
	deadShare = 4
)

// Result is what the source saw and did.
type Result struct {
	Roots    []string
	Counts   snapshot.Counts // without added bytes and packs, which the session knows
	Problems []snapshot.Problem
	Partial  bool
	Tags     []string
	Started  time.Time
	// Until is, for what has a clock of its own, a time by that clock before which all that the snapshot holds was written: it
	// does not count as finished before. Zero: the host's clock is that of the source.
	Until time.Time
	// Log is, for a continuous source, the place in its log up to which the snapshot holds all records, and of the later
	// ones nothing that the next record does not hold as well; nil: not known.
	Log *snapshot.LogPlace
	// Postgres is, for a base backup, of which cluster it is and which WAL it needs.
	Postgres *snapshot.Postgres
}

// Commit makes the snapshot exist. The order, and what a crash leaves:
//
//  1. The last chunks and packs are stored. A crash leaves packs that the journal knows: the next run uses them.
//  2. The pack lists are stored. A crash leaves lists that nothing names; prune removes them.
//  3. The parent is looked at again; a condemned one is not built on.
//  4. The manifest is put if absent: now the snapshot exists.
//  5. The state directory is brought up to date. A crash leaves an old state, which the next run notices.
//
// Errors: ErrConflict, ErrTooOld, ErrCondemned, those of the store. After an error the session is over; what is
// stored waits for the next one.
func (s *Session) Commit(ctx context.Context, result Result) (*Stored, error) {
	if s.done {
		return nil, errClosed
	}
	m, root, err := s.storeAll(ctx, result)
	if err != nil {
		return nil, errors.Join(err, s.giveUp(err), s.Close())
	}
	stored, err := s.putManifest(ctx, m, s.tree.live)
	if err != nil {
		return nil, errors.Join(err, s.giveUp(err), s.Close())
	}
	s.done = true
	return stored, errors.Join(s.remember(stored, root), s.journal.close(), s.maps.close(), s.pages.close(), s.state.close())
}

// giveUp sees to it that the next run does not take up what is too old.
func (s *Session) giveUp(err error) error {
	if !errors.Is(err, ErrTooOld) {
		return nil
	}
	return errors.Join(s.state.remove(journalFile), s.state.remove(pendingFile))
}

// storeAll makes everything durable that the manifest will name: steps 1 and 2.
func (s *Session) storeAll(ctx context.Context, result Result) (*snapshot.Manifest, []byte, error) {
	rootRef, root, err := s.tree.finish(ctx, result.Roots)
	if err != nil {
		return nil, nil, err
	}
	m := s.manifest(result)
	m.Root = rootRef.JSON()
	if len(result.Problems) > 0 {
		ref, err := s.Chunk(ctx, snapshot.Report, snapshot.MarshalReport(result.Problems))
		if err != nil {
			return nil, nil, err
		}
		s.tree.live.set(ref.Pack)
		j := ref.JSON()
		m.Report = &j
	}
	if err := s.packs.flush(); err != nil {
		return nil, nil, err
	}
	if err := s.putLists(ctx, m, s.tree.live); err != nil {
		return nil, nil, err
	}
	m.Counts.LiveBytes = s.tree.alive.sum()
	return m, root, nil
}

func (s *Session) manifest(result Result) *snapshot.Manifest {
	m := &snapshot.Manifest{
		Format: Format, Repository: s.repo.id.String(), Host: s.src.Host, Source: s.src.Name, Kind: s.options.Kind,
		Sequence: s.plan.next, Previous: s.plan.previous, Type: s.plan.kind, Chain: s.plan.chain.String(), ChainStart: s.plan.chainStart,
		Started: result.Started.UTC(), Finished: result.Until.UTC(), Tool: s.options.Tool,
		Keys:   []snapshot.Key{{Key: s.plan.key.ID(s.repo.id).String(), Wrapped: s.plan.wrapped}},
		Counts: result.Counts, Partial: result.Partial, Tags: result.Tags, Log: result.Log, Postgres: result.Postgres,
	}
	switch {
	case m.Type == snapshot.Full: // also one that goes on with an unfinished full
		m.ChainStart = m.Sequence
	case s.plan.parent != nil:
		m.Parent = s.plan.parent.stored.Sequence
	}
	return m
}

// putLists stores what is new in the pack lists and fills in which packs the snapshot uses: those in live.
func (s *Session) putLists(ctx context.Context, m *snapshot.Manifest, live *bitset) error {
	var old []snapshot.PackInfo
	var err error
	if s.plan.newest != nil {
		m.Lists = slices.Clone(s.plan.newest.Lists)
		if old, err = s.plan.listed(ctx, s.repo); err != nil {
			return err
		}
	}
	added, err := s.addedPacks(ctx, m, old, live)
	if err != nil {
		return err
	}
	if n, ok := live.firstNotIn(old, added); ok {
		return fmt.Errorf("the tree needs pack %d of the chain: %w", n, errNoPack)
	}
	slices.SortFunc(old, byNumber)
	dead := slices.DeleteFunc(slices.Clone(old), func(p snapshot.PackInfo) bool { return live.has(p.Number) })
	for _, p := range append(slices.Clone(old), added...) {
		if live.has(p.Number) {
			m.Counts.PackBytes += p.Size
		}
	}
	if len(m.Lists) >= maxLists || len(dead)*deadShare > len(old) {
		used := slices.DeleteFunc(old, func(p snapshot.PackInfo) bool { return !live.has(p.Number) })
		m.Lists, dead = nil, nil
		added = append(used, added...)
		slices.SortFunc(added, byNumber)
	}
	m.Without = ranges(dead)
	for part := range slices.Chunk(added, maxListPacks) {
		if err := s.putList(ctx, m, part, live); err != nil {
			return err
		}
	}
	return nil
}

// addedPacks are the packs that the tree needs and that are not among old, those of the newest snapshot's lists: what
// this run stored and, for a differential, what only its full still uses. Ascending by number.
func (s *Session) addedPacks(ctx context.Context, m *snapshot.Manifest, old []snapshot.PackInfo, live *bitset) ([]snapshot.PackInfo, error) {
	m.NextPack = s.plan.nextPack
	listed := new(bitset)
	for _, p := range old {
		listed.set(p.Number)
	}
	var added []snapshot.PackInfo
	s.mu.Lock()
	for _, p := range s.written {
		m.NextPack = max(m.NextPack, p.Number+1)
		if live.has(p.Number) && !listed.has(p.Number) {
			added = append(added, p.PackInfo)
			m.Counts.AddedPacks++
			m.Counts.AddedBytes += p.Size
		}
	}
	s.mu.Unlock()
	if s.plan.parent != nil && s.plan.parent.stored.Sequence != s.plan.newest.Sequence {
		packs, err := s.repo.Lists(ctx, s.plan.parent.stored.Manifest)
		if err != nil {
			return nil, err
		}
		for _, p := range packs {
			if live.has(p.Number) && !listed.has(p.Number) {
				added = append(added, p)
			}
		}
	}
	slices.SortFunc(added, byNumber)
	return added, nil
}

func byNumber(a, b snapshot.PackInfo) int { return compare(a.Number, b.Number) }

func (s *Session) putList(ctx context.Context, m *snapshot.Manifest, packs []snapshot.PackInfo, live *bitset) error {
	content := objstore.Bytes(snapshot.EncodeList(packs))
	l := snapshot.List{List: snapshot.Hash(content.SHA256).String(), Size: content.Size, Packs: len(packs)}
	for _, p := range packs {
		l.Bytes += int64(p.Size)
	}
	key := layout.ListKey(s.src, l.List)
	if err := s.repo.store.Put(ctx, key, content); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	m.Lists = append(m.Lists, l)
	return s.checkAge(ctx, key, live)
}

// checkAge asks the store how much older the first pack that the run stored and needs is than the list that was stored just now. The host's own
// clock may have been set back since, or have stood still while the host was suspended; prune goes by the store's.
// It lists, for a host may have no right to look at packs. Errors: ErrTooOld.
func (s *Session) checkAge(ctx context.Context, list string, live *bitset) error {
	oldest, ok := s.oldest(live)
	if !ok {
		return nil
	}
	first, err := s.arrival(ctx, layout.PackKey(s.src, s.plan.chain, oldest.ID))
	if err != nil {
		return err
	}
	now, err := s.arrival(ctx, list)
	if err != nil {
		return err
	}
	if now.Sub(first) > maxRun {
		return fmt.Errorf("%w, by the store's clock", ErrTooOld)
	}
	return nil
}

// oldest is the pack that has been in the store longest of those in live that no manifest names yet.
func (s *Session) oldest(live *bitset) (storedPack, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.written { // in the order of their arrival
		if live.has(p.Number) {
			return p, true
		}
	}
	return storedPack{}, false
}

// arrival is when an object of this run arrived. Errors: ErrTooOld if it is not there any more.
func (s *Session) arrival(ctx context.Context, key string) (time.Time, error) {
	var at time.Time
	err := s.repo.store.List(ctx, key, func(o objstore.Info) error {
		if o.Key == key {
			at = o.Modified
		}
		return nil
	})
	if err != nil {
		return at, fmt.Errorf("list %s: %w", key, err)
	}
	if at.IsZero() {
		return at, fmt.Errorf("%w: %s is gone", ErrTooOld, key)
	}
	return at, nil
}

// ranges joins neighbouring pack numbers.
func ranges(packs []snapshot.PackInfo) [][2]uint64 {
	var out [][2]uint64
	for _, p := range packs {
		if n := len(out); n > 0 && out[n-1][1]+1 == p.Number {
			out[n-1][1] = p.Number
			continue
		}
		out = append(out, [2]uint64{p.Number, p.Number})
	}
	return out
}

// putManifest commits: steps 3 and 4.
func (s *Session) putManifest(ctx context.Context, m *snapshot.Manifest, live *bitset) (*Stored, error) {
	if s.tooOld(live) {
		return nil, ErrTooOld
	}
	if err := s.checkCondemned(ctx); err != nil {
		return nil, err
	}
	// Not earlier: the last packs may have travelled for long, and who compares with the manifest's arrival would take
	// that for a wrong clock.
	// Nor earlier than the source's own clock says, by which its log goes; one that is far off can only be told.
	if now := s.options.Now().UTC(); !m.Finished.After(now) || m.Finished.Sub(now) > ClockTolerance/2 {
		m.Finished = now
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	id := m.ID()
	doc, err := s.repo.putDocument(ctx, layout.ManifestKey(id), m)
	if errors.Is(err, objstore.ErrExist) {
		return nil, fmt.Errorf("%w: %s", ErrConflict, id)
	}
	if err != nil {
		return nil, err
	}
	info, err := s.repo.store.Stat(ctx, layout.ManifestKey(id))
	if err != nil {
		info.Modified = m.Finished // the snapshot exists; that the store does not tell when it arrived undoes nothing
	}
	return s.repo.parseManifest(id, doc, info.Modified)
}

// tooOld tells by the host's clock: without the monotonic reading, which stands still while a host is suspended, and
// with it: clocks are set.
func (s *Session) tooOld(live *bitset) bool {
	now := s.options.Now()
	age := max(now.Round(0).Sub(s.plan.begun).Abs(), now.Sub(s.marked))
	if p, ok := s.oldest(live); ok {
		age = max(age, now.Round(0).Sub(p.at.Round(0)).Abs(), now.Sub(p.at))
	}
	return age > maxRun
}

// checkCondemned looks at what the snapshot builds on once more. Errors: ErrCondemned.
func (s *Session) checkCondemned(ctx context.Context) error {
	if s.plan.newest == nil {
		return nil
	}
	condemned, err := s.repo.Condemned(ctx, s.src)
	if err != nil {
		return err
	}
	for _, c := range condemned {
		if c.Sequence == s.plan.newest.Sequence || s.plan.parent != nil && c.Sequence == s.plan.parent.stored.Sequence {
			return fmt.Errorf("%w: snapshot %d", ErrCondemned, c.Sequence)
		}
	}
	return nil
}

// remember brings the state directory up to date: step 5.
func (s *Session) remember(m *Stored, root []byte) error {
	err := s.tree.cache.commit(s.state, parentFile, root)
	return errors.Join(err, s.rememberChain(m), s.state.remove(journalFile), s.state.remove(unfinishedFile))
}

// rememberChain notes the chain that goes on and the newest snapshot.
func (s *Session) rememberChain(m *Stored) error {
	c := chainState{Chain: m.Chain, Key: s.plan.key[:], Wrapped: s.plan.wrapped, Begun: s.plan.begun, Sequence: m.ChainStart}
	return errors.Join(
		s.state.save(chainFile, c),
		s.state.save(lastFile, lastSeen{Sequence: m.Sequence, Manifest: m.Hash.String(), Access: s.plan.access}),
		s.state.remove(pendingFile))
}

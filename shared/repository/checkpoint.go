package repository

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// CheckpointInterval is how long a run goes on, unless its options say otherwise, before it commits what it has.
const CheckpointInterval = 24 * time.Hour

// Checkpoint says how a long run commits unfinished snapshots on the way. What no manifest names is pruned after some
// time, so without them a run of many days would never come to its end; and if it is killed, the next one goes on from
// the last of them, without reading again what it holds.
//
// An unfinished snapshot is of the type of its run, marked unfinished and partial. It holds what was captured, and for
// the paths that come later what the parent held, if there is one. It satisfies no objective, displaces no complete
// snapshot, and the next run of any type goes on from it. A full goes on in its chain: it is a full again, so that what
// comes in the end is one, and the chain has several.
//
// BUG: nothing is committed while one file is stored: a file that alone takes more than 5 days is never committed.
// docs/decisions/0025 says why.
type Checkpoint struct {
	Every     time.Duration // 0: CheckpointInterval; negative: never
	Roots     []string      // of the tree, as in [Result]; none: never
	Committed func(*Stored) // told of each; may be nil
}

// checkpointDue reports whether it is time, and something was stored that would be lost. Where nothing was, it can wait, but
// not until the run is too old: that the parent stays is seen only when something is committed.
func (s *Session) checkpointDue() bool {
	every := s.options.Checkpoint.Every
	if every == 0 {
		every = CheckpointInterval
	}
	if every < 0 || len(s.options.Checkpoint.Roots) == 0 {
		return false
	}
	if s.addedBytes.Load() == s.checkedBytes {
		every = max(every, maxRun/2)
	}
	now := s.options.Now()
	return max(now.Round(0).Sub(s.checked.Round(0)), now.Sub(s.checked)) >= every
}

// checkpoint commits what has been captured up to the entry last. The order is that of [Session.Commit], and so is what a
// crash leaves; packs that the snapshot does not name stay in the journal for what comes after it.
func (s *Session) checkpoint(ctx context.Context, last *snapshot.Entry) error {
	at, added := s.options.Now(), s.addedBytes.Load()
	if err := s.tree.cut(ctx); err != nil {
		return err
	}
	cache, err := s.copyTree()
	if err != nil {
		return err
	}
	tail := &treeBuilder{
		store: s.Chunk, cache: cache, live: &bitset{words: slices.Clone(s.tree.live.words)},
		last: s.tree.last, chunks: slices.Clone(s.tree.chunks),
	}
	m, root, err := s.storeUnfinished(ctx, tail, last)
	if err != nil {
		cache.discard()
		return fmt.Errorf("commit an unfinished snapshot: %w", err)
	}
	stored, err := s.putManifest(ctx, m, tail.live)
	if err != nil {
		cache.discard()
		return errors.Join(fmt.Errorf("commit an unfinished snapshot: %w", err), s.giveUp(err))
	}
	s.plan.newest, s.plan.next, s.plan.previous, s.plan.nextPack = stored, stored.Sequence+1, stored.Hash.String(), m.NextPack
	s.checked, s.checkedBytes = at, added
	if err := errors.Join(cache.commit(s.state, unfinishedFile, root), s.rememberChain(stored), s.goOn(at, tail.live)); err != nil {
		return err
	}
	if told := s.options.Checkpoint.Committed; told != nil {
		told(stored)
	}
	return nil
}

// storeUnfinished completes the tree with what the parent has after last, and makes everything durable that the
// manifest will name.
func (s *Session) storeUnfinished(ctx context.Context, tail *treeBuilder, last *snapshot.Entry) (*snapshot.Manifest, []byte, error) {
	counts, started, roots := s.counts, s.started, slices.Clone(s.options.Checkpoint.Roots)
	if parent := s.plan.parent; parent != nil {
		// Whether a file has changed is judged by when its capture began: the tail's was the parent's.
		if parent.stored.Started.Before(started) {
			started = parent.stored.Started
		}
		roots = append(roots, parent.root.Roots...)
		if err := s.emitTail(ctx, tail, last, &counts); err != nil {
			return nil, nil, err
		}
	}
	ref, root, err := tail.finish(ctx, outermost(roots))
	if err != nil {
		return nil, nil, err
	}
	problems := []snapshot.Problem{{
		Path: []byte(last.Path), Operation: "unfinished",
		Error: "the backup was still at work; what comes after this path is missing, or as it was before",
	}}
	report, err := s.Chunk(ctx, snapshot.Report, snapshot.MarshalReport(problems))
	if err != nil {
		return nil, nil, err
	}
	tail.live.set(report.Pack)
	m := s.manifest(Result{Counts: counts, Partial: true, Started: started})
	m.Unfinished, m.Root = true, ref.JSON()
	j := report.JSON()
	m.Report = &j
	if err := s.packs.sync(); err != nil {
		return nil, nil, err
	}
	return m, root, s.putLists(ctx, m, tail.live)
}

// emitTail adds the parent's entries after last.
func (s *Session) emitTail(ctx context.Context, tail *treeBuilder, last *snapshot.Entry, counts *snapshot.Counts) error {
	for e, err := range s.plan.parent.entries(ctx) {
		if err != nil {
			return err
		}
		switch {
		case snapshot.ComparePaths(e.Path, last.Path) <= 0:
			continue
		case last.Type != snapshot.Directory && snapshot.Within(last.Path, e.Path):
			continue // a directory has become something else: nothing lies below it any more
		case len(s.damaged) > 0 && s.isDamaged(e):
			continue
		}
		old := *e
		// Its other names may have other content by now.
		old.Linked = false
		if err := tail.emit(ctx, &old); err != nil {
			return err
		}
		countEntry(counts, &old)
	}
	return nil
}

// goOn begins what comes after an unfinished snapshot that names the packs in live.
func (s *Session) goOn(at time.Time, live *bitset) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest, named []storedPack
	oldest := at
	for _, p := range s.written {
		if live.has(p.Number) {
			named = append(named, p)
			continue
		}
		rest = append(rest, p)
		if p.at.Before(oldest) {
			oldest = p.at
		}
	}
	for _, p := range s.named {
		if live.has(p.Number) {
			named = append(named, p)
		} else {
			rest = append(rest, p) // lists may drop it, and content of a file on its way may be in it
		}
	}
	slices.SortStableFunc(rest, func(a, b storedPack) int { return a.at.Compare(b.at) })
	s.written, s.named, s.marked, s.plan.begun = rest, named, at, at.Round(0)
	old := s.journal
	head := journalHead{Chain: s.plan.chain.String(), Next: s.plan.nextPack, Begun: oldest.Round(0)}
	j, err := thinJournal(s.state, head, func(n uint64) bool { return !live.has(n) })
	if err != nil {
		return err
	}
	s.journal = j
	return old.close()
}

// copyTree begins a copy of the tree so far for the state directory.
func (s *Session) copyTree() (*parentWriter, error) {
	if s.tree.cache.err == nil {
		s.tree.cache.err = s.tree.cache.w.Flush()
	}
	if err := s.tree.cache.err; err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	from, err := os.Open(s.tree.cache.f.Name())
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(s.state.path(unfinishedFile+".new"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	p := &parentWriter{f: to, w: bufio.NewWriterSize(to, 128<<10)}
	if _, err := io.Copy(to, from); err != nil {
		p.discard()
		return nil, fmt.Errorf("write state: %w", err)
	}
	return p, nil
}

// countEntry counts an entry of the tree.
func countEntry(c *snapshot.Counts, e *snapshot.Entry) {
	switch e.Type {
	case snapshot.File:
		c.Files++
		c.Bytes += e.Size
		if e.NotConsistent {
			c.NotConsistent++
		}
	case snapshot.Directory:
		c.Directories++
	default:
		c.Others++
	}
}

// outermost returns the paths in order, without those within another.
func outermost(paths []string) []string {
	slices.SortFunc(paths, snapshot.ComparePaths)
	var out []string
	for _, p := range paths {
		if n := len(out); n == 0 || !snapshot.Within(out[n-1], p) {
			out = append(out, p)
		}
	}
	return out
}

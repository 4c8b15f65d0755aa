package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// Records of a log are left over when no moment from Options.LogBase on needs them: they had arrived when that snapshot
// did, and neither it nor a later one leads to them. As with packs, they must also have been there for Age. They go in two
// phases, like snapshots: first it is announced up to which record an epoch is removed; when the announcement has been
// there for Wait, and they are still left over, a record of the removal is stored and they are removed, in ascending
// order; the epoch's head last, if nothing is left of the epoch. A crash leaves some of them: the next run goes on.
//
// A snapshot before that one stays, with what follows it, where a branch of the log that is written since needs it
// ([log.Older]).
//
// An epoch whose head can't be read keeps its whole stream, and those that go on from it: from where it goes on itself, and so
// what leads to them, is not known then.

// logBase is the snapshot of Options.LogBase, if it is there and stays.
func (p *pruner) logBase() *repository.Stored {
	i := slices.IndexFunc(p.manifests, func(m *repository.Stored) bool { return m.Sequence == p.opts.LogBase })
	if p.opts.LogBase == 0 || i < 0 || p.manifests[i].Log == nil {
		return nil
	}
	return p.manifests[i]
}

// logStreams reads the heads of the log, once.
func (p *pruner) logStreams(ctx context.Context) ([]log.Stream, error) {
	if p.streams == nil {
		streams, err := log.FromInventory(ctx, p.repo, p.inv)
		if err != nil {
			return nil, err
		}
		p.streams = streams
	}
	return p.streams, nil
}

// branches reports whether a branch of the log needs a snapshot that is older than the log's base.
func (p *pruner) branches(ctx context.Context, m *repository.Stored) (bool, error) {
	base := p.logBase()
	if base == nil || m.Log == nil || m.Sequence >= base.Sequence {
		return false, nil
	}
	streams, err := p.logStreams(ctx)
	if err != nil {
		return false, err
	}
	if p.older == nil {
		p.older = log.Older(streams, p.manifests, base)
	}
	return p.older[m.Sequence], nil
}

// logsLeft reports whether there may be records to remove. The newest arrival is the least that the store's clock shows.
func (p *pruner) logsLeft() bool {
	if len(p.inv.LogCondemned) > 0 {
		return true
	}
	base := p.logBase()
	if base == nil {
		return p.canJoin()
	}
	for _, e := range p.inv.Logs {
		for _, all := range [][]inventory.LogPiece{e.Pieces, e.Segments} {
			if len(all) > 0 && !all[0].Arrived().After(base.Arrived) && !p.inv.Newest.Before(all[0].Arrived().Add(p.opts.Age)) {
				return true
			}
		}
	}
	return p.canJoin()
}

// nameLogKeys adds the data keys of the epochs that are there; heads are read only if there is a key that nothing names.
func (p *pruner) nameLogKeys(ctx context.Context, n *named) error {
	unnamed := false
	for k := range p.inv.Keys {
		unnamed = unnamed || !n.keys[k.ID]
	}
	if !unnamed || len(p.inv.Logs) == 0 {
		return nil
	}
	streams, err := log.FromInventory(ctx, p.repo, p.inv)
	if err != nil {
		return err
	}
	for _, s := range streams {
		for _, e := range s.Epochs {
			if e.Described == nil {
				for k := range p.inv.Keys {
					n.keys[k.ID] = true // it may be the epoch's
				}
				return nil
			}
			for _, k := range e.Described.Keys {
				n.keys[k.Key] = true
			}
		}
	}
	return nil
}

// sweepLogs removes what is left over of logs, and pieces of which a segment has all.
func (p *pruner) sweepLogs(ctx context.Context, removed map[uint64]bool) error {
	if len(p.inv.Logs) == 0 && len(p.inv.LogCondemned) == 0 {
		return nil
	}
	streams, err := log.FromInventory(ctx, p.repo, p.inv)
	if err != nil {
		return err
	}
	if base := p.logBase(); base != nil && !removed[base.Sequence] {
		need := p.neededRecords(streams, base, removed)
		unsure := unsureStreams(streams)
		for _, s := range streams {
			if unsure[s.ID] {
				continue
			}
			for _, e := range s.Epochs {
				if err := p.sweepEpoch(ctx, &s, e, need, base.Arrived); err != nil {
					return fmt.Errorf("log, stream %s, epoch %d: %w", e.Stream, e.Epoch, err)
				}
			}
		}
	}
	for c := range p.inv.LogCondemned {
		if _, there := p.inv.Logs[c.LogName]; !there && !p.opts.DryRun { // what a crash has left
			if err := p.deleteQuietly(ctx, layout.CondemnedLogKey(p.src, c.Stream, c.Epoch, c.Last)); err != nil {
				return err
			}
		}
	}
	return p.sweepJoined(ctx, streams)
}

// unsureStreams are the streams that have an epoch without a head that counts, and those that go on from them, over any number.
func unsureStreams(streams []log.Stream) map[string]bool {
	unsure := map[string]bool{}
	for _, s := range streams {
		unsure[s.ID] = slices.ContainsFunc(s.Epochs, func(e *log.Epoch) bool { return e.Described == nil })
	}
	for more := true; more; {
		more = false
		for _, s := range streams {
			if !unsure[s.ID] && slices.ContainsFunc(s.Epochs, func(e *log.Epoch) bool {
				return e.Described.Continues != nil && unsure[e.Described.Continues.Stream]
			}) {
				unsure[s.ID], more = true, true
			}
		}
	}
	return unsure
}

// neededRecords says from which record on each epoch is needed by snapshots from base on, and by older ones that a branch
// needs; an epoch that is not in it is not needed at all.
func (p *pruner) neededRecords(streams []log.Stream, base *repository.Stored, removed map[uint64]bool) map[inventory.LogName]uint64 {
	var from []log.Place
	older := log.Older(streams, p.manifests, base)
	for _, m := range p.manifests {
		if m.Log != nil && (m.Sequence >= base.Sequence || older[m.Sequence]) && !removed[m.Sequence] {
			from = append(from, *m.Log)
		}
	}
	return log.Needed(streams, from)
}

// logItem is an object of an epoch.
type logItem struct {
	layout.LogObject
	inventory.LogPiece
}

// sweepEpoch removes what is left over of one epoch, or announces it.
func (p *pruner) sweepEpoch(ctx context.Context, s *log.Stream, e *log.Epoch, need map[inventory.LogName]uint64, until time.Time) error {
	var items []logItem
	e.All(func(o layout.LogObject, piece inventory.LogPiece) { items = append(items, logItem{o, piece}) })
	slices.SortFunc(items, func(a, b logItem) int {
		return cmp.Or(cmp.Compare(a.LogPiece.Last, b.LogPiece.Last), cmp.Compare(a.LogPiece.First, b.LogPiece.First))
	})
	cut := uint64(0) // records up to here are left over
	for _, i := range items {
		from, needed := need[e.LogName]
		if needed && i.LogPiece.Last >= from || i.Arrived().After(until) || !p.logAge(i.Arrived()) {
			break
		}
		cut = i.LogPiece.Last
	}
	announced, err := p.announcedCut(ctx, e.LogName, cut)
	if err != nil {
		return err
	}
	switch {
	case announced == 0 && cut > 0:
		return p.announceCut(ctx, e.LogName, cut)
	case announced == 0:
		return p.sweepHead(ctx, s, e, len(items), need, until)
	case !p.passed(p.inv.LogCondemned[inventory.Cut{LogName: e.LogName, Last: announced}].Modified, p.opts.Wait):
		return nil
	}
	n := slices.IndexFunc(items, func(i logItem) bool { return i.LogPiece.Last > announced })
	if n < 0 {
		n = len(items)
	}
	return p.removeRecords(ctx, s, e, items[:n], len(items)-n, announced, need, until)
}

// logAge reports whether something of a log has been in the store for long enough, and no snapshot that is missing
// without a record may need it.
func (p *pruner) logAge(arrived time.Time) bool {
	return (p.opts.Gaps || arrived.After(p.gap)) && p.passed(arrived, p.opts.Age)
}

// announcedCut is up to which record the removal from an epoch was announced; 0: it was not. An announcement that is not
// valid, or goes further than what is left over now, is withdrawn: waiting begins anew.
func (p *pruner) announcedCut(ctx context.Context, name inventory.LogName, cut uint64) (uint64, error) {
	best := uint64(0)
	for c := range p.inv.LogCondemned {
		if c.LogName != name {
			continue
		}
		key := layout.CondemnedLogKey(p.src, c.Stream, c.Epoch, c.Last)
		var doc record.LogCut
		b, err := p.repo.Document(ctx, key, &doc)
		switch {
		case errors.Is(err, objstore.ErrNotExist):
			continue
		case err != nil && b == nil:
			return 0, err
		case err == nil && doc.Stream == c.Stream && doc.Epoch == c.Epoch && doc.Sequence == c.Last && c.Last <= cut:
			best = max(best, c.Last)
			continue
		}
		if !p.opts.DryRun {
			if err := p.deleteQuietly(ctx, key); err != nil {
				return 0, err
			}
		}
	}
	return best, nil
}

func (p *pruner) announceCut(ctx context.Context, name inventory.LogName, cut uint64) error {
	if !p.opts.DryRun {
		key := layout.CondemnedLogKey(p.src, name.Stream, name.Epoch, cut)
		err := p.repo.PutDocument(ctx, key, record.LogCut{Stream: name.Stream, Epoch: name.Epoch, Sequence: cut, Time: p.opts.Now().UTC()})
		if err != nil && !errors.Is(err, objstore.ErrExist) {
			return err
		}
	}
	p.report.LogsCondemned = append(p.report.LogsCondemned, LogCut{name.Stream, name.Epoch, cut})
	return nil
}

// removeRecords removes the records of an epoch up to cut:
//
//  1. The record of the removal, so that what is missing after a crash is known to have been removed.
//  2. Pieces and segments, ascending.
//  3. The head, if that was all and nobody writes there.
//  4. The announcement, and earlier records of removals from the epoch, which the new one covers.
func (p *pruner) removeRecords(ctx context.Context, s *log.Stream, e *log.Epoch, items []logItem, left int, cut uint64, need map[inventory.LogName]uint64, until time.Time) error {
	if !p.opts.DryRun {
		key := layout.ExpiredLogKey(p.src, e.Stream, e.Epoch, cut)
		err := p.repo.PutDocument(ctx, key, record.LogCut{Stream: e.Stream, Epoch: e.Epoch, Sequence: cut, Time: p.opts.Now().UTC()})
		if err != nil && !errors.Is(err, objstore.ErrExist) { // of a run that crashed
			return err
		}
	}
	all := make([]doomed, len(items))
	for i, item := range items {
		all[i] = doomed{layout.LogKey(p.src, item.LogObject), int64(item.Size)}
	}
	gone, err := p.sweepAll(ctx, all)
	p.report.Logs += count(gone)
	if err != nil || count(gone) < len(all) {
		return err // locked ones wait: the announcement stays
	}
	p.report.LogsRemoved = append(p.report.LogsRemoved, LogCut{e.Stream, e.Epoch, cut})
	if left == 0 {
		if err := p.sweepHead(ctx, s, e, 0, need, until); err != nil {
			return err
		}
	}
	if p.opts.DryRun {
		return nil
	}
	if err := p.deleteQuietly(ctx, layout.CondemnedLogKey(p.src, e.Stream, e.Epoch, cut)); err != nil {
		return err
	}
	for c := range p.inv.LogExpired {
		if c.LogName == e.LogName && c.Last < cut {
			if err := p.deleteQuietly(ctx, layout.ExpiredLogKey(p.src, c.Stream, c.Epoch, c.Last)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepHead removes the head of an epoch of which nothing is there any more. The highest epoch of a stream that is
// needed stays: somebody may write in it.
func (p *pruner) sweepHead(ctx context.Context, s *log.Stream, e *log.Epoch, left int, need map[inventory.LogName]uint64, until time.Time) error {
	_, needed := need[e.LogName]
	if left > 0 || needed || e.Head.Modified.IsZero() || e.Head.Modified.After(until) || !p.logAge(e.Head.Modified) {
		return nil
	}
	highest := s.Epochs[len(s.Epochs)-1] == e
	for name := range need {
		if highest && name.Stream == e.Stream {
			return nil
		}
	}
	key := layout.LogKey(p.src, layout.LogObject{Stream: e.Stream, Epoch: e.Epoch})
	ok, err := p.delete(ctx, key, e.Head.Size)
	if ok {
		p.report.Logs++
	}
	return err
}

// canJoin reports whether there are pieces of which a segment has all, and a key to see that.
func (p *pruner) canJoin() bool {
	if len(p.repo.Identity().Recipients()) == 0 {
		return false
	}
	for _, e := range p.inv.Logs {
		for _, s := range e.Segments {
			if len(coveredPieces(e, s)) > 0 && !p.inv.Newest.Before(s.Arrived().Add(p.opts.Age)) {
				return true
			}
		}
	}
	return false
}

// coveredPieces are the pieces whose records a segment has.
func coveredPieces(e *inventory.LogEpoch, s inventory.LogPiece) []inventory.LogPiece {
	from, _ := slices.BinarySearchFunc(e.Pieces, s.First, func(p inventory.LogPiece, n uint64) int { return cmp.Compare(p.First, n) })
	to := from
	for to < len(e.Pieces) && e.Pieces[to].Last <= s.Last {
		to++
	}
	return e.Pieces[from:to]
}

// sweepJoined removes pieces of which a segment has all, when both have been there for Age and the segment was read and
// proven equal: which needs a key. Without one nothing of this is done.
func (p *pruner) sweepJoined(ctx context.Context, streams []log.Stream) error {
	if !p.canJoin() {
		return nil
	}
	reader := log.NewReader(p.repo, p.src, streams)
	for _, s := range streams {
		for _, e := range s.Epochs {
			for _, seg := range e.Segments {
				pieces := coveredPieces(e.LogEpoch, seg)
				pieces = slices.DeleteFunc(slices.Clone(pieces), func(x inventory.LogPiece) bool { return !p.logAge(x.Arrived()) })
				if len(pieces) == 0 || !p.logAge(seg.Arrived()) {
					continue
				}
				equal, err := reader.Proven(ctx, e, seg)
				if err != nil {
					return err
				}
				if !equal {
					continue // verification names it
				}
				if err := p.removePieces(ctx, e, pieces); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// removePieces removes pieces, the last one last: it is what proves the segment for a run that goes on after a crash.
func (p *pruner) removePieces(ctx context.Context, e *log.Epoch, pieces []inventory.LogPiece) error {
	all := make([]doomed, len(pieces))
	for i, x := range pieces {
		o := layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: x.First, Last: x.Last}
		all[i] = doomed{layout.LogKey(p.src, o), int64(x.Size)}
	}
	for _, part := range [][]doomed{all[:len(all)-1], all[len(all)-1:]} {
		gone, err := p.sweepAll(ctx, part)
		p.report.Joined += count(gone)
		if err != nil || count(gone) < len(part) {
			return err
		}
	}
	return nil
}

package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxReceiptProblems bounds the problems that one receipt names.
const maxReceiptProblems = 100

// finish judges the snapshots and writes down what was found.
func (s *source) finish(ctx context.Context) error {
	if err := s.forgetRemoved(ctx); err != nil {
		return err
	}
	c := s.c
	c.result.Documents += int(s.documents.Load())
	c.result.Chunks += s.chunks.Load()
	c.result.Sources = append(c.result.Sources, SourceResult{
		Source: s.src, Head: s.head(), Objects: s.inv.Objects, UnnamedPacks: s.unnamedPacks, UnnamedBytes: s.unnamedBytes,
	})
	from := len(c.result.Snapshots)
	for _, sn := range s.snaps {
		r := SnapshotResult{ID: sn.id, Manifest: sn.Hash, Entries: sn.entries}
		sn.live(func(p *pack) {
			if p.read {
				r.Packs++
				r.Bytes += int64(p.Size)
			}
		})
		c.result.Snapshots = append(c.result.Snapshots, r)
	}
	for _, numbers := range []map[uint64]bool{s.bad, s.gone} {
		for n := range numbers {
			if c.wanted(s.id(n)) {
				c.result.Snapshots = append(c.result.Snapshots, SnapshotResult{ID: s.id(n)})
			}
		}
	}
	judged := c.result.Snapshots[from:]
	slices.SortFunc(judged, func(a, b SnapshotResult) int { return compareIDs(a.ID, b.ID) })
	for i := range judged {
		judged[i].Problems = c.findings.of(judged[i].ID)
		judged[i].Pass = len(judged[i].Problems) == 0
	}
	if !c.record {
		return nil
	}
	err := s.recordDamage(ctx)
	if err == nil {
		err = s.recordReceipts(ctx, c.receiptsFor(s, judged))
	}
	if errors.Is(err, objstore.ErrDenied) || errors.Is(err, objstore.ErrFull) {
		// A copy that is mounted read-only can be checked like any other.
		c.record, c.result.Recorded, c.result.Unrecorded = false, false, err
		return nil
	}
	return err
}

// forgetRemoved looks again at the snapshots with problems. One that prune has removed meanwhile, with a record of it,
// has none: its packs went with it.
func (s *source) forgetRemoved(ctx context.Context) error {
	var left []*snap
	for _, sn := range s.snaps {
		removed := false
		if len(s.c.findings.of(sn.id)) > 0 {
			var err error
			if removed, err = s.removedMeanwhile(ctx, sn); err != nil {
				return err
			}
		}
		if removed {
			s.c.findings.forget(sn.id)
			continue
		}
		left = append(left, sn)
	}
	s.snaps = left
	return nil
}

func (s *source) removedMeanwhile(ctx context.Context, sn *snap) (bool, error) {
	_, err := s.c.repo.Store().Stat(ctx, s.inv.ManifestKey(sn.Sequence))
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if !errors.Is(err, objstore.ErrNotExist) {
		return false, nil
	}
	var v record.Expired
	_, err = s.c.repo.Document(ctx, s.inv.ExpiredKey(sn.Sequence), &v)
	return err == nil && v.Manifest == sn.Hash.String(), ctx.Err()
}

// head is the newest snapshot, as later runs may expect it.
func (s *source) head() Seen {
	n := s.highest()
	seen := Seen{Sequence: n}
	if h, ok := s.hash(n); ok && n > 0 {
		seen.Manifest, _ = layout.ParseHash(h)
	}
	return seen
}

// recordDamage tells later backups, and repair, which packs failed.
func (s *source) recordDamage(ctx context.Context) error {
	for _, p := range s.usedPacks() {
		fault := p.fault.Load()
		if fault == nil || fault.problem == Unreadable || !s.c.findings.has(*fault) {
			continue // that the store did not answer, or that prune was faster, says nothing about the pack
		}
		if _, ok := s.inv.Damaged[p.ID]; ok || !s.c.repo.MaySign(s.inv.DamagedKey(p.ID)) {
			continue // a signer that is limited to receipts leaves it at them
		}
		err := s.c.repo.PutDocument(ctx, s.inv.DamagedKey(p.ID), record.Damaged{
			Pack: p.ID.String(), Chain: p.chain.id.String(), Time: s.c.opts.Now().UTC(), Problem: string(fault.problem),
		})
		if err != nil && !errors.Is(err, objstore.ErrExist) {
			return fmt.Errorf("record the damage of pack %s: %w", p.ID, err)
		}
	}
	return nil
}

func (s *source) recordReceipts(ctx context.Context, judged []SnapshotResult) error {
	for _, r := range judged {
		if r.Manifest == (snapshot.Hash{}) {
			continue // nothing to write a receipt about
		}
		now := s.c.opts.Now().UTC()
		receipt := record.Receipt{
			Sequence: r.ID.Sequence, Manifest: r.Manifest.String(), Level: string(s.c.opts.Level), Result: record.Pass,
			Started: s.c.result.Started, Finished: now, Packs: r.Packs, Bytes: r.Bytes, Sample: s.c.opts.Sample.String(), Copy: s.c.opts.Copy,
			Problems: r.Problems[:min(len(r.Problems), maxReceiptProblems)],
		}
		if !r.Pass {
			receipt.Result = record.Fail
		}
		if receipt.Problems == nil {
			receipt.Problems = []string{}
		}
		at := now
		if s.c.stamp != nil {
			at = s.c.stamp(s.stored[r.ID.Sequence])
		}
		err := s.putReceipt(ctx, r.ID, at, receipt)
		if s.c.stamp != nil && errors.Is(err, objstore.ErrExist) {
			continue // another invocation for the same event was quicker
		}
		if err != nil {
			return fmt.Errorf("write the receipt of %s: %w", r.ID, err)
		}
	}
	return nil
}

// putReceipt writes a receipt. Somebody else may have written one in the same second, such as in the primary of which this
// is a copy: then the next second is taken.
func (s *source) putReceipt(ctx context.Context, id snapshot.ID, at time.Time, receipt record.Receipt) error {
	const tries = 5
	for n := 0; ; n++ {
		err := s.c.repo.PutDocument(ctx, layout.ReceiptKey(id, s.c.opts.Place, at, receipt.Level), receipt)
		if n == tries || s.c.stamp != nil || !errors.Is(err, objstore.ErrExist) {
			return err
		}
		at = at.Add(time.Second)
	}
}

package prune

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// candidate is a snapshot that was condemned by an earlier run and that nothing keeps.
type candidate struct {
	stored  *repository.Stored
	reasons []string
}

// condemn is phase 1. It returns the snapshots that were condemned before this run.
func (p *pruner) condemn(ctx context.Context) ([]candidate, error) {
	var drop []*repository.Stored
	var before []candidate
	var withdraw []Action
	for i, m := range p.manifests {
		why, keep, err := p.keeps(ctx, m, i == len(p.manifests)-1)
		if err != nil {
			return nil, err
		}
		condemned, valid, err := p.announcement(ctx, m)
		if err != nil {
			return nil, err
		}
		if keep {
			if err := p.unrecord(ctx, m); err != nil {
				return nil, err
			}
		}
		switch {
		case keep && condemned:
			// Otherwise it would be removed at once when whatever keeps it ends, without any wait.
			withdraw = append(withdraw, Action{m.ID(), why})
		case keep:
		case condemned && valid:
			before = append(before, candidate{m, p.decisions[m.Sequence].Reasons})
		case condemned:
			// It does not count, and it is where a valid one should be.
			withdraw = append(withdraw, Action{m.ID(), []string{"the announcement is not valid"}})
		default:
			drop = append(drop, m)
		}
	}
	if err := p.agreed(drop); err != nil {
		return nil, err
	}
	for _, a := range withdraw {
		if err := p.withdraw(ctx, a); err != nil {
			return nil, err
		}
	}
	for _, m := range drop {
		if err := p.announce(ctx, m); err != nil {
			return nil, err
		}
	}
	return before, nil
}

// agreed wants somebody to have agreed where a large share is to go.
func (p *pruner) agreed(drop []*repository.Stored) error {
	n, all := len(drop), len(p.manifests)
	if p.opts.Force || n <= 1 || n*100 <= all*retention.GuardShare {
		return nil
	}
	plan := p.plan(drop)
	if plan == p.opts.Confirm {
		return nil
	}
	p.report.Plan = plan
	for _, m := range drop {
		p.report.Blocked = append(p.report.Blocked, Action{m.ID(), p.decisions[m.Sequence].Reasons})
	}
	return &retention.TooMany{Drop: n, Total: all}
}

// unrecord takes away the record of the removal of a snapshot that is there and stays: its removal was stopped right before it.
// With the record its loss would go unnoticed. In a copy the record is about the original.
func (p *pruner) unrecord(ctx context.Context, m *repository.Stored) error {
	if _, there := p.inv.Expired[m.Sequence]; !there || p.opts.DryRun || p.repo.Copied() {
		return nil
	}
	return p.deleteQuietly(ctx, layout.ExpiredKey(m.ID()))
}

// plan names a set of snapshots that would be condemned: what somebody has agreed to is this set and no other, also if a
// snapshot with the same number is put in the place of one of them.
func (p *pruner) plan(drop []*repository.Stored) string {
	h := sha256.New()
	fmt.Fprintf(h, "holdfast prune plan\n%s\n%s\n", p.repo.ID(), p.src)
	for _, m := range drop {
		fmt.Fprintf(h, "%d %s\n", m.Sequence, m.Hash)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// keeps says whether a snapshot stays, and why. What is not known is kept.
func (p *pruner) keeps(ctx context.Context, m *repository.Stored, newest bool) (why []string, keep bool, err error) {
	d, decided := p.decisions[m.Sequence]
	switch {
	case newest:
		return []string{"the newest snapshot"}, true, nil
	case !decided:
		return []string{"retention has not looked at it"}, true, nil
	case d.Keep:
		return d.Reasons, true, nil
	}
	if needed, err := p.branches(ctx, m); err != nil || needed {
		return []string{"a branch of the log goes on from it that no later snapshot leads to"}, needed, err
	}
	kind, marked, err := p.marked(ctx, m)
	if err != nil || !marked {
		return nil, false, err
	}
	return []string{string(kind)}, true, nil
}

// marked reports whether a pin or a hold protects the snapshot. A mark that can not be read protects: better keep too
// much. So does one that is about another manifest with this number.
func (p *pruner) marked(ctx context.Context, m *repository.Stored) (record.MarkKind, bool, error) {
	ids := p.inv.MarksOf(m.Sequence)
	if len(ids) == 0 {
		return "", false, nil
	}
	marks := map[string]record.Mark{}
	for _, id := range ids {
		key := layout.MarkKey(m.ID(), id)
		var mark record.Mark
		doc, err := p.repo.Document(ctx, key, &mark)
		switch {
		case errors.Is(err, objstore.ErrNotExist):
			continue
		case err != nil && doc == nil:
			return "", false, err
		case err != nil || mark.Sequence != m.Sequence:
			return record.Hold, true, nil //nolint:nilerr // what can not be read protects
		}
		marks[id] = mark
	}
	// The newest arrival is the least that the store's clock shows: a mark does not run out too early.
	kind, ok := record.Keeps(record.Active(marks, p.inv.Newest))
	return kind, ok, nil
}

// announcement looks for the announcement of m's removal and whether it is valid.
func (p *pruner) announcement(ctx context.Context, m *repository.Stored) (there, valid bool, err error) {
	if _, ok := p.inv.Condemned[m.Sequence]; !ok {
		return false, false, nil
	}
	var c record.Condemned
	doc, err := p.repo.Document(ctx, layout.CondemnedKey(m.ID()), &c)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		return false, false, nil
	case err != nil && doc == nil:
		return true, false, err
	case err != nil:
		return true, false, nil //nolint:nilerr // a document that is no good announces nothing
	}
	return true, c.Sequence == m.Sequence && c.Manifest == m.Hash.String(), nil
}

// announce condemns a snapshot.
func (p *pruner) announce(ctx context.Context, m *repository.Stored) error {
	reasons := slices.Clone(p.decisions[m.Sequence].Reasons)
	if reasons == nil {
		reasons = []string{}
	}
	if !p.opts.DryRun {
		err := p.repo.PutDocument(ctx, layout.CondemnedKey(m.ID()), record.Condemned{
			Sequence: m.Sequence, Manifest: m.Hash.String(), Time: p.opts.Now().UTC(), Reasons: reasons,
		})
		if err != nil && !errors.Is(err, objstore.ErrExist) { // another run has announced it just now
			return err
		}
	}
	p.report.Condemned = append(p.report.Condemned, Action{m.ID(), reasons})
	return nil
}

// withdraw takes an announcement back.
func (p *pruner) withdraw(ctx context.Context, a Action) error {
	if !p.opts.DryRun {
		if err := p.journal(ctx, layout.CondemnedKey(a.Snapshot)); err != nil {
			return err
		}
		err := p.repo.Store().Delete(ctx, layout.CondemnedKey(a.Snapshot))
		if errors.Is(err, objstore.ErrLocked) {
			p.report.Kept = append(p.report.Kept, Kept{layout.CondemnedKey(a.Snapshot), Locked})
			return nil
		}
		if err != nil {
			return err
		}
	}
	p.report.Withdrawn = append(p.report.Withdrawn, a)
	return nil
}

// Uncondemn takes back the announcement that a snapshot will be removed. Retention may announce it again: pin the
// snapshot first. Errors: repository.ErrNoSnapshot, objstore.ErrLocked.
func Uncondemn(ctx context.Context, repo *repository.Repository, id snapshot.ID) error {
	if _, err := repo.Manifest(ctx, id); err != nil {
		return err
	}
	if err := repo.Store().Delete(ctx, layout.CondemnedKey(id)); err != nil {
		return fmt.Errorf("withdraw the removal of %s: %w", id, err)
	}
	return nil
}

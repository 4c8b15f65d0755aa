package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Locked is the reason in [Kept] of what the store refuses to delete for now.
const Locked = "locked by the store"

// Other reasons why something stays.
const (
	tooYoung  = "too young: a backup that is running or was killed may need it"
	inGap     = "a snapshot that is missing without a record of its removal may need it"
	packsStay = "packs of its chain stay"
)

// present learns the time from the store: it is when an object that this run has stored arrived. An announcement of
// this run serves; else the newest snapshot is verified at level structure, and the receipt serves.
//
// A dry run stores nothing. It takes the newest arrival in the listing, or the host's clock if that is later: what it
// shows may come true later than it says, and never will by a wrong clock.
func (p *pruner) present(ctx context.Context) (time.Time, error) {
	if p.opts.DryRun {
		if now := p.opts.Now(); now.After(p.inv.Newest) {
			return now, nil
		}
		return p.inv.Newest, nil
	}
	if n := len(p.report.Condemned); n > 0 {
		return p.arrival(ctx, layout.CondemnedKey(p.report.Condemned[n-1].Snapshot))
	}
	if len(p.manifests) == 0 {
		return p.inv.Newest, nil // nothing can be written about nothing; the store's clock shows at least this
	}
	id := p.manifests[len(p.manifests)-1].ID()
	at := p.opts.Now().UTC()
	res, err := verify.Run(ctx, p.repo, verify.Options{
		Level: verify.Structure, Snapshots: []snapshot.ID{id}, Record: true, Place: p.opts.Place, Now: func() time.Time { return at },
	})
	if err != nil {
		return time.Time{}, err
	}
	if !res.Recorded {
		return time.Time{}, repository.ErrNoSigner
	}
	return p.arrival(ctx, layout.ReceiptKey(id, p.opts.Place, at, string(verify.Structure)))
}

func (p *pruner) arrival(ctx context.Context, key string) (time.Time, error) {
	info, err := p.repo.Store().Stat(ctx, key)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	return info.Modified, nil
}

// removeSnapshots is the first half of phase 2. It returns the numbers of the snapshots that it removed.
func (p *pruner) removeSnapshots(ctx context.Context, candidates []candidate) (map[uint64]bool, error) {
	removed := map[uint64]bool{}
	for _, c := range candidates {
		id := c.stored.ID()
		since := p.inv.Condemned[id.Sequence].Modified
		if !p.passed(since, p.opts.Wait) {
			p.report.Waiting = append(p.report.Waiting, Waiting{id, since.Add(p.opts.Wait)})
			continue
		}
		if p.isLocked(ctx, layout.ManifestKey(id)) {
			// A record of the removal beside a snapshot that stays for weeks would only confuse.
			p.report.Kept = append(p.report.Kept, Kept{layout.ManifestKey(id), Locked})
			continue
		}
		ok, err := p.removeSnapshot(ctx, c.stored)
		if err != nil {
			return nil, fmt.Errorf("remove snapshot %d: %w", id.Sequence, err)
		}
		if ok {
			removed[id.Sequence] = true
			p.report.Removed = append(p.report.Removed, Action{id, c.reasons})
		}
	}
	return removed, p.forgetAnnouncements(ctx)
}

// isLocked reports whether the store is known to refuse the deletion of an object. Whether it does is told by the
// deletion; this is only the look before it.
func (p *pruner) isLocked(ctx context.Context, key string) bool {
	locker, ok := p.repo.Store().(objstore.Locker)
	if !ok {
		return false
	}
	l, err := locker.LockOf(ctx, key)
	return err == nil && (l.Hold || p.now.Before(l.Until))
}

// removeSnapshot removes one snapshot: the record, the manifest, the announcement. It reports false if the snapshot
// stays after all.
//
//  1. Marks and the announcement are looked at once more: they may have changed since the run began.
//  2. The record that it was removed. A crash leaves record, manifest and announcement: the next run comes here again.
//     After it marks are looked at for the last time, and the record goes if there is one: so whoever sets a mark, and finds no
//     record then, has kept the snapshot.
//  3. The manifest. Now the snapshot does not exist. A crash leaves the announcement, which forgetAnnouncements removes.
//  4. The announcement.
func (p *pruner) removeSnapshot(ctx context.Context, m *repository.Stored) (bool, error) {
	if p.opts.DryRun {
		p.report.Freed += int64(len(m.Bytes))
		return true, nil
	}
	stays, err := p.changed(ctx, m)
	if err != nil || stays {
		return false, err
	}
	if err := p.putExpired(ctx, m); err != nil {
		return false, err
	}
	if stays, err = p.remarked(ctx, m); err != nil {
		return false, err
	}
	if stays {
		return false, p.deleteQuietly(ctx, layout.ExpiredKey(m.ID()))
	}
	key := layout.ManifestKey(m.ID())
	if ok, err := p.delete(ctx, key, int64(len(m.Bytes))); err != nil || !ok {
		return false, err
	}
	return true, p.deleteQuietly(ctx, layout.CondemnedKey(m.ID()))
}

// changed reports whether the snapshot was marked, or its announcement withdrawn, since the source was listed.
func (p *pruner) changed(ctx context.Context, m *repository.Stored) (bool, error) {
	_, err := p.repo.Store().Stat(ctx, layout.CondemnedKey(m.ID()))
	if errors.Is(err, objstore.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return p.remarked(ctx, m)
}

// remarked looks at the marks on a snapshot again, and reports whether one keeps it.
func (p *pruner) remarked(ctx context.Context, m *repository.Stored) (bool, error) {
	fresh, err := marksOf(ctx, p.repo.Store(), m.ID())
	if err != nil {
		return false, err
	}
	for mark, o := range fresh {
		p.inv.Marks[mark] = o
	}
	_, marked, err := p.marked(ctx, m)
	return marked, err
}

// marksOf lists the marks on one snapshot.
func marksOf(ctx context.Context, store objstore.Store, id snapshot.ID) (map[inventory.Mark]inventory.Object, error) {
	out := map[inventory.Mark]inventory.Object{}
	prefix := strings.TrimSuffix(layout.MarkKey(id, ""), ".json")
	err := store.List(ctx, prefix, func(o objstore.Info) error {
		mark := strings.TrimSuffix(strings.TrimPrefix(o.Key, prefix), ".json")
		if layout.MarkKey(id, mark) == o.Key {
			out[inventory.Mark{Sequence: id.Sequence, ID: mark}] = inventory.Object{Size: o.Size, Modified: o.Modified}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return out, nil
}

// putExpired stores the record of the removal. One that is there already, from a run that crashed or from the original
// of this copy, serves if it is about the same manifest.
func (p *pruner) putExpired(ctx context.Context, m *repository.Stored) error {
	key := layout.ExpiredKey(m.ID())
	err := p.repo.PutDocument(ctx, key, record.Expired{
		Sequence: m.Sequence, Manifest: m.Hash.String(), Previous: m.Previous, Time: p.opts.Now().UTC(),
	})
	if !errors.Is(err, objstore.ErrExist) {
		return err
	}
	var there record.Expired
	if _, err := p.repo.Document(ctx, key, &there); err != nil {
		return err
	}
	if there.Sequence != m.Sequence || there.Manifest != m.Hash.String() || there.Previous != m.Previous {
		return fmt.Errorf("%s: %w: it records the removal of another manifest", key, snapshot.ErrFormat)
	}
	return nil
}

// forgetAnnouncements removes announcements of snapshots that were removed, which a crash has left.
func (p *pruner) forgetAnnouncements(ctx context.Context) error {
	for _, n := range inventory.Sequences(p.inv.Condemned) {
		_, there := p.inv.Manifests[n]
		_, expired := p.inv.Expired[n]
		if there || !expired || p.opts.DryRun {
			continue
		}
		if err := p.deleteQuietly(ctx, p.inv.CondemnedKey(n)); err != nil {
			return err
		}
	}
	return nil
}

// journal tells what is about to be deleted.
func (p *pruner) journal(ctx context.Context, keys ...string) error {
	if p.opts.Journal == nil || p.opts.DryRun || len(keys) == 0 {
		return nil
	}
	return p.opts.Journal(ctx, keys)
}

// delete removes an object and counts its bytes; it reports false if the store has locked it.
func (p *pruner) delete(ctx context.Context, key string, size int64) (bool, error) {
	if err := p.journal(ctx, key); err != nil {
		return false, err
	}
	gone, err := p.deleteAll(ctx, []doomed{{key, size}})
	return err == nil && gone[0], err
}

// doomed is an object that is about to be deleted.
type doomed struct {
	key  string
	size int64
}

// deleteAll removes objects, which are in the journal, several at a time, and says which are gone. A crash leaves some.
func (p *pruner) deleteAll(ctx context.Context, all []doomed) ([]bool, error) {
	gone := make([]bool, len(all))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, p.opts.Workers))
	for i, o := range all {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if p.opts.DryRun {
				gone[i] = true
				return nil
			}
			err := p.repo.Store().Delete(gctx, o.key)
			if err != nil && !errors.Is(err, objstore.ErrLocked) {
				return fmt.Errorf("remove %s: %w", o.key, err)
			}
			gone[i] = err == nil
			return nil
		})
	}
	err := g.Wait()
	for i, o := range all {
		switch {
		case gone[i]:
			p.report.Freed += o.size
		case err == nil:
			p.report.Kept = append(p.report.Kept, Kept{o.key, Locked})
		}
	}
	return gone, errors.Join(err, ctx.Err())
}

// deleteQuietly removes a small document that means nothing any more; that it may be locked does not matter.
func (p *pruner) deleteQuietly(ctx context.Context, key string) error {
	if err := p.journal(ctx, key); err != nil {
		return err
	}
	err := p.repo.Store().Delete(ctx, key)
	if err != nil && !errors.Is(err, objstore.ErrLocked) {
		return fmt.Errorf("remove %s: %w", key, err)
	}
	return nil
}

func sorted[K comparable](m map[K]inventory.Object, key func(K) string) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b K) int {
		switch x, y := key(a), key(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return out
}

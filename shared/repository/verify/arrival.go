package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Arrival checks one snapshot at level structure when it has arrived: everything that its manifest names is there with
// its size, and it links to the manifest before it. It lists the chain's packs and the source's small objects and reads
// a handful of documents, however many snapshots the source has; what else is wrong with the source is left to [Run].
//
// Of opts, only Record, Place, Copy, Workers, MaxFiles and Now count. The key of the receipt has the time at which the
// manifest arrived, so that a call that is repeated writes none beside it; done reports that it was there before, and
// then there is no result.
//
// Errors: repository.ErrNoSnapshot; those of the context and the store.
func Arrival(ctx context.Context, repo *repository.Repository, id snapshot.ID, opts Options) (result *Result, done bool, err error) {
	c := newChecker(repo, Options{
		Level: Structure, Snapshots: []snapshot.ID{id}, Record: opts.Record, Place: opts.Place, Copy: opts.Copy, Workers: opts.Workers, MaxFiles: opts.MaxFiles, Now: opts.Now,
	})
	c.stamp = func(m *repository.Stored) time.Time { return m.Arrived }
	c.result.Recorded = c.record
	info, err := repo.Store().Stat(ctx, layout.ManifestKey(id))
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, false, fmt.Errorf("verify %s: %w", id, repository.ErrNoSnapshot)
	}
	if err != nil {
		return nil, false, fmt.Errorf("verify %s: %w", id, err)
	}
	if c.record {
		_, err := repo.Store().Stat(ctx, layout.ReceiptKey(id, c.opts.Place, info.Modified, string(Structure)))
		if err == nil || !errors.Is(err, objstore.ErrNotExist) {
			return nil, err == nil, err
		}
	}
	s := newSource(c, id.Source)
	if err := s.arrival(ctx, id); err != nil {
		return nil, false, fmt.Errorf("verify %s: %w", id, err)
	}
	return c.end(), false, nil
}

// arrival is checkSource for one snapshot. As there, the manifest is read before anything is listed.
func (s *source) arrival(ctx context.Context, id snapshot.ID) error {
	n := id.Sequence
	m, err := s.c.repo.Manifest(ctx, id)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, repository.ErrNoSnapshot), objstore.IsTransient(err), errors.Is(err, objstore.ErrDenied):
		return err
	}
	prefixes := []string{layout.ManifestPrefix(s.src), layout.ExpiredPrefix(s.src), layout.DamagedPrefix(s.src), layout.ListPrefix(s.src)}
	if err == nil {
		s.stored[n] = m
		if chain, err := layout.ParseChain(m.Chain); err == nil {
			prefixes = append(prefixes, layout.PackPrefix(s.src)+chain.String()+"/")
		}
		for _, k := range m.Keys {
			prefixes = append(prefixes, layout.KeyPrefix(s.src)+k.Key+"/")
		}
	}
	var lerr error
	if s.inv, lerr = inventory.TakeParts(ctx, s.c.repo.Store(), s.src, prefixes...); lerr != nil {
		return lerr
	}
	if err != nil {
		s.bad[n] = true
		if err := s.badManifest(ctx, n, err); err != nil {
			return err
		}
		return s.finish(ctx)
	}
	s.documents.Add(1)
	if err := s.before(ctx, n); err != nil {
		return err
	}
	s.snaps = []*snap{{Stored: m, id: id}}
	for _, step := range []func(context.Context) error{s.checkKeys, s.checkLists, s.checkPacks} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := s.c.findings.unreadable(); err != nil {
		return err // trouble of the store is no verdict: a receipt would stay
	}
	return s.finish(ctx)
}

// before checks that manifest n follows the one before it, or the record of its removal. That this one is missing hits
// no other: it is told, and [Run] tells it again.
func (s *source) before(ctx context.Context, n uint64) error {
	if n == 1 {
		if s.stored[n].Previous != "" {
			s.c.findings.add(s.inv.ManifestKey(n), Unlinked, "it is the first and names one before it", s.id(n))
		}
		return nil
	}
	key := s.inv.ManifestKey(n - 1)
	_, expired := s.inv.Expired[n-1]
	_, there := s.inv.Manifests[n-1]
	previous := ""
	switch {
	case there:
		m, err := s.c.repo.Manifest(ctx, s.id(n-1))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return nil //nolint:nilerr // its own arrival was checked, and Run names it
		}
		previous = m.Hash.String()
	case expired:
		var v record.Expired
		if !s.document(ctx, s.inv.ExpiredKey(n-1), &v) {
			return ctx.Err()
		}
		previous = v.Manifest
	default:
		s.c.findings.add(key, Missing, "no record says that retention removed it", s.id(n-1))
		return nil
	}
	if s.stored[n].Previous != previous {
		s.c.findings.add(s.inv.ManifestKey(n), Unlinked, fmt.Sprintf("it names another manifest %d than the one that is there", n-1), s.id(n))
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/files"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// simulated is Holdfast with another clock. The program itself can't be given one, on purpose, so the packages under its
// commands are called as the commands call them.
type simulated struct {
	place place
	repo  *repository.Repository
	src   snapshot.Source
	store *datedStore
}

// datedStore is a store whose clock runs ahead of the host's: an object that really arrived just now arrived, by its clock,
// at the simulated time. At the end of a simulated day the files get this time for good.
type datedStore struct {
	objstore.Store
	dir string
	now time.Time // simulated
}

// simulatedStart is the first simulated moment. It lies ahead, so that nothing that is really there is newer.
func simulatedStart() time.Time { return time.Now().UTC().Truncate(24 * time.Hour).Add(60 * time.Hour) }

// undated reports whether a time is that of a real arrival.
func (*datedStore) undated(t time.Time) bool { return t.Before(time.Now().Add(time.Hour)) }

func (d *datedStore) dated(i objstore.Info) objstore.Info {
	if d.undated(i.Modified) {
		i.Modified = d.now
	}
	return i
}

func (d *datedStore) Stat(ctx context.Context, key string) (objstore.Info, error) {
	i, err := d.Store.Stat(ctx, key)
	return d.dated(i), err
}

func (d *datedStore) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	return d.Store.List(ctx, prefix, func(i objstore.Info) error { return fn(d.dated(i)) })
}

// settle gives the objects of the day its time.
func (d *datedStore) settle() error {
	return filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		i, err := e.Info()
		if err != nil || !d.undated(i.ModTime()) {
			return err
		}
		return os.Chtimes(path, d.now, d.now)
	})
}

// newSimulated makes a repository, with an identity that the program can use.
func newSimulated(ctx context.Context, p place, start time.Time) (*simulated, error) {
	if err := os.MkdirAll(p.repository(), 0o700); err != nil {
		return nil, err
	}
	below, err := file.Open(p.repository())
	if err != nil {
		return nil, err
	}
	s := &simulated{place: p, src: snapshot.Source{Host: "bench", Name: "corpus"}, store: &datedStore{Store: below, dir: p.repository(), now: start}}
	id, err := keyring.NewIdentity()
	if err != nil {
		return nil, err
	}
	if err := id.WriteFile(p.below("identity")); err != nil {
		return nil, err
	}
	s.repo, err = repository.Init(ctx, s.store, id, id.Recipients(), start)
	return s, err
}

// day backs up and prunes at a simulated time.
func (s *simulated) day(ctx context.Context, at time.Time, rules policy.Retention) error {
	s.store.now = at
	now := func() time.Time { return at }
	if err := s.backup(ctx, now); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	decisions, err := s.decide(ctx, at, rules)
	if err != nil {
		return err
	}
	if _, err := prune.Run(ctx, s.repo, s.src, prune.Options{Decisions: decisions, Force: true, HostClock: true, Now: now}); err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	return s.store.settle()
}

func (s *simulated) backup(ctx context.Context, now func() time.Time) error {
	session, err := s.repo.Begin(ctx, repository.BeginOptions{
		Source: s.src, Kind: policy.KindFiles, State: s.place.below("state"), Tool: "holdfast bench", Now: now,
	})
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }() // after Commit it does nothing
	if kind, why := session.Type(); why != "" {
		return fmt.Errorf("snapshot %d would be %s: %s", session.Sequence(), kind, why)
	}
	captured, err := files.Capture(ctx, files.Options{Roots: []string{s.place.tree}}, session, nil)
	if err != nil {
		return err
	}
	for _, p := range captured.Problems {
		if files.IsError(&p) {
			return fmt.Errorf("capture %s: %s", p.Path, p.Error)
		}
	}
	_, err = session.Commit(ctx, repository.Result{Roots: captured.Roots, Counts: captured.Counts, Started: now()})
	return err
}

func (s *simulated) decide(ctx context.Context, at time.Time, rules policy.Retention) ([]retention.Decision, error) {
	manifests, err := s.repo.Manifests(ctx, s.src)
	if err != nil {
		return nil, err
	}
	condemned, err := s.repo.Condemned(ctx, s.src)
	if err != nil {
		return nil, err
	}
	announced := map[uint64]bool{}
	for _, c := range condemned {
		announced[c.Sequence] = true
	}
	var all []retention.Snapshot
	for _, m := range manifests {
		r := retention.FromManifest(m.Manifest, m.Arrived)
		r.Condemned = announced[m.Sequence]
		all = append(all, r)
	}
	return retention.Plan(all, rules, at)
}

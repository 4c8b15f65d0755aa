package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// opener opens the repository of the policy.
type opener interface {
	Repository(ctx context.Context, p *policy.Policy) (*repository.Repository, error)
}

// stored looks into the repository.
type stored struct{ opener }

// Newest implements [manifests]. It lists the manifests of the source and reads the newest one that has a signature of
// its host.
func (s *stored) Newest(ctx context.Context, p *policy.Policy, src snapshot.Source) (control.Evidence, error) {
	repo, err := s.Repository(ctx, p)
	if err != nil {
		return control.Evidence{}, err
	}
	prefix := layout.ManifestPrefix(src)
	var found []objstore.Info
	err = repo.Store().List(ctx, prefix, func(i objstore.Info) error {
		if _, err := layout.ParseNumbered(prefix, i.Key); err != nil {
			return nil //nolint:nilerr // not a manifest
		}
		if found = append(found, i); len(found) > tries {
			found = found[1:]
		}
		return nil
	})
	if err != nil {
		return control.Evidence{}, fmt.Errorf("list %s: %w", prefix, err)
	}
	for n := len(found) - 1; n >= 0; n-- {
		var m snapshot.Manifest
		_, err := repo.Document(ctx, found[n].Key, &m)
		switch {
		case errors.Is(err, objstore.ErrNotExist):
			continue // pruned meanwhile
		case errors.Is(err, keyring.ErrUntrusted), errors.Is(err, keyring.ErrUnsigned), errors.Is(err, keyring.ErrSignature),
			errors.Is(err, snapshot.ErrFormat):
			invoke.Log(ctx).Error("a manifest proves nothing", "key", found[n].Key, "error", err.Error())
			continue
		case err != nil:
			return control.Evidence{}, err
		}
		return evidence(&m, found[n].Modified), nil
	}
	return control.Evidence{}, nil
}

// tries is how many manifests are read at most until one is good.
const tries = 3

// evidence tells when the capture began by the store's clock: the host's own may be wrong, the time between its begin
// and its end is right.
func evidence(m *snapshot.Manifest, arrived time.Time) control.Evidence {
	spent := max(m.Finished.Sub(m.Started), 0)
	return control.Evidence{Sequence: m.Sequence, Type: m.Type, Partial: m.Partial, Started: arrived.Add(-spent), Arrived: arrived}
}

// Arrived implements [manifests].
func (s *stored) Arrived(ctx context.Context, p *policy.Policy, id snapshot.ID) (time.Time, error) {
	repo, err := s.Repository(ctx, p)
	if err != nil {
		return time.Time{}, err
	}
	i, err := repo.Store().Stat(ctx, layout.ManifestKey(id))
	if errors.Is(err, objstore.ErrNotExist) {
		return time.Time{}, nil
	}
	return i.Modified, err
}

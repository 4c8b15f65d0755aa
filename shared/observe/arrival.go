package observe

import (
	"context"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Manifests reads the manifests of a source as [repository.Repository.Manifests] does, with arrivals that can be used.
//
// Ages and retention go by the time at which the store received a manifest. In a copy of a repository, or in a directory
// that was moved, that is when it was copied, which may be the same day for years of snapshots. There the time that the
// manifest states counts, unless it lies after its arrival.
func Manifests(ctx context.Context, repo *repository.Repository, src snapshot.Source) ([]*repository.Stored, error) {
	copied, err := IsCopy(ctx, repo)
	if err != nil {
		return nil, err
	}
	all, err := repo.Manifests(ctx, src)
	if copied {
		for _, m := range all {
			adjust(m)
		}
	}
	return all, err
}

// adjust gives a manifest of a copied repository the arrival that counts.
func adjust(m *repository.Stored) {
	if m.Finished.Before(m.Arrived) {
		m.Arrived = m.Finished
	}
}

// IsCopy reports whether the place says that it is a copy, or the repository's own document arrived there long after it was
// made: a directory that was moved says nothing, and the document is the first thing that init writes.
func IsCopy(ctx context.Context, repo *repository.Repository) (bool, error) {
	if repo.Copied() {
		return true, nil
	}
	info, err := repo.Store().Stat(ctx, layout.RepositoryKey)
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", layout.RepositoryKey, err)
	}
	return info.Modified.Sub(repo.Created()) > repository.ClockTolerance, nil
}

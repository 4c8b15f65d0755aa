package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// errMissing says that an object is gone which a snapshot cannot do without.
var errMissing = errors.New("the repository is damaged")

// missing makes damage of an object that is not there. It is for operations that only read what a manifest names.
func missing(err error) error {
	if errors.Is(err, objstore.ErrNotExist) {
		return fmt.Errorf("%w: %w", errMissing, err)
	}
	return err
}

// openContent opens the content of a snapshot.
func openContent(ctx context.Context, repo *repository.Repository, m *repository.Stored) (*repository.Snapshot, error) {
	snap, err := repo.Snapshot(ctx, m)
	return snap, missing(err)
}

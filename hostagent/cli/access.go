package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

// noteAccess remembers which access document is in force at an address, and warns where this host has seen a newer one
// there: whoever removed it may want an old list of signers back. What can't be noted is only not known.
func (a *app) noteAccess(repo *repository.Repository, address string) {
	if a.flags.asOf != "" {
		return // the past had less
	}
	dir := state.Open(a.statePath(), repo.ID())
	now, seen := repo.Access().Sequence, dir.Access(absolute(address))
	if now < seen {
		a.warn("rollback of the access documents: the newest here has number %d, this host has seen number %d; keys that were removed may count again", now, seen)
		return
	}
	_ = dir.SetAccess(absolute(address), now)
}

// changedAccess remembers an access document that this command has written.
func (a *app) changedAccess(repo *repository.Repository) {
	if address, err := a.address(); err == nil {
		_ = state.Open(a.statePath(), repo.ID()).SetAccess(absolute(address), repo.Access().Sequence)
	}
}

// errAccessGone says that a repository which is in use has lost its access documents.
var errAccessGone = errors.New("the access documents are gone, and the repository is in use")

// errFound ends a listing.
var errFound = errors.New("found")

// unfinished tells a repository whose init was interrupted, or a copy that was just begun, which hold nothing yet, from
// one that was damaged.
func unfinished(ctx context.Context, store objstore.Store, err error) error {
	lerr := store.List(ctx, layout.Prefix, func(o objstore.Info) error {
		if o.Key == layout.CopyKey {
			err = repository.ErrCopyBegun
			return nil
		}
		if host, err := layout.Host(o.Key); err == nil && host != "*" {
			return errFound // an object of a source
		}
		return nil
	})
	switch {
	case errors.Is(lerr, errFound):
		return errAccessGone
	case lerr != nil:
		return fmt.Errorf("%w; and it can not be listed: %w", err, lerr)
	}
	return err
}

package retry

import (
	"context"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Spool implements [objstore.Spooler] where the store below does; writing to a disk is not retried.
func (s *Store) Spool(ctx context.Context) (objstore.Spool, error) {
	if below, ok := s.store.(objstore.Spooler); ok {
		return below.Spool(ctx)
	}
	return nil, objstore.ErrNoSpool
}

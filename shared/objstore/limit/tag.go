package limit

import (
	"context"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Tag implements [objstore.Tagger].
func (s *Store) Tag(ctx context.Context, key, name, value string) error {
	below, ok := s.store.(objstore.Tagger)
	if !ok {
		return objstore.ErrNoTags
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return below.Tag(ctx, key, name, value)
}

package retry

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
	return s.do(ctx, "tag", key, func() error { return below.Tag(ctx, key, name, value) })
}

package s3

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Tag implements [objstore.Tagger].
func (s *Store) Tag(ctx context.Context, key, name, value string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	_, err := s.client.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{
		Bucket: &s.bucket, Key: s.at(key), Tagging: &types.Tagging{TagSet: []types.Tag{{Key: &name, Value: &value}}},
	})
	switch {
	case err == nil:
		return nil
	case status(err) == http.StatusNotImplemented:
		return s.wrap(ctx, "tag", key, fmt.Errorf("%w: %w", objstore.ErrNoTags, err))
	case status(err) == http.StatusMethodNotAllowed: // S3's answer for a delete marker
		return s.wrap(ctx, "tag", key, fmt.Errorf("%w: %w", objstore.ErrNotExist, err))
	}
	return s.wrap(ctx, "tag", key, err)
}

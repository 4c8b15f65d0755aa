package s3

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Thaw implements [objstore.Thawer]. It needs the right s3:RestoreObject and none to read.
func (s *Store) Thaw(ctx context.Context, key string, days int, speed objstore.ThawSpeed) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	if days < 1 || days > objstore.MaxThawDays {
		return fmt.Errorf("thaw %s: for %d days: want 1 to %d", key, days, objstore.MaxThawDays)
	}
	_, err := s.client.RestoreObject(ctx, &s3.RestoreObjectInput{
		Bucket: &s.bucket, Key: s.at(key),
		RestoreRequest: &types.RestoreRequest{
			Days: aws.Int32(int32(days)), GlacierJobParameters: &types.GlacierJobParameters{Tier: types.Tier(speed)},
		},
	})
	code, _ := code(err)
	switch {
	case err == nil:
		return nil
	case code == "RestoreAlreadyInProgress":
		return nil
	case status(err) == http.StatusNotImplemented, code == "InvalidObjectState": // it is in no class that needs it
		return s.wrap(ctx, "thaw", key, fmt.Errorf("%w: %s", objstore.ErrNoThaw, code))
	case status(err) == http.StatusMethodNotAllowed: // S3's answer for a delete marker
		return s.wrap(ctx, "thaw", key, fmt.Errorf("%w: %w", objstore.ErrNotExist, err))
	}
	return s.wrap(ctx, "thaw", key, err)
}

// ListThaws implements [objstore.Thawer]: listings tell of copies where they are asked to.
func (s *Store) ListThaws(ctx context.Context, prefix string, fn func(objstore.Info, objstore.Thaw) error) error {
	return s.list(ctx, prefix, []types.OptionalObjectAttributes{types.OptionalObjectAttributesRestoreStatus},
		func(i objstore.Info, o types.Object) error { return fn(i, thawOf(i.Class, o.RestoreStatus)) })
}

func thawOf(c objstore.Class, r *types.RestoreStatus) objstore.Thaw {
	switch {
	case r == nil || !c.Archived():
		return objstore.Thaw{}
	case aws.ToBool(r.IsRestoreInProgress):
		return objstore.Thaw{Asked: true}
	}
	return objstore.Thaw{Until: aws.ToTime(r.RestoreExpiryDate)}
}

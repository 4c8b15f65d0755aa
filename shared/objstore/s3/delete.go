package s3

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Delete implements [objstore.Store]. In a bucket with versions a plain delete would only hide the object behind a
// marker; here each version goes, by its id, and each marker with it.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	versions, err := s.versions(ctx, key)
	if err != nil {
		if status(err) != http.StatusNotImplemented {
			return s.wrap(ctx, "delete", key, err)
		}
		versions = []version{{}} // a server without versions
	}
	// Oldest first: if we stop between two, what is current stays current, and an older one never comes back to light.
	for _, v := range slices.Backward(versions) {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{
			Bucket: &s.bucket, Key: s.at(key), VersionId: v.id,
		})
		if err != nil && !errors.Is(classify(err), objstore.ErrNotExist) && !noVersion(err) {
			return s.wrap(ctx, "delete", key, err)
		}
	}
	return nil
}

// noVersion says that another delete was quicker.
func noVersion(err error) bool {
	c, _ := code(err)
	return c == "NoSuchVersion"
}

// version is one of an object; without id it is the only one of a server without versions.
type version struct{ id *string }

// versions returns all versions and delete markers of key, newest first.
func (s *Store) versions(ctx context.Context, key string) ([]version, error) {
	type dated struct {
		version
		at     int64
		latest bool
	}
	var all []dated
	pages := s3.NewListObjectVersionsPaginator(s.client, &s3.ListObjectVersionsInput{
		Bucket: &s.bucket, Prefix: s.at(key),
	})
	// The key itself sorts before all longer ones that it begins.
	for more := true; more && pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		more = false
		for _, v := range page.Versions {
			if aws.ToString(v.Key) == *s.at(key) {
				all = append(all, dated{version{v.VersionId}, aws.ToTime(v.LastModified).UnixNano(), aws.ToBool(v.IsLatest)})
				more = true
			}
		}
		for _, m := range page.DeleteMarkers {
			if aws.ToString(m.Key) == *s.at(key) {
				all = append(all, dated{version{m.VersionId}, aws.ToTime(m.LastModified).UnixNano(), aws.ToBool(m.IsLatest)})
				more = true
			}
		}
	}
	// Versions and markers come as two lists, each newest first.
	slices.SortStableFunc(all, func(a, b dated) int {
		switch {
		case a.latest != b.latest:
			if a.latest {
				return -1
			}
			return 1
		case a.at != b.at:
			if a.at > b.at {
				return -1
			}
			return 1
		}
		return 0
	})
	versions := make([]version, len(all))
	for i, v := range all {
		versions[i] = v.version
	}
	return versions, nil
}

package s3

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// ListVersions implements [objstore.Versioned].
func (s *Store) ListVersions(ctx context.Context, prefix string, fn func(objstore.Version) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return err
	}
	if _, err := s.versioning(ctx); err != nil {
		return err
	}
	var waiting []objstore.Version // of the last key of the pages so far: more of it may come
	last := ""
	flush := func(all []objstore.Version) error {
		slices.SortStableFunc(all, newestFirst)
		for _, v := range all {
			if err := ctx.Err(); err != nil {
				return err
			}
			if v.Key < last {
				return s.wrap(ctx, "list versions of", prefix, errOrder)
			}
			last = v.Key
			if err := fn(v); err != nil {
				return err
			}
		}
		return nil
	}
	pages := s3.NewListObjectVersionsPaginator(s.client, &s3.ListObjectVersionsInput{Bucket: &s.bucket, Prefix: s.at(prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return s.wrap(ctx, "list versions of", prefix, err)
		}
		all := append(waiting, s.versionsOf(page)...)
		slices.SortStableFunc(all, func(a, b objstore.Version) int { return strings.Compare(a.Key, b.Key) })
		ready := len(all)
		for ready > 0 && all[ready-1].Key == all[len(all)-1].Key {
			ready--
		}
		if err := flush(all[:ready]); err != nil {
			return err
		}
		waiting = slices.Clone(all[ready:])
	}
	return flush(waiting)
}

// versioning asks whether the bucket keeps versions, or has kept them, and returns the answer; it is empty where that
// may not be asked.
func (s *Store) versioning(ctx context.Context) (types.BucketVersioningStatus, error) {
	out, err := s.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &s.bucket})
	switch {
	case ctx.Err() != nil:
		return "", s.wrap(ctx, "list versions of", "", ctx.Err())
	case err == nil && out.Status == "", status(err) == http.StatusNotImplemented:
		return "", s.wrap(ctx, "list versions of", "", objstore.ErrNoVersions)
	case err != nil:
		return "", nil //nolint:nilerr // the listing itself tells, or fails with the better error
	}
	return out.Status, nil
}

// versionsOf returns the versions and markers of a page that can be ours.
func (s *Store) versionsOf(page *s3.ListObjectVersionsOutput) []objstore.Version {
	var out []objstore.Version
	for _, v := range page.Versions {
		if key, ok := s.key(v.Key); ok {
			out = append(out, objstore.Version{
				Key: key, ID: aws.ToString(v.VersionId), Size: aws.ToInt64(v.Size), Modified: arrival(v.VersionId, v.LastModified),
				Current: aws.ToBool(v.IsLatest),
			})
		}
	}
	for _, m := range page.DeleteMarkers {
		if key, ok := s.key(m.Key); ok {
			out = append(out, objstore.Version{
				Key: key, ID: aws.ToString(m.VersionId), Modified: arrival(m.VersionId, m.LastModified),
				Current: aws.ToBool(m.IsLatest), DeleteMarker: true,
			})
		}
	}
	return out
}

// arrival is when a version arrived. Some servers (versitygw) give a version that was superseded the time when it was
// superseded; their ids are ULIDs, which begin with the time of arrival in milliseconds (https://github.com/ulid/spec).
func arrival(id *string, modified *time.Time) time.Time {
	at := aws.ToTime(modified)
	if len(aws.ToString(id)) != 26 {
		return at
	}
	var ms int64
	for i, c := range []byte(*id) {
		digit := strings.IndexByte("0123456789ABCDEFGHJKMNPQRSTVWXYZ", c)
		if digit < 0 {
			return at
		}
		if i < 10 {
			ms = ms<<5 | int64(digit)
		}
	}
	born := time.UnixMilli(ms).UTC()
	// The times of listings are rounded down to the second, and the id is made a moment after the object's time was taken.
	if at.IsZero() || born.Before(at.Add(2*time.Second)) && born.Year() > 2000 {
		return born
	}
	return at
}

// newestFirst orders versions by key, then the current one first, then by time. The AWS library gives versions and
// markers as two lists, each newest first: of a version and a marker of the same second, the version is taken for the
// newer one, because showing too much is better than missing something.
func newestFirst(a, b objstore.Version) int {
	if c := strings.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	if a.Current != b.Current {
		if a.Current {
			return -1
		}
		return 1
	}
	return cmp.Or(b.Modified.Compare(a.Modified), cmp.Compare(kind(a), kind(b)))
}

func kind(v objstore.Version) int {
	if v.DeleteMarker {
		return 1
	}
	return 0
}

// GetVersion implements [objstore.Versioned].
func (s *Store) GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error) {
	if err := objstore.CheckGet(key, offset); err != nil {
		return nil, err
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &s.bucket, Key: s.at(key), VersionId: &id, Range: byteRange(offset, cmp.Or(length, 1)),
	})
	switch {
	case err == nil:
	case status(err) == http.StatusRequestedRangeNotSatisfiable:
		return http.NoBody, nil // it begins past the end
	case unknownVersion(err):
		return nil, s.wrap(ctx, "get a version of", key, fmt.Errorf("%w: %w", objstore.ErrNotExist, err))
	default:
		return nil, s.wrap(ctx, "get a version of", key, err)
	}
	b := &body{ctx: ctx, store: s, key: key, ReadCloser: out.Body}
	if length >= 0 {
		b.limit = &length
	}
	return b, nil
}

// DeleteVersion implements [objstore.Versioned].
func (s *Store) DeleteVersion(ctx context.Context, key, id string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.at(key), VersionId: &id})
	if err != nil && !errors.Is(classify(err), objstore.ErrNotExist) && !unknownVersion(err) {
		return s.wrap(ctx, "delete a version of", key, err)
	}
	return nil
}

// unknownVersion says that there is no such version: some servers call the id itself wrong then.
func unknownVersion(err error) bool {
	c, message := code(err)
	return noVersion(err) || c == "InvalidArgument" && strings.Contains(strings.ToLower(message), "version id")
}

// PutVersion implements [objstore.Versioned]: Put without the condition.
func (s *Store) PutVersion(ctx context.Context, key string, c objstore.Content) error {
	if err := objstore.CheckPut(key, c); err != nil {
		return err
	}
	if err := s.enabled(ctx, "put a version of", key); err != nil {
		return err
	}
	content := &reader{SectionReader: io.NewSectionReader(c, 0, c.Size)}
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.at(key), Body: content, ContentLength: &c.Size,
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(c.SHA256[:])),
	}, s3.WithAPIOptions(signed(c.SHA256)))
	switch {
	case err == nil:
		return nil
	case content.err != nil && ctx.Err() == nil:
		return fmt.Errorf("put a version of %s: read content: %w", key, content.err)
	}
	return s.wrap(ctx, "put a version of", key, err)
}

// enabled is nil if the bucket certainly keeps versions now.
func (s *Store) enabled(ctx context.Context, op, key string) error {
	status, err := s.versioning(ctx)
	if err == nil && status != types.BucketVersioningStatusEnabled {
		err = s.wrap(ctx, op, key, objstore.ErrNoVersions)
	}
	return err
}

// Hide implements [objstore.Versioned].
func (s *Store) Hide(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	if err := s.enabled(ctx, "hide", key); err != nil {
		return err // a delete might be one for good
	}
	if _, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.at(key)}); err != nil {
		return s.wrap(ctx, "hide", key, err)
	}
	return nil
}

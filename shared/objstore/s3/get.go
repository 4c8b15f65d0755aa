package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Get implements [objstore.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := objstore.CheckGet(key, offset); err != nil {
		return nil, err
	}
	if length == 0 {
		// A range has at least one byte.
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return http.NoBody, nil
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &s.bucket, Key: s.at(key), Range: byteRange(offset, length),
	})
	if err != nil {
		if status(err) == http.StatusRequestedRangeNotSatisfiable {
			return http.NoBody, nil // it begins past the end
		}
		return nil, s.wrap(ctx, "get", key, err)
	}
	if err := objstore.CheckRange(aws.ToString(out.ContentRange), offset); err != nil {
		_ = out.Body.Close()
		return nil, s.wrap(ctx, "get", key, err)
	}
	b := &body{ctx: ctx, store: s, key: key, ReadCloser: out.Body}
	if length > 0 {
		// Not every server keeps to the range; more than was asked for is none of the caller's business.
		b.limit = &length
	}
	return b, nil
}

func byteRange(offset, length int64) *string {
	switch {
	case offset == 0 && length < 0:
		return nil
	case length < 0, length > math.MaxInt64-offset:
		return aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	return aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
}

type body struct {
	io.ReadCloser
	ctx   context.Context
	store *Store
	key   string
	limit *int64 // bytes that may still come, or nil
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil { // what has arrived already could go on for a while
		return 0, b.store.wrap(b.ctx, "read", b.key, err)
	}
	if b.limit != nil {
		if *b.limit <= 0 {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), *b.limit)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.limit != nil {
		*b.limit -= int64(n)
	}
	if err == nil || err == io.EOF { //nolint:errorlint // io.Reader promises EOF itself
		return n, err
	}
	if b.ctx.Err() == nil {
		err = objstore.Transient(err) // the connection broke: the rest can be asked for again
	}
	return n, b.store.wrap(b.ctx, "read", b.key, err)
}

// List implements [objstore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	return s.list(ctx, prefix, nil, func(i objstore.Info, _ types.Object) error { return fn(i) })
}

// list lists with what the listing tells on request.
func (s *Store) list(ctx context.Context, prefix string, more []types.OptionalObjectAttributes, fn func(objstore.Info, types.Object) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return err
	}
	last := ""
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.at(prefix), OptionalObjectAttributes: more})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return s.wrap(ctx, "list", prefix, err)
		}
		for i := range page.Contents {
			o := &page.Contents[i]
			key, ok := s.key(o.Key)
			if !ok {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if key <= last {
				return s.wrap(ctx, "list", prefix, errOrder)
			}
			last = key
			info := objstore.Info{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified), Class: classOf(o.StorageClass)}
			if err := fn(info, *o); err != nil {
				return err
			}
		}
	}
	return nil
}

var errOrder = errors.New("the server lists keys out of order; a directory bucket (S3 Express) cannot hold a repository")

// Prefixes implements [objstore.Lister].
func (s *Store) Prefixes(ctx context.Context, prefix string, fn func(name string) error) error {
	if err := objstore.CheckLevel(prefix); err != nil {
		return err
	}
	var names []string
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{
		Bucket: &s.bucket, Prefix: s.at(prefix), Delimiter: aws.String("/"),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return s.wrap(ctx, "list", prefix, err)
		}
		for _, p := range page.CommonPrefixes {
			// "prefix/name/": with a key below it, it would be checked as a key.
			below, ok := s.key(aws.String(aws.ToString(p.Prefix) + "x"))
			if ok && len(below) > len(prefix)+2 {
				names = append(names, below[len(prefix):len(below)-2])
			}
		}
	}
	return objstore.EachName(names, fn)
}

// Package s3state keeps the documents of package statestore in an S3 bucket. Writes carry If-None-Match or If-Match, so
// that of two who write at once one gets [statestore.ErrConflict]; the tag of a document is its ETag. Use [New].
package s3state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/btcdecoded/holdfast/shared/statestore"
)

// Options says where the documents are.
type Options struct {
	Bucket   string
	Prefix   string // of all keys; empty or ending in '/'
	Endpoint string // URL of a server that is not AWS's, which has the bucket in the path; empty: AWS
}

// Store is a state store in a bucket.
type Store struct {
	client *s3.Client
	o      Options
}

// attempts is how often one request is sent where the trouble is such that it passes. A write that was sent twice and
// conflicts may have collided with itself: the caller reads again, as after any conflict.
const attempts = 4

// New returns the store. It talks to nobody yet.
func New(cfg aws.Config, o Options) *Store {
	client := s3.NewFromConfig(cfg, func(c *s3.Options) {
		if o.Endpoint != "" {
			c.BaseEndpoint, c.UsePathStyle = aws.String(o.Endpoint), true
		}
		c.Retryer = retry.AddWithMaxAttempts(retry.NewStandard(), attempts)
		c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	return &Store{client: client, o: o}
}

// Get implements [statestore.Store].
func (s *Store) Get(ctx context.Context, key string) ([]byte, string, error) {
	return s.get(ctx, key, nil)
}

// GetUnless implements [statestore.Conditional].
func (s *Store) GetUnless(ctx context.Context, key, tag string) ([]byte, string, error) {
	return s.get(ctx, key, &tag)
}

func (s *Store) get(ctx context.Context, key string, unless *string) ([]byte, string, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &s.o.Bucket, Key: aws.String(s.o.Prefix + key), IfNoneMatch: unless,
	})
	var answer *smithyhttp.ResponseError
	if unless != nil && errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusNotModified {
		return nil, *unless, statestore.ErrUnmodified
	}
	if err != nil {
		return nil, "", s.wrap("get", key, err)
	}
	defer func() { _ = out.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(out.Body, statestore.MaxDocument+1))
	if err != nil {
		return nil, "", s.wrap("get", key, err)
	}
	if len(body) > statestore.MaxDocument {
		return nil, "", fmt.Errorf("get s3://%s/%s%s: larger than a document may be", s.o.Bucket, s.o.Prefix, key)
	}
	return body, aws.ToString(out.ETag), nil
}

// Put implements [statestore.Store].
func (s *Store) Put(ctx context.Context, key string, body []byte, tag string) (string, error) {
	in := &s3.PutObjectInput{
		Bucket: &s.o.Bucket, Key: aws.String(s.o.Prefix + key), Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
		ContentType: aws.String("application/json"),
	}
	if tag == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &tag
	}
	out, err := s.client.PutObject(ctx, in)
	if err != nil {
		if tag != "" && errors.Is(classify(err), statestore.ErrNotExist) {
			// If-Match on what is gone.
			return "", fmt.Errorf("put s3://%s/%s%s: %w", s.o.Bucket, s.o.Prefix, key, statestore.ErrConflict)
		}
		return "", s.wrap("put", key, err)
	}
	return aws.ToString(out.ETag), nil
}

// Delete implements [statestore.Store].
func (s *Store) Delete(ctx context.Context, key, tag string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{
		Bucket: &s.o.Bucket, Key: aws.String(s.o.Prefix + key), IfMatch: &tag,
	})
	if err = s.wrap("delete", key, err); errors.Is(err, statestore.ErrNotExist) {
		return nil
	}
	return err
}

// List implements [statestore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(key string) error) error {
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{
		Bucket: &s.o.Bucket, Prefix: aws.String(s.o.Prefix + prefix),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return s.wrap("list", prefix, err)
		}
		for _, o := range page.Contents {
			if err := fn(aws.ToString(o.Key)[len(s.o.Prefix):]); err != nil {
				return err
			}
		}
	}
	return nil
}

// wrap gives an error its operation, object and the contract's meaning; nil stays nil.
func (s *Store) wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	object := fmt.Sprintf("s3://%s/%s%s", s.o.Bucket, s.o.Prefix, key)
	if kind := classify(err); kind != nil {
		return fmt.Errorf("%s %s: %w: %w", op, object, kind, err)
	}
	return fmt.Errorf("%s %s: %w", op, object, err)
}

// classify returns the contract's error for err, or nil if it has none.
func classify(err error) error {
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var answer *smithyhttp.ResponseError
	status := 0
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	switch {
	case code == "NoSuchBucket":
		return nil // not the same as a document that is not there; so is every other code with status 404
	case code == "NoSuchKey", code == "NotFound", code == "" && status == http.StatusNotFound:
		return statestore.ErrNotExist
	case code == "PreconditionFailed", code == "ConditionalRequestConflict", status == http.StatusPreconditionFailed, status == http.StatusConflict:
		return statestore.ErrConflict
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return statestore.ErrDenied
	}
	return nil
}

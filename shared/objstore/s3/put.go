package s3

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // what S3 calls an object's ETag; nothing rests on its strength
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Put implements [objstore.Store]: one request, which the server carries out whole or not at all.
func (s *Store) Put(ctx context.Context, key string, c objstore.Content) error {
	if err := objstore.CheckPut(key, c); err != nil {
		return err
	}
	content := &reader{SectionReader: io.NewSectionReader(c, 0, c.Size)}
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.bucket, Key: s.at(key), Body: content, ContentLength: &c.Size,
		IfNoneMatch:    aws.String("*"),
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(c.SHA256[:])),
	}, s3.WithAPIOptions(signed(c.SHA256)))
	switch {
	case err == nil:
		return nil
	case content.err != nil && ctx.Err() == nil:
		return fmt.Errorf("put %s: read content: %w", key, content.err)
	case status(err) == http.StatusPreconditionFailed, status(err) == http.StatusConflict:
		// 412: something is there. 409: another writer is at it in this moment.
		return s.compare(ctx, key, c)
	}
	err = s.wrap(ctx, "put", key, err)
	if objstore.IsTransient(err) {
		// The connection broke. Perhaps the object has arrived and only the answer was lost; perhaps another one is
		// there, and the server closed the connection at once when it saw that. Sending it all again would end alike.
		if there := s.compare(ctx, key, c); there == nil || errors.Is(there, objstore.ErrExist) {
			return there
		}
	}
	return err
}

// signed makes sum the hash of the body that the request's signature covers, which saves reading the body for it. The
// server refuses another body.
func signed(sum [32]byte) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("HoldfastPayloadHash", func(
			ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
		) (middleware.FinalizeOutput, middleware.Metadata, error) {
			return next.HandleFinalize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum[:])), in)
		}), middleware.Before)
	}
}

// reader remembers why the content could not be read.
type reader struct {
	*io.SectionReader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.SectionReader.Read(p)
	if err == io.EOF && r.position() < r.Size() { //nolint:errorlint // io.Reader promises EOF itself
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF { //nolint:errorlint // as above
		r.err = err
	}
	return n, err
}

func (r *reader) position() int64 {
	at, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0
	}
	return at
}

// compare tells what the object under key has to do with c, which could not be put for it: nil if it has the same
// bytes, ErrExist if it has others.
func (s *Store) compare(ctx context.Context, key string, c objstore.Content) error {
	i, err := s.Stat(ctx, key)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		// The other writer has not finished, or its object is deleted again.
		return objstore.Transient(fmt.Errorf("put %s: another writer is under way", key))
	case errors.Is(err, objstore.ErrDenied):
		// Credentials that may only add: the listing tells enough.
		return s.compareListed(ctx, key, c, err)
	case err != nil:
		return fmt.Errorf("put %s: compare with what is there: %w", key, err)
	case i.Size != c.Size:
		return fmt.Errorf("put %s: %w", key, objstore.ErrExist)
	case i.SHA256 == nil:
		return s.compareBytes(ctx, key, c)
	case !bytes.Equal(i.SHA256, c.SHA256[:]):
		return fmt.Errorf("put %s: %w", key, objstore.ErrExist)
	}
	return nil
}

// compareBytes reads the object, for stores that keep no checksum.
func (s *Store) compareBytes(ctx context.Context, key string, c objstore.Content) error {
	body, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("put %s: compare with what is there: %w", key, err)
	}
	defer func() { _ = body.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, body); err != nil {
		return fmt.Errorf("put %s: compare with what is there: %w", key, err)
	}
	if !bytes.Equal(sum.Sum(nil), c.SHA256[:]) {
		return fmt.Errorf("put %s: %w", key, objstore.ErrExist)
	}
	return nil
}

// compareListed compares by size and ETag, which for an object of one request is the MD5 of its bytes (unless the
// bucket encrypts with KMS keys: then it equals nothing, and denied, the reason why we ask so, is the answer).
func (s *Store) compareListed(ctx context.Context, key string, c objstore.Content, denied error) error {
	page, err := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: &s.bucket, Prefix: s.at(key), MaxKeys: aws.Int32(1),
	})
	if err != nil {
		return s.wrap(ctx, "put", key, err)
	}
	if len(page.Contents) == 0 || aws.ToString(page.Contents[0].Key) != *s.at(key) {
		return objstore.Transient(fmt.Errorf("put %s: another writer is under way", key))
	}
	there := page.Contents[0]
	if aws.ToInt64(there.Size) != c.Size {
		return fmt.Errorf("put %s: %w", key, objstore.ErrExist)
	}
	sum := md5.New() //nolint:gosec // see above
	if _, err := io.Copy(sum, io.NewSectionReader(objstore.Unmetered(c.ReaderAt), 0, c.Size)); err != nil {
		return fmt.Errorf("put %s: read content: %w", key, err)
	}
	tag := strings.Trim(aws.ToString(there.ETag), `"`)
	if tag == hex.EncodeToString(sum.Sum(nil)) {
		return nil
	}
	return fmt.Errorf("put %s: %w, and what is there cannot be compared: %w", key, objstore.ErrExist, denied)
}

// Stat implements [objstore.Store].
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &s.bucket, Key: s.at(key), ChecksumMode: types.ChecksumModeEnabled,
	})
	if err != nil {
		return objstore.Info{}, s.wrap(ctx, "stat", key, err)
	}
	i := objstore.Info{Key: key, Size: aws.ToInt64(head.ContentLength), Modified: aws.ToTime(head.LastModified)}
	// The checksum of an object in parts is not that of its bytes.
	if head.ChecksumSHA256 != nil && head.ChecksumType != types.ChecksumTypeComposite {
		if sum, err := base64.StdEncoding.DecodeString(*head.ChecksumSHA256); err == nil && len(sum) == sha256.Size {
			i.SHA256 = sum
		}
	}
	return i, nil
}

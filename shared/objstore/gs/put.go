package gs

import (
	"context"
	"crypto/md5" //nolint:gosec // what the server keeps of each object; nothing rests on its strength
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"

	"google.golang.org/api/googleapi"
	raw "google.golang.org/api/storage/v1"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// sums are what the server knows of an object.
type sums struct {
	crc uint32
	md5 [md5.Size]byte
}

// measure reads c once and checks that it is what was announced.
func measure(ctx context.Context, c objstore.Content) (sums, error) {
	sha, crc, md := sha256.New(), crc32.New(crc32.MakeTable(crc32.Castagnoli)), md5.New() //nolint:gosec // see above
	r := io.NewSectionReader(objstore.Unmetered(c.ReaderAt), 0, c.Size)
	n, err := io.Copy(io.MultiWriter(sha, crc, md), bounded{ctx, r})
	switch {
	case err != nil:
		return sums{}, fmt.Errorf("read content: %w", err)
	case n != c.Size:
		return sums{}, fmt.Errorf("read content: %w", io.ErrUnexpectedEOF)
	case [32]byte(sha.Sum(nil)) != c.SHA256:
		return sums{}, objstore.ErrChecksum
	}
	return sums{crc: crc.Sum32(), md5: [md5.Size]byte(md.Sum(nil))}, nil
}

// bounded is a reader that ends with its context.
type bounded struct {
	ctx context.Context
	io.Reader
}

func (b bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

// Put implements [objstore.Store]: one request, which the server carries out whole or not at all.
func (s *Store) Put(ctx context.Context, key string, c objstore.Content) error {
	if err := objstore.CheckPut(key, c); err != nil {
		return err
	}
	sum, err := measure(ctx, c)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	err = s.upload(ctx, key, c, sum)
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && (status(err) == http.StatusPreconditionFailed || status(err) == http.StatusConflict):
		return s.compare(ctx, key, c, sum)
	}
	err = s.wrap(ctx, "put", key, err)
	if objstore.IsTransient(err) {
		// Perhaps the object has arrived and only the answer was lost.
		if there := s.compare(ctx, key, c, sum); there == nil || errors.Is(there, objstore.ErrExist) {
			return there
		}
	}
	return err
}

func (s *Store) upload(ctx context.Context, key string, c objstore.Content, sum sums) error {
	return s.send(s.insert(ctx, key, sum).IfGenerationMatch(0), c)
}

// insert begins the call that stores an object with these sums.
func (s *Store) insert(ctx context.Context, key string, sum sums) *raw.ObjectsInsertCall {
	return s.raw.Insert(s.name, &raw.Object{
		Name: s.prefix + key, ContentType: contentType,
		Crc32c:  base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum.crc)),
		Md5Hash: base64.StdEncoding.EncodeToString(sum.md5[:]),
	}).Context(ctx)
}

const contentType = "application/octet-stream"

// send sends the content: one request, nothing kept in memory, never sent again by itself.
func (s *Store) send(call *raw.ObjectsInsertCall, c objstore.Content) error {
	_, err := call.WithRetry(nil, func(error) bool { return false }).
		Media(io.NewSectionReader(c, 0, c.Size), googleapi.ChunkSize(0), googleapi.ContentType(contentType)).Do()
	return err
}

// compare tells what the object under key has to do with c, which could not be put for it: nil if it has the same
// bytes, ErrExist if it has others.
func (s *Store) compare(ctx context.Context, key string, c objstore.Content, sum sums) error {
	there, err := s.describe(ctx, key)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		return objstore.Transient(fmt.Errorf("put %s: another writer is under way", key))
	case err != nil:
		return s.wrap(ctx, "put", key, err)
	case !same(there, c.Size, sum):
		return fmt.Errorf("put %s: %w", key, objstore.ErrExist)
	}
	return nil
}

// same reports whether an object is what was measured.
func same(there *raw.Object, size int64, sum sums) bool {
	return there.Size == uint64(size) && //nolint:gosec // never negative
		there.Crc32c == base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum.crc)) &&
		there.Md5Hash == base64.StdEncoding.EncodeToString(sum.md5[:])
}

// describe returns what the server knows of an object; ErrNotExist where there is none. Credentials that may only add
// cannot ask for it, but may list.
func (s *Store) describe(ctx context.Context, key string) (*raw.Object, error) {
	o, err := s.raw.Get(s.name, s.prefix+key).Context(ctx).Do()
	switch {
	case status(err) == http.StatusNotFound:
		return nil, fmt.Errorf("%w: %w", objstore.ErrNotExist, err)
	case !errors.Is(classify(err), objstore.ErrDenied):
		return o, err
	}
	// The key itself sorts before all longer ones that it begins.
	page, err := s.raw.List(s.name).Prefix(s.prefix + key).MaxResults(1).Context(ctx).Do()
	if err != nil {
		return nil, err
	}
	if len(page.Items) == 0 || page.Items[0].Name != s.prefix+key {
		return nil, objstore.ErrNotExist
	}
	return page.Items[0], nil
}

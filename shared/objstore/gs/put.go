package gs

import (
	"context"
	"crypto/md5" //nolint:gosec // what the server keeps of each object; nothing rests on its strength
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

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
	// Ending the context is how an upload is given up: nothing is stored then.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := s.object(key).If(storage.Conditions{DoesNotExist: true}).NewWriter(ctx)
	w.ChunkSize = 0 // one request, nothing kept in memory
	w.ContentType = "application/octet-stream"
	w.CRC32C, w.SendCRC32C = sum.crc, true
	w.MD5 = sum.md5[:]
	if _, err := io.Copy(w, io.NewSectionReader(c, 0, c.Size)); err != nil {
		cancel()
		// What the server said, if it said something, is in the error of Close.
		if e := w.Close(); e != nil && !errors.Is(e, context.Canceled) {
			return e
		}
		return err
	}
	return w.Close()
}

// compare tells what the object under key has to do with c, which could not be put for it: nil if it has the same
// bytes, ErrExist if it has others.
func (s *Store) compare(ctx context.Context, key string, c objstore.Content, sum sums) error {
	there, err := s.describe(ctx, key)
	switch {
	case errors.Is(err, storage.ErrObjectNotExist):
		return objstore.Transient(fmt.Errorf("put %s: another writer is under way", key))
	case err != nil:
		return s.wrap(ctx, "put", key, err)
	case there.Size != c.Size, there.CRC32C != sum.crc, string(there.MD5) != string(sum.md5[:]):
		return fmt.Errorf("put %s: %w", key, objstore.ErrExist)
	}
	return nil
}

// describe returns what the server knows of an object. Credentials that may only add cannot ask for it, but may list.
func (s *Store) describe(ctx context.Context, key string) (*storage.ObjectAttrs, error) {
	a, err := s.object(key).Attrs(ctx)
	if !errors.Is(classify(err), objstore.ErrDenied) {
		return a, err
	}
	// The key itself sorts before all longer ones that it begins.
	a, err = s.bucket.Objects(ctx, &storage.Query{Prefix: s.prefix + key}).Next()
	if errors.Is(err, iterator.Done) || err == nil && a.Name != s.prefix+key {
		return nil, storage.ErrObjectNotExist
	}
	return a, err
}

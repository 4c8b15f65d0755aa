// Package objstore is the contract between Holdfast and whatever keeps its objects: S3, Google Cloud Storage, a
// directory, memory. Use [Store]; drivers live in the packages below this one and pass the suite in storetest.
//
// Objects are immutable: Put writes only what is absent, nothing overwrites.
package objstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"
)

// MaxObject is the largest object that Holdfast writes, in bytes: one request, never multipart.
const MaxObject = 64 << 20

var (
	// ErrNotExist says that there is no object under the key.
	ErrNotExist = errors.New("object does not exist")
	// ErrExist says that an object with other bytes is under the key already.
	ErrExist = errors.New("object exists already with other content")
	// ErrLocked says that the store refuses to delete the object (Object Lock, legal hold, retention).
	ErrLocked = errors.New("object is locked against deletion")
	// ErrDenied says that the credentials do not allow the operation.
	ErrDenied = errors.New("access denied")
	// ErrArchived says that the object is in a storage class from which it must be thawed before it can be read.
	ErrArchived = errors.New("object is archived: it must be thawed before it can be read")
	// ErrChecksum says that the bytes that arrived are not those that were announced.
	ErrChecksum = errors.New("checksum does not match")
	// ErrFull says that the store has no room left.
	ErrFull = errors.New("no space left in the store")
)

// Info describes one object.
type Info struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // when the store received it, by the store's clock
	SHA256   []byte    // 32 bytes as recorded by the store, or nil where the store keeps none or List does not tell
	Class    Class     // as List tells; Stat need not
}

// Content is what Put writes. The reader must stay valid until Put returns; Put may read it several times.
type Content struct {
	io.ReaderAt
	Size   int64
	SHA256 [32]byte // of the whole content; the store checks it
}

// Bytes is Content over b, which must not change until Put returns.
func Bytes(b []byte) Content {
	return Content{ReaderAt: bytes.NewReader(b), Size: int64(len(b)), SHA256: sha256.Sum256(b)}
}

// Store holds immutable objects. All methods are safe for concurrent use and return as soon as ctx ends.
// Keys are as [CheckKey] says; no key is a directory of another ("a" and "a/b" never exist together).
type Store interface {
	// Put stores c under key if nothing is there. When it returns nil the object is durable and complete, with
	// exactly the announced bytes; a partial object is never visible. If the key exists with the same bytes
	// (a retry whose answer was lost) it returns nil; with others, ErrExist.
	// Errors: ErrExist, ErrChecksum, ErrDenied, ErrFull, or a transient error (see [IsTransient]) after which the
	// object may or may not be there.
	Put(ctx context.Context, key string, c Content) error
	// Get returns length bytes from offset; length < 0 means to the end. Reading past the end returns what is there.
	// Errors: ErrNotExist, ErrDenied, ErrArchived. The body's Read returns the same kinds of errors and ends with ctx.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat describes one object. Errors: ErrNotExist, ErrDenied.
	Stat(ctx context.Context, key string) (Info, error)
	// List calls fn, from one goroutine, for each object whose key begins with prefix, in ascending byte order of keys, and includes every
	// object whose Put returned before List was called. It stops at fn's first error and returns it as it is.
	// A prefix need not end at a '/'. fn may call the store.
	List(ctx context.Context, prefix string, fn func(Info) error) error
	// Delete removes one object for good, with all its versions where the store keeps versions. Removing what is
	// absent is no error. Errors: ErrLocked, ErrDenied.
	Delete(ctx context.Context, key string) error
}

// Lister is what the function [Prefixes] needs beyond Store: stores that can list one level implement it.
type Lister interface {
	// Prefixes calls fn with each distinct next path component under prefix (which ends in '/' or is empty) that
	// has objects below it, without the slash, in ascending byte order of names.
	Prefixes(ctx context.Context, prefix string, fn func(name string) error) error
}

// transient is implemented by errors that a retry may cure.
type transient interface{ Transient() bool }

// IsTransient reports whether the same call may succeed later: a cut connection, a 5xx, a throttle.
func IsTransient(err error) bool {
	var t transient
	return errors.As(err, &t) && t.Transient()
}

// Transient marks err as one that a retry may cure.
func Transient(err error) error { return transientError{err} }

type transientError struct{ error }

func (transientError) Transient() bool { return true }
func (e transientError) Unwrap() error { return e.error }

// ReadAll returns the whole object, refusing one larger than limit bytes.
func ReadAll(ctx context.Context, s Store, key string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, limit+1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, errors.New("object is larger than it may be")
	}
	return b, nil
}

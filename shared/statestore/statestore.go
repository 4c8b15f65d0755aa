// Package statestore is the contract for the small documents that the control plane's functions share: they are
// overwritten, each write names the version that it replaces, and all of them can be rebuilt from the repository and
// from what the agents report. The repository itself is in package objstore, which overwrites nothing.
//
// Use [Update] to change a document and [Read] to read one. Drivers: s3state (a bucket, If-Match) and memstate (tests).
package statestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// MaxDocument bounds a document, in bytes. The largest is the book of alerts when several objectives of 10,000 sources are not
// met at once.
const MaxDocument = 64 << 20

var (
	// ErrNotExist says that there is no document under the key.
	ErrNotExist = errors.New("document does not exist")
	// ErrConflict says that the document is not what the caller believes: somebody else wrote it meanwhile.
	ErrConflict = errors.New("document was changed by another")
	// ErrUnmodified says that the document is still the version that the caller has.
	ErrUnmodified = errors.New("document is unmodified")
	// ErrDenied says that the credentials do not allow the operation.
	ErrDenied = errors.New("access denied")
)

// Store holds documents. All methods are safe for concurrent use and return as soon as ctx ends. Reads see every write
// that returned before they were called. Errors other than those named may be of trouble that passes; after one, a
// write may have happened or not.
type Store interface {
	// Get returns a document and the tag of this version of it. Errors: ErrNotExist, ErrDenied.
	Get(ctx context.Context, key string) (body []byte, tag string, err error)
	// Put writes a document whole or not at all and returns its new tag. With tag "" it writes only where nothing is;
	// otherwise only over the version that has the tag. Errors: ErrConflict, ErrDenied.
	Put(ctx context.Context, key string, body []byte, tag string) (string, error)
	// Delete removes the version that has the tag. What is absent is no error. Errors: ErrConflict, ErrDenied.
	Delete(ctx context.Context, key, tag string) error
	// List calls fn for each key that begins with prefix, in ascending order, and stops at fn's first error, which it
	// returns as it is.
	List(ctx context.Context, prefix string, fn func(key string) error) error
}

// Conditional is implemented by stores that need not send what the caller has already.
type Conditional interface {
	// GetUnless is Get, unless the document's current version has the tag: then the error is ErrUnmodified.
	GetUnless(ctx context.Context, key, tag string) (body []byte, current string, err error)
}

// GetUnless returns a document unless its current version has the tag, which is not empty; then the error is
// [ErrUnmodified]. Of a store that is [Conditional], what the caller has is not sent again.
func GetUnless(ctx context.Context, s Store, key, tag string) (body []byte, current string, err error) {
	if c, ok := s.(Conditional); ok && tag != "" {
		return c.GetUnless(ctx, key, tag)
	}
	body, current, err = s.Get(ctx, key)
	if err == nil && tag != "" && current == tag {
		return nil, tag, ErrUnmodified
	}
	return body, current, err
}

// attempts is how often Update reads and writes before it gives up.
const attempts = 8

// ErrUnchanged ends [Update] without a write and without an error, where the function that it calls returns it.
var ErrUnchanged = errors.New("document is left as it is")

// Read reads the JSON document under key. Errors: those of [Store.Get]; a document that is not JSON of T is an error.
func Read[T any](ctx context.Context, s Store, key string) (*T, string, error) {
	body, tag, err := s.Get(ctx, key)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", key, err)
	}
	v := new(T)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, tag, fmt.Errorf("read %s: %w", key, err)
	}
	return v, tag, nil
}

// Update reads the JSON document under key (the zero value where there is none), lets change alter it, and writes it
// back unless another wrote it meanwhile: then all of it is done again, after a short random wait, a few times. change
// may therefore be called several times, each time with a fresh document. Its error ends Update and is returned as it
// is; [ErrUnchanged] ends it without a write and without an error.
//
// A crash leaves the document as it was or as change made it. Where the answer of a write is lost, Update may apply
// change to a document that has it already: changes must be such that this does no harm.
func Update[T any](ctx context.Context, s Store, key string, change func(*T) error) error {
	var last error
	for try := range attempts {
		if try > 0 {
			if err := pause(ctx, try); err != nil {
				return err
			}
		}
		v, tag, err := Read[T](ctx, s, key)
		if errors.Is(err, ErrNotExist) {
			v, tag, err = new(T), "", nil
		}
		if err != nil {
			return err
		}
		if err := change(v); err != nil {
			if errors.Is(err, ErrUnchanged) {
				return nil
			}
			return err
		}
		if _, last = Write(ctx, s, key, v, tag); !errors.Is(last, ErrConflict) {
			return last
		}
	}
	return last
}

// Write writes v as the JSON document under key over the version that has the tag; tag "": where nothing is.
// It returns the new tag. Errors: those of [Store.Put].
func Write(ctx context.Context, s Store, key string, v any, tag string) (string, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", key, err)
	}
	if len(body) > MaxDocument {
		return "", fmt.Errorf("write %s: %d bytes are more than a document may have", key, len(body))
	}
	tag, err = s.Put(ctx, key, body, tag)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", key, err)
	}
	return tag, nil
}

// pause waits before another try: longer each time, and randomly, so that two who collided do not do so again.
func pause(ctx context.Context, try int) error {
	longest := 10 * time.Millisecond << min(try, 6)
	t := time.NewTimer(time.Duration(rand.Int64N(int64(longest)))) //nolint:gosec // no secret depends on it
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

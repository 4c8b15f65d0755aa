package objstore

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrNoVersions says that a store keeps no versions of its objects.
var ErrNoVersions = errors.New("store keeps no versions")

// Version is one version of an object, or a delete marker over it.
type Version struct {
	Key          string
	ID           string // opaque; unique for its key
	Size         int64  // bytes; 0 for a marker
	Modified     time.Time
	Current      bool // what the methods of Store see
	DeleteMarker bool // there is no object as long as this is current
}

// Versioned is implemented by stores that may keep every version of their objects. Versions are not part of the
// repository's format: they are how what was overwritten or hidden is found again. Whether a store really keeps them is
// known when it is asked: each method may return ErrNoVersions.
type Versioned interface {
	// ListVersions calls fn, from one goroutine, for each version of each object whose key begins with prefix: keys in
	// ascending byte order, the versions of a key newest first. It stops at fn's first error and returns it as it is.
	// fn may call the store, and delete versions of the key that it is called for.
	ListVersions(ctx context.Context, prefix string, fn func(Version) error) error
	// GetVersion is [Store.Get] of one version. Errors: ErrNotExist, ErrDenied.
	GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error)
	// DeleteVersion removes one version, or marker, for good. Removing what is absent is no error.
	// Errors: ErrLocked, ErrDenied.
	DeleteVersion(ctx context.Context, key, id string) error
	// Hide puts a delete marker over an object, which locks do not prevent.
	Hide(ctx context.Context, key string) error
	// PutVersion is [Store.Put] over whatever is there: c becomes the current version. Only for bytes that the key itself
	// proves to be the right ones. Errors: ErrChecksum, ErrDenied, ErrFull.
	PutVersion(ctx context.Context, key string, c Content) error
}

// VersionedOf returns s as a store that may keep versions. Errors: ErrNoVersions.
func VersionedOf(s Store) (Versioned, error) {
	if v, ok := s.(Versioned); ok {
		return v, nil
	}
	return nil, ErrNoVersions
}

// OneVersion is s, but that Get reads the version with this id: what a decorator does with Get it does with GetVersion by
// decorating that.
func OneVersion(s Store, versions Versioned, id string) Store { return oneVersion{s, versions, id} }

type oneVersion struct {
	Store
	versions Versioned
	id       string
}

func (o oneVersion) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return o.versions.GetVersion(ctx, key, o.id, offset, length)
}

package objstore

import (
	"context"
	"errors"
)

// ErrNoTags says that a store can not tag its objects.
var ErrNoTags = errors.New("store can not tag objects")

// Tagger is implemented by stores that may tag objects, so that rules of the store go by it, such as those that move
// objects to another storage class. A tag is no part of the repository's format.
type Tagger interface {
	// Tag gives the current version of an object this tag and no other. Errors: ErrNotExist, ErrDenied, ErrNoTags.
	Tag(ctx context.Context, key, name, value string) error
}

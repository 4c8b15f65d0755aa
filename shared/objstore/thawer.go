package objstore

import (
	"context"
	"errors"
	"time"
)

// ErrNoThaw says that a store has nothing that must be thawed.
var ErrNoThaw = errors.New("store has no storage classes that must be thawed")

// ThawSpeed is how fast an archived object becomes readable, in the words of S3.
type ThawSpeed string

// The speeds.
const (
	ThawStandard ThawSpeed = "Standard"
	ThawBulk     ThawSpeed = "Bulk" // slower and cheaper
)

// MaxThawDays is the longest for which [Thawer.Thaw] asks: the copy that can be read is paid for as long as it is there.
const MaxThawDays = 30

// Thaw is how far an archived object is. The zero value: nobody has asked, or what was thawed is over.
type Thaw struct {
	Asked bool      // asked for, and not there yet
	Until time.Time // until then it can be read; zero: it can not
}

// Thawer is implemented by stores that may have objects in classes from which nothing can be read, see [Class.Archived].
// The object stays in its class; thawing makes a copy that can be read for some days. Whether a store really has such
// classes is known when it is asked: each method may return ErrNoThaw.
type Thawer interface {
	// Thaw asks for the object to be readable for days, at most [MaxThawDays], from when the copy is there, and does not
	// wait for it. Of one that is thawed it prolongs the copy to days from now; of one that was asked for already it
	// changes nothing. Errors: ErrNotExist, ErrDenied, ErrNoThaw.
	Thaw(ctx context.Context, key string, days int, speed ThawSpeed) error
	// ListThaws is [Store.List] that tells of archived objects how far they are; of others the zero value.
	ListThaws(ctx context.Context, prefix string, fn func(Info, Thaw) error) error
}

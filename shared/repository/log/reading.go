package log

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/semaphore"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
)

// reading is objects of an epoch whose records are yielded one after the other.
//
// No record is yielded before it is proven: that it is, to the byte, what was once stored. Most are by the hash that the record
// after them has. The last one of an object waits for the object that follows; where none does, or not that one, the ids of
// the chunks prove it. So most bytes are hashed once, and not a second time for those ids.
type reading struct {
	*follower
	number   int // of the leg
	leg      leg
	keys     *seal.Keys
	excluded map[layout.LogObject]error
	n        uint64  // the next record that is due
	waits    *future // its last record is due, and not proven; nil: none is
}

// errOtherWay says that an object was excluded: the caller looks for another one that holds the record that is due.
var errOtherWay = errors.New("an object is damaged")

// objects yields the records of objects as they come. It reports false if nobody wants more.
func (r *reading) objects(ctx context.Context, all <-chan *future, window *semaphore.Weighted) (more bool, err error) {
	for f := range all {
		<-f.done
		if more, err := r.settle(ctx, f); err != nil || !more {
			return more, err
		}
		if f.err == nil {
			f.err = r.follows(f, r.n)
		}
		if f.err != nil {
			return r.fault(f, f.err)
		}
		if !r.records(f) {
			return false, nil
		}
		window.Release(f.weight)
	}
	if ctx.Err() != nil {
		return true, ctx.Err()
	}
	return r.settle(ctx, nil)
}

// records yields those of an object that are due.
func (r *reading) records(f *future) bool {
	for i, e := range f.loaded.entries {
		switch {
		case e.sequence < r.n:
			continue
		case e.sequence > r.leg.to:
			return true
		case i == len(f.loaded.entries)-1 && f.loaded.open != nil:
			r.waits = f
			return true
		}
		if !r.record(f, i) {
			return false
		}
	}
	return true
}

// record yields one.
func (r *reading) record(f *future, i int) bool {
	e, hash := f.loaded.entries[i], f.loaded.hashes[i]
	r.previous, r.known, r.zero = hash, true, false
	r.n = e.sequence + 1
	return r.yield(located{r.number, e, hash}, nil)
}

// settle yields the record that waits, once it is proven: by the object that came next, if one did and if it can.
func (r *reading) settle(ctx context.Context, next *future) (more bool, err error) {
	f := r.waits
	if f == nil {
		return true, nil
	}
	r.waits = nil
	if !f.provenBy(next) {
		if err := r.prove(ctx, f); err != nil {
			return r.fault(f, err)
		}
	}
	return r.record(f, len(f.loaded.entries)-1), nil
}

// provenBy reports whether another object has the hash of the last record of this one.
func (f *future) provenBy(next *future) bool {
	if next == nil || next.err != nil || f.Last+1 < next.First || f.Last+1 > next.Last {
		return false
	}
	return next.loaded.entries[f.Last+1-next.First].previous == f.loaded.last()
}

// prove proves the last record of an object by the ids of its chunks. Where they are others the object is read once more, from
// elsewhere if it must be.
func (r *reading) prove(ctx context.Context, f *future) error {
	if f.loaded.prove(r.keys) == nil {
		return nil
	}
	l, err := load(ctx, r.reader.repo, r.reader.src, r.keys, f.LogObject)
	if err != nil {
		return err
	}
	f.loaded = l
	return r.follows(f, r.n)
}

// fault ends the reading: with errOtherWay where the object is damaged.
func (r *reading) fault(f *future, err error) (bool, error) {
	var damage *repository.DamageError
	if !errors.As(err, &damage) {
		return false, err
	}
	r.excluded[f.LogObject] = err
	return true, errOtherWay
}

// follows checks that record n, in the object, follows the records before it.
func (w *follower) follows(f *future, n uint64) error {
	if !w.known {
		return nil
	}
	at := n - f.First
	before := f.loaded.entries[at].previous
	if before != w.previous {
		return &repository.DamageError{Key: layout.LogKey(w.reader.src, f.LogObject), Err: fmt.Errorf("record %d %w", n, ErrChain)}
	}
	return nil
}

package log

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Range is the records after From, on the branch that ends with Through, that are not later than Until.
type Range struct {
	From    Place     // of the base: its records are in it; Record may be empty, then it is not compared
	Through Place     // the last record that is read; Record is not looked at
	Until   time.Time // zero: no limit
}

// RangeOf is the range that shared/recovery has chosen.
func RangeOf(r recovery.LogRange) Range {
	return Range{From: r.From, Through: r.Through, Until: r.Until}
}

// Reader reads the logs of a source. It is safe for concurrent use.
type Reader struct {
	repo    *repository.Repository
	src     snapshot.Source
	streams []Stream

	mu   sync.Mutex
	keys map[*Epoch]*seal.Keys // guarded by mu
}

// NewReader returns a reader of what [Streams] has listed.
func NewReader(repo *repository.Repository, src snapshot.Source, streams []Stream) *Reader {
	return &Reader{repo: repo, src: src, streams: streams, keys: map[*Epoch]*seal.Keys{}}
}

// Keys opens the data key of an epoch with the repository's identity. Errors: ErrNoHead, those of
// [repository.Repository.UnwrapKey].
func (r *Reader) Keys(ctx context.Context, e *Epoch) (*seal.Keys, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.keys[e]; k != nil {
		return k, nil
	}
	if e.Described == nil {
		return nil, fmt.Errorf("epoch %d of stream %s: %w: %w", e.Epoch, e.Stream, ErrNoHead, e.Err)
	}
	stream, err := snapshot.ParseChainID(e.Stream)
	if err != nil {
		return nil, err
	}
	about := seal.Context{Repository: r.repo.ID(), Source: r.src, Chain: stream}
	key, err := r.repo.UnwrapKey(ctx, e.Described.Keys[0], about)
	if err != nil {
		return nil, fmt.Errorf("open the key of epoch %d of stream %s: %w", e.Epoch, e.Stream, err)
	}
	k := seal.NewKeys(key, about)
	r.keys[e] = k
	return k, nil
}

// leg is a run of records of one epoch.
type leg struct {
	epoch    *Epoch
	from, to uint64 // both inclusive; from > to: none
}

// begins reports whether the leg begins with the first record of a stream.
func (l leg) begins() bool {
	c := l.epoch.Described.Continues
	if c == nil {
		return l.from == 1
	}
	return l.from == c.Sequence+1 && c.Stream != l.epoch.Stream
}

// legs finds the way from the range's base to its end, by what the epochs say they continue.
func (r *Reader) legs(rg Range) ([]leg, error) {
	var out []leg
	at := rg.Through
	for at.Stream != rg.From.Stream || at.Epoch != rg.From.Epoch {
		e := find(r.streams, at.Stream, at.Epoch)
		if e == nil || e.Described == nil {
			err := errNoEpoch
			if e != nil {
				err = e.Err
			}
			return nil, &HoleError{Stream: at.Stream, Epoch: at.Epoch, First: 1, Last: at.Sequence, Err: fmt.Errorf("%w: %w", ErrNoHead, err)}
		}
		c := e.Described.Continues
		if c == nil {
			if rg.From.Sequence != 0 || rg.From.Stream != at.Stream {
				return nil, fmt.Errorf("%s does not lead to epoch %d of stream %s: that begins anew", rg.From, rg.Through.Epoch, rg.Through.Stream)
			}
			out = append(out, leg{e, 1, at.Sequence})
			slices.Reverse(out)
			return out, nil
		}
		out = append(out, leg{e, c.Sequence + 1, at.Sequence})
		at = *c
		if len(out) > 100_000 {
			return nil, errors.New("the epochs of the log go on from each other in a circle")
		}
	}
	if at.Sequence < rg.From.Sequence {
		return nil, fmt.Errorf("%s is on another branch: the log goes on from record %d", rg.From, at.Sequence)
	}
	if at.Sequence > rg.From.Sequence {
		e := find(r.streams, at.Stream, at.Epoch)
		if e == nil {
			return nil, &HoleError{Stream: at.Stream, Epoch: at.Epoch, First: rg.From.Sequence + 1, Last: at.Sequence, Err: errNoEpoch}
		}
		out = append(out, leg{e, rg.From.Sequence + 1, at.Sequence})
	}
	slices.Reverse(out)
	return out, nil
}

// Records yields the records of the range in order, each proven to follow the one before it, over epochs by what they
// continue. It ends after Through, or before the first record later than Until: nothing later is ever given, also where
// the writer's clock was set back. Records of a large transaction are given only if all of them are there and not later.
// A record is valid until the next is asked for.
//
// An error ends it: *HoleError where records are missing, or what is there of them is damaged (then it has a
// *repository.DamageError in it); those of the store and of keys.
func (r *Reader) Records(ctx context.Context, rg Range) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		if err := r.records(ctx, rg, func(rec *Record) bool { return yield(rec, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

func (r *Reader) records(ctx context.Context, rg Range, yield func(*Record) bool) error {
	legs, err := r.legs(rg)
	if err != nil {
		return err
	}
	start := cursor{previous: rg.From.Record, zero: rg.From.Sequence == 0}
	whole := false // the transaction whose records come is whole
	position, entered := Position{}, -1
	for at, err := range r.entries(ctx, legs, start) {
		if err != nil {
			return err
		}
		e := at.entry
		if !rg.Until.IsZero() && time.Unix(0, e.time).After(rg.Until) {
			return nil
		}
		if e.more && !whole {
			if whole, err = r.isWhole(ctx, legs, at, rg.Until); err != nil || !whole {
				return err
			}
		}
		whole = whole && e.more
		epoch := legs[at.leg].epoch
		rec := &Record{
			Place:    Place{Stream: epoch.Stream, Epoch: epoch.Epoch, Sequence: e.sequence, Record: at.hash.String()},
			Sequence: e.sequence, Time: time.Unix(0, e.time).UTC(), More: e.more,
		}
		err := decodeBody(epoch.Described, &e, rec)
		switch {
		case err != nil:
		case epoch.Described.Kind == KindPostgres:
			if entered != at.leg {
				position.Enter(epoch.Stream, epoch.Described.Postgres, legs[at.leg].begins())
				entered = at.leg
			}
			err = position.Take(rec, epoch.Described.Postgres.SegmentSize)
		case epoch.Described.Kind != KindSQLite:
			return fmt.Errorf("epoch %d of stream %s is of kind %s: this program can't apply it", epoch.Epoch, epoch.Stream, epoch.Described.Kind)
		}
		if err != nil {
			return &HoleError{Stream: epoch.Stream, Epoch: epoch.Epoch, First: e.sequence, Last: e.sequence, Err: err}
		}
		if !yield(rec) {
			return nil
		}
	}
	return nil
}

// isWhole looks ahead whether the transaction that begins with the record at at ends within the range.
func (r *Reader) isWhole(ctx context.Context, legs []leg, at located, until time.Time) (bool, error) {
	ahead := cursor{leg: at.leg, sequence: at.entry.sequence, previous: at.entry.previous.String(), zero: at.entry.sequence == 1}
	for next, err := range r.entries(ctx, legs, ahead) {
		switch {
		case err != nil:
			return false, err
		case !until.IsZero() && time.Unix(0, next.entry.time).After(until):
			return false, nil
		case !next.entry.more:
			return true, nil
		}
	}
	return false, nil
}

// cursor is where reading begins.
type cursor struct {
	leg      int
	sequence uint64 // 0: where the leg begins
	previous string // hash of the record before, hex; empty: not known
	zero     bool   // there is no record before
}

// located is a record with where it was found.
type located struct {
	leg   int
	entry entry
	hash  snapshot.Hash
}

// entries yields the records of the legs from a place on, whatever their kind.
func (r *Reader) entries(ctx context.Context, legs []leg, start cursor) iter.Seq2[located, error] {
	return func(yield func(located, error) bool) {
		w := &follower{reader: r, yield: yield, zero: start.zero, known: start.zero}
		if start.previous != "" && !start.zero {
			h, err := snapshot.ParseHash(start.previous)
			if err != nil {
				yield(located{}, err)
				return
			}
			w.previous, w.known = h, true
		}
		for i := start.leg; i < len(legs); i++ {
			from := legs[i].from
			if i == start.leg && start.sequence != 0 {
				from = start.sequence
			}
			more, err := w.leg(ctx, i, legs[i], from)
			if err != nil {
				yield(located{}, err)
			}
			if err != nil || !more {
				return
			}
		}
	}
}

package log

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
)

// Select is [recovery.SelectMoment] with epochs from [Epochs], which believes the arrival of no record that it chooses:
// what was copied, or put back by repair, has arrived long after it was committed. It reads the last record of each epoch
// that is considered, mostly one, and replaces arrivals in epochs by what these say. Errors: those of SelectMoment and
// [Reader.Times].
func (r *Reader) Select(ctx context.Context, points []recovery.Point, epochs []recovery.LogEpoch, want recovery.Selector) (recovery.Selection, error) {
	exact := map[int]bool{}
	for {
		s, err := recovery.SelectMoment(points, epochs, want)
		if err != nil || s.Log == nil {
			return s, err
		}
		i := slices.IndexFunc(epochs, func(e recovery.LogEpoch) bool {
			return e.Stream == s.Log.Through.Stream && e.Epoch == s.Log.Through.Epoch
		})
		if i < 0 || exact[i] {
			return s, nil
		}
		// With the exact time the epoch may reach less far than another one: it is chosen once more.
		exact[i] = true
		if err := r.Times(ctx, epochs[i:i+1]); err != nil {
			return s, err
		}
	}
}

// Times replaces the arrivals in epochs, which [Epochs] has made, by the times of the records themselves, as far as they
// can be read: two small reads for each run. Where a run ends within a transaction, of which nothing can be restored, its
// end is right before that. What can't be read stays as it is; errors are the store's and the context's.
func (r *Reader) Times(ctx context.Context, epochs []recovery.LogEpoch) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(headReaders)
	for i := range epochs {
		e := find(r.streams, epochs[i].Stream, epochs[i].Epoch)
		if e == nil {
			continue
		}
		g.Go(func() error {
			keys, err := r.Keys(gctx, e)
			if gctx.Err() != nil {
				return gctx.Err()
			}
			if err != nil {
				return nil //nolint:nilerr // who has no key knows arrivals only
			}
			for k := range epochs[i].Runs {
				if err := r.timesOf(gctx, e, keys, &epochs[i].Runs[k]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *Reader) timesOf(ctx context.Context, e *Epoch, keys *seal.Keys, run *recovery.LogRun) error {
	last, ok, err := r.entryOf(ctx, e, keys, run.Last)
	if err != nil {
		return err
	}
	if ok {
		run.To = time.Unix(0, last.time).UTC()
		if last.more {
			run.To = run.To.Add(-1)
		}
	}
	first := last
	if run.First != run.Last {
		if first, ok, err = r.entryOf(ctx, e, keys, run.First); err != nil {
			return err
		}
	}
	if ok {
		run.From = time.Unix(0, first.time).UTC()
	}
	return nil
}

// Record reads one record of an epoch, from the smallest object that holds it, for who wants to know what is at a place
// without reading up to it. It has the hash that its place says, but nothing proves that the records before it are those
// that they should be. Errors: *HoleError where it is missing or what is there of it is damaged; ErrNoHead; those of the
// store and of keys.
func (r *Reader) Record(ctx context.Context, stream string, epoch, n uint64) (*Record, error) {
	e := find(r.streams, stream, epoch)
	missing := &HoleError{Stream: stream, Epoch: epoch, First: n, Last: n}
	if e == nil {
		missing.Err = errNoEpoch
		return nil, missing
	}
	keys, err := r.Keys(ctx, e)
	if err != nil {
		return nil, err
	}
	found, damaged, err := r.readEntry(ctx, e, keys, n)
	if err != nil {
		return nil, err
	}
	if found == nil {
		missing.Err = damaged
		return nil, missing
	}
	_, hash := found.frame(nil)
	rec := &Record{
		Place:    Place{Stream: stream, Epoch: epoch, Sequence: n, Record: hash.String()},
		Sequence: n, Time: time.Unix(0, found.time).UTC(), More: found.more,
	}
	if err := decodeBody(e.Described, found, rec); err != nil {
		missing.Err = err
		return nil, missing
	}
	return rec, nil
}

// entryOf reads one record, if that can be, from the smallest object that holds it.
func (r *Reader) entryOf(ctx context.Context, e *Epoch, keys *seal.Keys, n uint64) (entry, bool, error) {
	found, _, err := r.readEntry(ctx, e, keys, n)
	if found == nil || err != nil {
		return entry{}, false, err
	}
	return *found, true, nil
}

// readEntry is entryOf for who wants to know what is wrong where nothing is found: damaged is nil if no object holds it.
func (r *Reader) readEntry(ctx context.Context, e *Epoch, keys *seal.Keys, n uint64) (found *entry, damaged, err error) {
	var all []layout.LogObject
	for _, c := range e.candidates(n, nil) {
		all = append(all, c.LogObject)
	}
	slices.SortFunc(all, func(a, b layout.LogObject) int { return int(int64(a.Last-a.First) - int64(b.Last-b.First)) })
	for _, o := range all {
		l, err := load(ctx, r.repo, r.src, keys, o)
		var damage *repository.DamageError
		if errors.As(err, &damage) {
			damaged = errors.Join(damaged, err)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		return &l.entries[n-o.First], nil, nil
	}
	return nil, damaged, nil
}

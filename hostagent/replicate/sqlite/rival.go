package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// A stream of which the source has a newer one is over: whoever restores takes the newest history. Epochs tell of others
// who write the same stream, and not of those who began one of their own: a clone whose log was reset, or this machine, before
// it was put back to an earlier state. Their snapshots do.

// rival is the number of a snapshot that stands in another stream and is newer than those of this one; 0: there is none.
func (l *lineage) rival(ctx context.Context) (uint64, error) {
	listed, err := l.f.o.Repository.Sequences(ctx, l.f.o.Source)
	if err != nil {
		return 0, err
	}
	for _, s := range slices.Backward(listed) {
		if s.Sequence <= l.known {
			break
		}
		m, err := l.f.o.Repository.Manifest(ctx, snapshot.ID{Source: l.f.o.Source, Sequence: s.Sequence})
		switch {
		case errors.Is(err, repository.ErrNoSnapshot), errors.Is(err, snapshot.ErrFormat):
			continue // it was removed just now, or counts for nobody
		case err != nil:
			return 0, err
		case m.Log == nil || m.Unfinished:
			continue
		case m.Log.Stream != l.stream:
			return m.Sequence, nil
		}
		break
	}
	if n := len(listed); n > 0 {
		l.known = listed[n-1].Sequence
	}
	return 0, nil
}

// unrivalled makes sure, before the first record, that the stream is the newest. Who goes on with one of before begins
// anew where it is not; who has just begun one stops: another one is at work.
func (l *lineage) unrivalled(ctx context.Context) error {
	return l.f.Persist(ctx, func() (again bool, err error) {
		n, err := l.rival(ctx)
		switch {
		case err != nil && objstore.IsTransient(err):
			return true, err
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			l.f.Trouble(fmt.Errorf("look whether another log of the source was begun: %w", err)) // the log is worth more
			return false, nil
		case n == 0:
			return false, nil
		case l.resumed:
			return false, &tail.GapError{Cause: tail.Unproven, Why: fmt.Sprintf("snapshot @%d has begun another log since: a clone of this machine did, or this machine before it was put back to an earlier state", n)}
		}
		return false, rivalError(n)
	})
}

func rivalError(n uint64) error {
	return fmt.Errorf("%w: snapshot @%d begins another log of this source", replicate.ErrSuperseded, n)
}

// superseded looks whether another writes this stream, or has begun one. Errors: replicate.ErrSuperseded, those of the
// store.
func (l *lineage) superseded(ctx context.Context, w interface{ Superseded(context.Context) error }) error {
	if err := w.Superseded(ctx); err != nil {
		return err
	}
	n, err := l.rival(ctx)
	if err == nil && n > 0 {
		err = rivalError(n)
	}
	return err
}

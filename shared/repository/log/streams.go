package log

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// headReaders is how many heads are read at the same time.
const headReaders = 16

// Stream is one stream of a source's log.
type Stream struct {
	ID     string // 32 hex digits
	Epochs []*Epoch
}

// Epoch is one epoch, as the listing shows it, with its head.
type Epoch struct {
	*inventory.LogEpoch
	Described *record.LogHead // what the head says; nil: it is missing or no good
	Err       error           // why Described is nil
}

// Streams lists the logs of a source: one listing of them all, and one read for the head of each epoch. Heads that are
// missing or no good are in the result. The order is that of the streams' ids, which means nothing.
func Streams(ctx context.Context, repo *repository.Repository, src snapshot.Source) ([]Stream, error) {
	inv, err := inventory.TakeParts(ctx, repo.Store(), src, layout.LogPrefix(src))
	if err != nil {
		return nil, err
	}
	return FromInventory(ctx, repo, inv)
}

// FromInventory is [Streams] of a listing that was taken already.
func FromInventory(ctx context.Context, repo *repository.Repository, inv *inventory.Inventory) ([]Stream, error) {
	var out []Stream
	for id, epochs := range inv.Streams() {
		s := Stream{ID: id}
		for _, e := range epochs {
			s.Epochs = append(s.Epochs, &Epoch{LogEpoch: e})
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Stream) int { return cmp.Compare(a.ID, b.ID) })
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(headReaders)
	for _, s := range out {
		for _, e := range s.Epochs {
			g.Go(func() error { return e.readHead(gctx, repo, inv.Source) })
		}
	}
	return out, g.Wait()
}

// readHead reads the epoch's head. Only trouble of the store is an error.
func (e *Epoch) readHead(ctx context.Context, repo *repository.Repository, src snapshot.Source) error {
	key := layout.LogKey(src, layout.LogObject{Stream: e.Stream, Epoch: e.Epoch})
	var h record.LogHead
	_, err := repo.Document(ctx, key, &h)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case objstore.IsTransient(err):
		return err
	case err == nil:
		if err = h.Check(src, e.Stream, e.Epoch); err != nil {
			err = fmt.Errorf("read %s: %w", key, err)
		}
	}
	if e.Err = err; err == nil {
		e.Described = &h
	}
	return nil
}

// find returns an epoch, or nil.
func find(streams []Stream, stream string, number uint64) *Epoch {
	for i := range streams {
		if streams[i].ID != stream {
			continue
		}
		for _, e := range streams[i].Epochs {
			if e.Epoch == number {
				return e
			}
		}
	}
	return nil
}

// Epochs gives what shared/recovery must know of the logs. Times of records are not known without opening them: arrivals
// stand for them, which are later by the lag. Epochs without a head that counts are left out; nothing of them can be read.
func Epochs(streams []Stream) []recovery.LogEpoch {
	var out []recovery.LogEpoch
	for i := range streams {
		for _, e := range streams[i].Epochs {
			if e.Described == nil {
				continue
			}
			r := recovery.LogEpoch{Stream: e.Stream, Epoch: e.Epoch, Opened: e.Described.Opened, Continues: e.Described.Continues}
			for _, run := range e.Runs() {
				r.Runs = append(r.Runs, recovery.LogRun{First: run.First, Last: run.Last, From: run.From, To: run.To})
			}
			out = append(out, r)
		}
	}
	return out
}

// Resume tells where a writer stands after a crash: last is the place of the last record of which it knows that it is
// durable, pending are those, ascending, that it was about to put. A pending one whose piece is there counts. One
// listing, and only if something is pending. An epoch is written by one process, so that a piece under the right name is
// the one that was meant; where a clone has put it, the records that follow will not fit, and a reader says so.
func Resume(ctx context.Context, repo *repository.Repository, src snapshot.Source, last Place, pending []Place) (Place, error) {
	for _, p := range pending {
		if p.Sequence != last.Sequence+1 || p.Stream != last.Stream {
			continue
		}
		key := layout.LogKey(src, layout.LogObject{Stream: p.Stream, Epoch: p.Epoch, First: p.Sequence, Last: p.Sequence})
		found := false
		err := repo.Store().List(ctx, key, func(o objstore.Info) error {
			found = found || o.Key == key
			return nil
		})
		if err != nil {
			return last, fmt.Errorf("list %s: %w", key, err)
		}
		if !found {
			break
		}
		last = p
	}
	return last, nil
}

// Newest lists what arrived of an epoch after record number after, for who watches a log without reading all of its
// listing: the last record that is there and when it arrived; zero where nothing came.
func Newest(ctx context.Context, store objstore.Store, src snapshot.Source, stream string, epoch, after uint64) (last uint64, arrived time.Time, err error) {
	for _, prefix := range layout.PiecePrefixes(src, stream, epoch, after+1) {
		err := store.List(ctx, prefix, func(o objstore.Info) error {
			if at, err := layout.ParseLog(src, o.Key); err == nil && at.Last > last && !at.Head() {
				last, arrived = at.Last, o.Modified
			}
			return nil
		})
		if err != nil {
			return 0, time.Time{}, fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	return last, arrived, nil
}

var errNoEpoch = errors.New("nothing of the epoch is there")

package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/postgres"
)

// acknowledge lets the server forget the WAL before an LSN, of its own branch.
func (l *line) acknowledge(at postgres.LSN) {
	l.mu.Lock()
	l.acked, l.other = max(l.acked, at), false
	l.mu.Unlock()
	replicate.Nudge(l.safe)
}

// sync puts the mark on the disk, if it has changed since, and acknowledges what it says.
func (l *line) sync(synced *mark) *mark {
	l.mu.Lock()
	m, other := l.m, l.other
	l.mu.Unlock()
	if other {
		return nil // an LSN of one branch says nothing of another
	}
	if m == synced || m.Last.Place.Sequence == 0 {
		return m
	}
	if err := l.f.Marks.Sync(); err != nil {
		l.f.Tell(replicate.Event{Kind: replicate.Trouble, Why: err.Error()})
		return synced
	}
	l.acknowledge(m.Last.LSN)
	return m
}

// tend acknowledges, joins small pieces of the log, and looks whether somebody else writes the stream, as long as records are
// shipped.
func (l *line) tend(ctx context.Context) {
	upkeep := l.f.NewUpkeep(&l.f.o.Options)
	var synced *mark
	for {
		replicate.Sleep(ctx, time.Second)
		if ctx.Err() != nil {
			return
		}
		synced = l.sync(synced)
		l.mu.Lock()
		w, records := l.writer, l.puts
		l.mu.Unlock()
		if w == nil {
			continue
		}
		looked := func(ctx context.Context) error {
			if err := w.Superseded(ctx); errors.Is(err, replicate.ErrSuperseded) {
				return err
			}
			l.answer(ctx)
			return nil
		}
		if err := upkeep.Do(ctx, w, records, looked); err != nil {
			l.q.finish(err)
			return
		}
	}
}

package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
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
	if err := l.f.marks.Sync(); err != nil {
		l.f.Tell(replicate.Event{Kind: replicate.Trouble, Why: err.Error()})
		return synced
	}
	l.acknowledge(m.Last.LSN)
	return m
}

// tend acknowledges, joins small pieces of the log, and looks whether somebody else writes the stream, as long as records are
// shipped.
func (l *line) tend(ctx context.Context) {
	joined, looked := time.Now(), time.Now()
	var joinedAt, lookedAt uint64 // records by then
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
		now := time.Now()
		if w == nil {
			continue
		}
		if l.f.o.Look > 0 && now.Sub(looked) >= l.f.o.Look && records > lookedAt {
			looked, lookedAt = now, records
			if err := w.Superseded(ctx); errors.Is(err, replicate.ErrSuperseded) {
				l.q.finish(err)
				return
			}
			l.answer(ctx)
		}
		if l.f.o.Join > 0 && now.Sub(joined) >= l.f.o.Join && records > joinedAt {
			joined, joinedAt = now, records
			if _, err := w.Join(ctx, 0); err != nil && ctx.Err() == nil && !errors.Is(err, log.ErrClosed) {
				// Pieces that are not joined cost a restore more requests, nothing else.
				l.f.Tell(replicate.Event{Kind: replicate.Trouble, Why: "join pieces of the log: " + err.Error()})
			}
		}
	}
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// options are those of an epoch of the stream.
func (l *line) options(m *mark, stream string, timeline uint32, opened time.Time) log.Options {
	if opened.Before(m.Last.Time) {
		opened = m.Last.Time
	}
	return log.Options{
		Kind: log.KindPostgres, Stream: stream, Opened: opened, Tool: l.f.o.Tool, Temp: l.f.o.Dir, NoJoin: l.f.o.Join < 0, Trouble: l.f.Trouble,
		Postgres: &record.PostgresLog{System: m.System, Timeline: timeline, SegmentSize: m.Segment},
	}
}

// create opens an epoch, for as long as that takes. No number is tried twice: next notes one that was never tried.
func (l *line) create(ctx context.Context, o log.Options, next func() (uint64, error)) (w *log.Writer, err error) {
	err = l.f.Persist(ctx, func() (again bool, err error) {
		number, err := next()
		if err != nil {
			return false, err
		}
		o.After = number - 1
		w, err = log.Create(ctx, l.f.o.Repository, l.f.o.Source, o)
		return !errors.Is(err, replicate.ErrSuperseded), err
	})
	if err != nil {
		return nil, err
	}
	l.wrote(w)
	if l.archive {
		if err := saveKey(l.f.o.Dir, w.Opened(), time.Now()); err != nil {
			l.f.Trouble(err) // the next process opens another epoch
		}
	}
	return w, nil
}

func (l *line) wrote(w *log.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writer = w
}

// reopen goes on with the epoch that the last process has written, if its key is there; nil: another one is to be opened.
func (l *line) reopen(ctx context.Context, o log.Options) (*log.Writer, error) {
	if o.Continues == nil || !l.archive {
		return nil, nil //nolint:nilnil // there is none
	}
	opened, ok := loadKey(l.f.o.Dir, o.Continues.Stream, l.mark().Epoch, time.Now())
	if !ok || o.Continues.Epoch != opened.Epoch {
		return nil, nil //nolint:nilnil // as above
	}
	w, err := log.Reopen(ctx, l.f.o.Repository, l.f.o.Source, o, opened)
	if errors.Is(err, log.ErrRecipients) {
		return nil, nil //nolint:nilnil // as above
	}
	if err == nil {
		l.wrote(w)
	}
	return w, err
}

// epoch returns the writer of the epoch, and opens one where there is none.
func (l *line) epoch(ctx context.Context, b *batch) (*log.Writer, error) {
	l.mu.Lock()
	w, m := l.writer, l.m
	l.mu.Unlock()
	if w != nil {
		return w, nil
	}
	o := l.options(m, m.Stream, m.Timeline, b.first)
	o.Next = b.start
	first := m.Last.Place.Sequence == 0
	if !first {
		o.Continues = &m.Last.Place
	}
	if w, err := l.reopen(ctx, o); w != nil || err != nil {
		return w, err
	}
	w, err := l.create(ctx, o, func() (uint64, error) {
		err := l.note(true, func(m *mark) { m.Epoch++ })
		return l.mark().Epoch, err
	})
	if err != nil || !first || m.Timeline == 1 {
		return w, err
	}
	// The stream begins on a timeline that came from others: it says from which.
	place, err := w.Append(ctx, log.Record{Time: o.Opened, History: &log.History{Timeline: m.Timeline, Content: l.history}})
	if err != nil {
		return nil, fmt.Errorf("store the history of timeline %d: %w", m.Timeline, err)
	}
	last := point{Place: place, LSN: m.Last.LSN, Time: o.Opened}
	return w, l.note(false, func(m *mark) { m.reached(last) })
}

// turn goes on with the stream of another timeline.
//
// 1. The mark says which epoch of which stream is about to be opened.
// 2. The epoch is opened: it goes on after the last record of the timeline before. A crash leaves an epoch without records.
// 3. The history file becomes its first record. A crash leaves an epoch that has nothing but it; the next one supersedes it.
// 4. The mark says that the log is in the new stream.
func (l *line) turn(ctx context.Context, t *turn) error {
	l.mu.Lock()
	old, m := l.writer, l.m
	l.writer = nil
	l.mu.Unlock()
	if old != nil {
		_ = old.Close() // all that it has is stored
	}
	after := m.Last.Place
	if t.after != nil {
		after = *t.after
	}
	if after.Sequence == 0 {
		return &gapError{fmt.Sprintf("the cluster was promoted to timeline %d before any WAL of timeline %d was stored", t.timeline, m.Timeline)}
	}
	stream := streamOf(m.System, t.timeline, m.Lineage)
	o := l.options(m, stream, t.timeline, t.time)
	o.Continues = &after
	o.Next = t.at.SegmentStart(m.Segment)
	w, err := l.create(ctx, o, func() (uint64, error) {
		err := l.note(true, func(m *mark) {
			n := next{Stream: stream}
			if m.Next != nil && m.Next.Stream == stream {
				n = *m.Next
			}
			n.Epoch++
			m.Next = &n
		})
		return l.mark().Next.Epoch, err
	})
	if err != nil {
		return err
	}
	place, err := w.Append(ctx, log.Record{Time: o.Opened, History: &log.History{Timeline: t.timeline, Content: t.history}})
	if err != nil {
		return fmt.Errorf("store the history of timeline %d: %w", t.timeline, err)
	}
	err = l.note(true, func(m *mark) {
		m.Stream, m.Timeline, m.Epoch, m.Next, m.Bounds = stream, t.timeline, m.Next.Epoch, nil, nil
		m.reached(point{Place: place, LSN: o.Next, Time: o.Opened})
	})
	if err != nil {
		return err
	}
	l.acknowledge(o.Next)
	l.f.Tell(replicate.Event{Kind: replicate.Promoted, Place: place, LSN: t.at.String(), Timeline: t.timeline})
	return nil
}

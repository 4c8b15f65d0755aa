package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// ship makes records of what waits until the tail has ended and all is durable, or ctx has.
func (l *lineage) ship(ctx context.Context) error {
	p := replicate.Pace{Interval: l.f.o.Interval}
	for {
		l.mu.Lock()
		over, oldest, rush := l.over, l.waiting(), l.rushed()
		l.mu.Unlock()
		now := time.Now()
		switch {
		case oldest.IsZero():
			if err := l.renamed(over != nil); err != nil {
				return err
			}
			if errors.Is(over, errEnded) {
				return nil
			}
			if over != nil {
				return over
			}
			<-l.news
		case over == nil && !rush && p.Due(oldest).After(now):
			l.pause(p.Due(oldest).Sub(now))
		default:
			p.Cut(now)
			if err := l.put(ctx, l.cut(), &p); err != nil {
				return err
			}
		}
	}
}

// renamed writes the place of the tail down where it has got another name without a commit: the log is gone, and all is in
// the database file. With sync it is written down in any case.
func (l *lineage) renamed(sync bool) error {
	l.mu.Lock()
	now, idle := l.last.Position, l.open.commits == 0 && len(l.sealed) == 0 && l.flying == nil
	l.mu.Unlock()
	l.asking.Lock()
	same := now == l.from.Position || now == tail.Position{}
	if idle && !same {
		l.from.Position = now
	}
	l.asking.Unlock()
	if same && !sync {
		return nil
	}
	return l.note(sync)
}

// rushed reports whether what waits is to be shipped at once. The caller holds mu.
func (l *lineage) rushed() bool { return len(l.sealed) > 0 || l.flush > 0 }

// hasten has the database looked at now, and what waits by then shipped at once.
func (l *lineage) hasten() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush = l.looks + 1
	l.hurry = true
	if l.unwait != nil {
		l.unwait()
	}
	replicate.Nudge(l.news)
}

// pause waits, or until the tail ends, or what waits is to be shipped at once. What is committed meanwhile changes nothing.
func (l *lineage) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return
		case <-l.news:
			l.mu.Lock()
			end := l.over != nil || l.rushed()
			l.mu.Unlock()
			if end {
				return
			}
		}
	}
}

// put makes a record durable.
//
// 1. Where no epoch is open, one is opened: who opens a higher one later, ends this one.
// 2. The mark says which record comes, and what it stands for. A crash from here on is settled by a listing: the record
// is there, or it is not.
// 3. The record is put.
// 4. The mark says that it is durable.
func (l *lineage) put(ctx context.Context, b *batch, p *replicate.Pace) error {
	w, err := l.epochWriter(ctx, b)
	if err != nil {
		return err
	}
	position, err := json.Marshal(b.position)
	if err != nil {
		return fmt.Errorf("ship: %w", err)
	}
	prepared, err := w.Prepare(log.Record{
		Time: b.newest, PageSize: b.pageSize, Pages: b.size, Position: position, Each: b.pages.Each,
	})
	if err != nil {
		return fmt.Errorf("ship: %w", err)
	}
	var after *point
	if place := prepared.Place(); place.Sequence > 0 { // that of a large record is known only when it is put
		after = &point{Place: place, Position: b.position}
	}
	if err := l.noted(after); err != nil {
		return err
	}
	place, err := w.Put(ctx, prepared)
	if err != nil {
		return fmt.Errorf("ship: %w", err)
	}
	now := time.Now()
	if err := l.notedDurable(point{Place: place, Position: b.position}); err != nil {
		return err
	}
	p.Shipped(now)
	oldest, pages, commits, until, at := b.oldest(), b.pages.Len(), b.commits, b.looked, b.newest
	l.landed(b, place, now)
	l.f.Well()
	l.f.Tell(replicate.Event{
		Kind: replicate.Shipped, Place: place, Until: until.UTC(), Point: at.UTC(), Commits: commits, Total: l.f.Total(), Pages: pages,
		Lag: float64(now.Sub(oldest)) / float64(time.Millisecond),
	})
	return nil
}

// epochWriter returns the writer of the epoch, and opens one where there is none.
func (l *lineage) epochWriter(ctx context.Context, b *batch) (*log.Writer, error) {
	l.mu.Lock()
	w := l.writer
	l.mu.Unlock()
	if w != nil {
		return w, nil
	}
	if err := l.unrivalled(ctx); err != nil {
		return nil, err
	}
	from, err := l.settle(ctx)
	if err != nil {
		return nil, err
	}
	o := log.Options{
		Kind: log.KindSQLite, Stream: l.stream, Opened: b.oldest(), Tool: l.f.o.Tool, Temp: l.f.o.Dir, NoJoin: l.f.o.Join < 0,
		Trouble: l.f.Trouble,
	}
	if from.Sequence > 0 {
		o.Continues = &from
	}
	err = l.f.Persist(ctx, func() (again bool, err error) {
		// No number is tried twice: what an attempt left behind whose end nobody saw is below the next.
		o.After = l.epoch
		l.epoch++
		if err := l.note(true); err != nil {
			return false, err
		}
		w, err = log.Create(ctx, l.f.o.Repository, l.f.o.Source, o)
		return !errors.Is(err, replicate.ErrSuperseded), err
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.writer = w
	l.mu.Unlock()
	return w, nil
}

// settle finds out after which record the first of this lineage goes on: the store knows whether the last one of a process
// that was killed had become durable.
func (l *lineage) settle(ctx context.Context) (log.Place, error) {
	var origin *log.Place
	err := l.f.Persist(ctx, func() (again bool, err error) {
		l.asking.Lock()
		from, after := l.from, l.after
		if l.origin == nil && after == nil {
			l.origin = &from.Place
		}
		origin = l.origin
		l.asking.Unlock()
		if origin != nil {
			return false, nil
		}
		place, err := log.Resume(ctx, l.f.o.Repository, l.f.o.Source, from.Place, []log.Place{after.Place})
		if err != nil {
			return true, err
		}
		if place == after.Place {
			from = *after // its pages come once more with the next record: the tail began before them
		}
		l.asking.Lock()
		defer l.asking.Unlock()
		if l.origin == nil {
			l.origin, l.from, l.after = &from.Place, from, nil
		}
		origin = l.origin
		return false, nil
	})
	if err != nil {
		return log.Place{}, err
	}
	return *origin, nil
}

// tend joins small pieces of the log, and looks whether somebody else writes the stream, as long as records are shipped.
func (l *lineage) tend(ctx context.Context) {
	upkeep := l.f.NewUpkeep(&l.f.o.Options)
	for {
		replicate.Sleep(ctx, time.Second)
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		w, over, records := l.writer, l.over, l.gone+uint64(len(l.places))
		l.mu.Unlock()
		if over != nil {
			return
		}
		if w == nil {
			continue
		}
		err := upkeep.Do(ctx, w, records, func(ctx context.Context) error { return l.superseded(ctx, w) })
		if err != nil {
			l.mu.Lock()
			if l.over == nil {
				l.finish(err)
			}
			l.mu.Unlock()
			return
		}
	}
}

// describe adds what the lineage knows to a status.
func (l *lineage) describe(s *replicate.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lookedAt.IsZero() {
		s.Looked = l.lookedAt.UTC()
	}
	for _, b := range slices.Concat([]*batch{l.flying}, l.sealed, []*batch{l.open}) {
		if b == nil || b.commits == 0 {
			continue
		}
		if s.Oldest.IsZero() {
			s.Oldest = b.since.UTC()
		}
		s.Pending.Commits += b.commits
		s.Pending.Pages += b.pages.Len()
		s.Pending.Bytes += b.pages.Bytes()
	}
}

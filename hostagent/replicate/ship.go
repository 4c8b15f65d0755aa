package replicate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// ship makes records of what waits until the tail has ended and all is durable, or ctx has.
func (l *lineage) ship(ctx context.Context) error {
	p := pace{interval: l.f.o.Interval}
	for {
		l.mu.Lock()
		over, oldest := l.over, l.open.oldest()
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
		case over == nil && p.due(oldest).After(now):
			l.pause(p.due(oldest).Sub(now))
		default:
			p.cut = now
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
	now, idle := l.last.Position, l.open.commits == 0 && l.flying == nil
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

// pause waits, or until the tail ends. What is committed meanwhile changes nothing.
func (l *lineage) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return
		case <-l.news:
			l.mu.Lock()
			over := l.over
			l.mu.Unlock()
			if over != nil {
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
func (l *lineage) put(ctx context.Context, b *batch, p *pace) error {
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
	if err := l.noted(l.from, after); err != nil {
		return err
	}
	place, err := w.Put(ctx, prepared)
	if err != nil {
		return fmt.Errorf("ship: %w", err)
	}
	now := time.Now()
	if err := l.noted(point{Place: place, Position: b.position}, nil); err != nil {
		return err
	}
	p.shipped(now.Sub(p.cut))
	oldest, pages, commits, until, at := b.oldest(), b.pages.Len(), b.commits, b.looked, b.newest
	l.landed(b, place, now)
	l.f.well()
	l.f.tell(Event{
		Kind: Shipped, Place: place, Until: until.UTC(), Point: at.UTC(), Commits: commits, Total: l.f.total(), Pages: pages,
		Lag: float64(now.Sub(oldest)) / float64(time.Millisecond),
	})
	b.reset()
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
	from, err := l.settle(ctx)
	if err != nil {
		return nil, err
	}
	o := log.Options{
		Kind: log.KindSQLite, Stream: l.stream, Opened: b.oldest(), Tool: l.f.o.Tool, Temp: l.f.o.Dir, NoJoin: l.f.o.Join < 0,
		Trouble: l.trouble,
	}
	if from.Sequence > 0 {
		o.Continues = &from
	}
	for wait := firstRetry; ; wait = min(2*wait, mostRetry) {
		// No number is tried twice: what an attempt left behind whose end nobody saw is below the next.
		o.After = l.epoch
		l.epoch++
		if err := l.note(true); err != nil {
			return nil, err
		}
		w, err = log.Create(ctx, l.f.o.Repository, l.f.o.Source, o)
		if err == nil {
			l.mu.Lock()
			l.writer = w
			l.mu.Unlock()
			return w, nil
		}
		if ctx.Err() != nil || errors.Is(err, ErrSuperseded) {
			return nil, err
		}
		l.trouble(err)
		sleep(ctx, wait)
	}
}

// settle finds out after which record the first of this lineage goes on: the store knows whether the last one of a process
// that was killed had become durable.
func (l *lineage) settle(ctx context.Context) (log.Place, error) {
	l.asking.Lock()
	defer l.asking.Unlock()
	for wait := firstRetry; l.origin == nil; wait = min(2*wait, mostRetry) {
		from := l.from
		if l.after != nil {
			place, err := log.Resume(ctx, l.f.o.Repository, l.f.o.Source, l.from.Place, []log.Place{l.after.Place})
			if ctx.Err() != nil {
				return place, ctx.Err()
			}
			if err != nil {
				l.trouble(err)
				sleep(ctx, wait)
				continue
			}
			if place == l.after.Place {
				from = *l.after // its pages come once more with the next record: the tail began before them
			}
		}
		l.origin, l.from, l.after = &from.Place, from, nil
	}
	return *l.origin, nil
}

// trouble tells that the store does not take what it is given. It is tried again.
func (l *lineage) trouble(err error) {
	l.f.tell(Event{Kind: Trouble, Why: err.Error(), Hint: hintOf(err)})
	l.f.mu.Lock()
	l.f.woe, l.f.woeHint = err.Error(), hintOf(err)
	l.f.mu.Unlock()
}

// tend joins small pieces of the log, and looks whether somebody else writes the stream, as long as records are shipped.
func (l *lineage) tend(ctx context.Context) {
	var joined, looked time.Time
	var joinedAt, lookedAt uint64 // records by then
	for {
		sleep(ctx, time.Second)
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		w, over, records := l.writer, l.over, l.gone+uint64(len(l.places))
		l.mu.Unlock()
		if over != nil {
			return
		}
		now := time.Now()
		if joined.IsZero() {
			joined, looked = now, now
		}
		if w == nil {
			continue
		}
		if l.f.o.Look > 0 && now.Sub(looked) >= l.f.o.Look && records > lookedAt {
			looked, lookedAt = now, records
			if err := w.Superseded(ctx); errors.Is(err, ErrSuperseded) {
				l.mu.Lock()
				if l.over == nil {
					l.finish(err)
				}
				l.mu.Unlock()
				return
			}
		}
		if l.f.o.Join > 0 && now.Sub(joined) >= l.f.o.Join && records > joinedAt {
			joined, joinedAt = now, records
			if _, err := w.Join(ctx, 0); err != nil && ctx.Err() == nil {
				// Pieces that are not joined cost a restore more requests, nothing else.
				l.f.tell(Event{Kind: Trouble, Why: "join pieces of the log: " + err.Error()})
			}
		}
	}
}

// awayAfter is after how long without a durable record something must be wrong with the store.
func (f *Follower) awayAfter() time.Duration { return max(10*time.Second, 4*f.o.Interval) }

// suspect tells of a store that takes no records, be it silent or not. A blip is no state.
func (f *Follower) suspect(s Status, now time.Time) {
	if s.State != Following && s.State != Away || s.Pending.Commits == 0 || now.Sub(s.Oldest) < f.awayAfter() {
		return
	}
	f.mu.Lock()
	why, hint := f.woe, f.woeHint
	f.mu.Unlock()
	text := "nothing became durable that was committed since " + s.Oldest.UTC().Format(time.RFC3339)
	if why != "" {
		text += ": " + why
	}
	if hint == "" {
		hint = "look whether the repository can be reached; all goes on by itself, and the newest state is kept until then"
	}
	f.state(Away, text, hint)
}

// well is what a durable record says.
func (f *Follower) well() {
	f.mu.Lock()
	f.woe, f.woeHint = "", ""
	f.mu.Unlock()
	f.state(Following, "", "")
}

// total is how many commits records have made durable.
func (f *Follower) total() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status.Commits
}

// describe adds what the lineage knows to a status.
func (l *lineage) describe(s *Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lookedAt.IsZero() {
		s.Looked = l.lookedAt.UTC()
	}
	for _, b := range []*batch{l.flying, l.open} {
		if b == nil || b.commits == 0 {
			continue
		}
		if s.Oldest.IsZero() {
			s.Oldest = b.oldest().UTC()
		}
		s.Pending.Commits += b.commits
		s.Pending.Pages += b.pages.Len()
		s.Pending.Bytes += b.pages.Bytes()
	}
}

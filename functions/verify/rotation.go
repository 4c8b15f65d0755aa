package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

const (
	// freshEvery is how often what is new is read, beside the laps.
	freshEvery = 24 * time.Hour
	// windUp is kept free before the end of the context, or a tenth of the time where that is less: for the packs that are
	// being read, receipts, the cursor.
	windUp = 15 * time.Second
	// saveEvery is how often the cursor is written within a run: what a crash loses is read again.
	saveEvery = 30 * time.Second
	// coolShare is how many laps it takes to read what is in a class that charges for each byte that is read.
	coolShare = 12
)

// toured is the answer of a run.
type toured struct {
	Busy     bool    `json:"busy,omitempty"` // another invocation is at work
	Sources  int     `json:"sources"`        // in the shard
	Looked   int     `json:"looked"`         // at which this run has worked
	Laps     int     `json:"laps"`           // done
	Open     int     `json:"open"`           // begun and not done
	Behind   int     `json:"behind"`         // sources whose laps take longer than the period
	Days     float64 `json:"days,omitempty"` // that a lap of all sources takes within the limit of bytes; 0: there is none
	Packs    int     `json:"packs"`
	Bytes    int64   `json:"bytes"`
	Archived int     `json:"archived"` // packs that must be thawed to be read: passed by
	Spared   int     `json:"spared"`   // packs that are dear to read and were not in turn
	Findings int     `json:"findings"`
	Failed   int     `json:"failed"` // sources that could not be looked at
}

// tour is one run of the rotation.
type tour struct {
	*function
	repo   *repository.Repository
	key    string
	shards int // among which the limits are shared
	cursor *control.VerifyCursor
	tag    string
	saved  time.Time
	end    time.Time // zero: no end
	out    toured
}

// rotate reads further packs of the sources of the tick's shard, within the limits of bytes and time:
//
//  1. The cursor is taken with a lease, so that two invocations never read the same.
//  2. Sources go in the order in which their last laps began, those that never had one first.
//  3. The cursor is written as sources are left, and at the end with the lease given back. A crash leaves the lease,
//     which ends with the invocation's time, and a cursor from which some packs are read again.
func (f *function) rotate(ctx context.Context, tick *events.Tick) (any, error) {
	repo, err := f.backend.Repository(ctx)
	if err != nil {
		return nil, err
	}
	t := &tour{function: f, repo: repo, key: control.VerifyShardKey(tick.Shard, tick.Shards), shards: tick.Shards}
	if left, ok := timeToRead(ctx); ok {
		t.end = time.Now().Add(left)
	}
	ok, err := t.take(ctx)
	if err != nil {
		return nil, err
	}
	if !ok {
		return toured{Busy: true}, nil
	}
	err = t.run(ctx, tick)
	t.cursor.Busy = control.Lease{}
	// The context may be over; a short one of its own is left for this.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = errors.Join(err, t.save(last))
	return t.out, err
}

// timeToRead is how long packs may be read in an invocation; false: as long as it takes.
func timeToRead(ctx context.Context) (time.Duration, bool) {
	end, ok := ctx.Deadline()
	left := time.Until(end)
	return left - min(windUp, left/10), ok
}

// take reads the cursor and holds it for as long as the invocation can last.
func (t *tour) take(ctx context.Context) (bool, error) {
	cursor, tag, err := statestore.Read[control.VerifyCursor](ctx, t.state, t.key)
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		cursor = &control.VerifyCursor{}
	case err != nil && tag != "":
		// It can't be understood: everything is read again rather than nothing any more.
		invoke.Log(ctx).Error("the cursor is not readable: beginning anew", "key", t.key, "error", err.Error())
		cursor = &control.VerifyCursor{}
	case err != nil:
		return false, err
	}
	now := t.now()
	if cursor.Busy.Held(owner(ctx), now) {
		invoke.Log(ctx).Info("another invocation is at work", "owner", cursor.Busy.Owner, "until", cursor.Busy.Until)
		return false, nil
	}
	cursor.Version, cursor.Busy = 1, t.lease(ctx)
	if t.limited() {
		cursor.Allowance = cursor.Allowance.Refill(int64(t.env.Bytes)/int64(max(1, t.shards)), now)
	} else {
		cursor.Allowance = control.Allowance{}
	}
	if cursor.Sources == nil {
		cursor.Sources = map[string]*control.SourceTour{}
	}
	maps.DeleteFunc(cursor.Sources, func(_ string, at *control.SourceTour) bool { return at == nil })
	t.cursor, t.tag = cursor, tag
	if err := t.save(ctx); errors.Is(err, statestore.ErrConflict) {
		return false, nil // somebody else took it just now
	} else if err != nil {
		return false, err
	}
	return true, nil
}

// save writes the cursor.
func (t *tour) save(ctx context.Context) error {
	tag, err := statestore.Write(ctx, t.state, t.key, t.cursor, t.tag)
	if err != nil {
		return fmt.Errorf("save the cursor: %w", err)
	}
	t.tag, t.saved = tag, t.now()
	return nil
}

// limited reports whether there is a limit of bytes in a month.
func (t *tour) limited() bool { return t.env.Bytes > 0 }

// spent reports whether the run has to end.
func (t *tour) spent() bool {
	return t.limited() && t.cursor.Allowance.Left <= 0 || t.env.RunBytes > 0 && t.out.Bytes >= int64(t.env.RunBytes) || t.late()
}

func (t *tour) late() bool { return !t.end.IsZero() && !time.Now().Before(t.end) }

func (t *tour) run(ctx context.Context, tick *events.Tick) error {
	order, err := t.order(ctx, tick)
	if err != nil {
		return err
	}
	// What is new goes first for all: a large source must not keep the others' newest snapshots unread.
	for _, step := range []func(context.Context, snapshot.Source, *control.SourceTour) error{t.fresh, t.lap} {
		for _, src := range order {
			if t.spent() || ctx.Err() != nil {
				break
			}
			if err := t.visit(ctx, src, step); err != nil {
				return err
			}
		}
	}
	return t.tell(ctx)
}

// visit does one step for one source. One that can't be looked at keeps no other from its turn.
func (t *tour) visit(ctx context.Context, src snapshot.Source, step func(context.Context, snapshot.Source, *control.SourceTour) error) error {
	at := t.cursor.Sources[src.String()]
	if at == nil {
		at = &control.SourceTour{}
		t.cursor.Sources[src.String()] = at
	}
	err := step(ctx, src, at)
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // the time is over; the next run goes on
	case err != nil:
		at.Error = err.Error()
		t.out.Failed++
		invoke.Log(ctx).Error("source can not be verified", "source", src.String(), "error", err.Error())
	}
	if t.now().Sub(t.saved) >= saveEvery {
		return t.save(ctx)
	}
	return nil
}

// order returns the sources of the shard, those first whose lap began longest ago. A source that was seen once and is
// gone is among them: that it is gone is to be noticed.
func (t *tour) order(ctx context.Context, tick *events.Tick) ([]snapshot.Source, error) {
	there, err := t.repo.Sources(ctx)
	if err != nil {
		return nil, err
	}
	for name := range t.cursor.Sources {
		src, err := snapshot.ParseSource(name)
		if err != nil {
			delete(t.cursor.Sources, name)
			continue
		}
		there = append(there, src)
	}
	slices.SortFunc(there, func(a, b snapshot.Source) int { return cmp.Compare(a.String(), b.String()) })
	there = slices.Compact(there)
	there = slices.DeleteFunc(there, func(s snapshot.Source) bool {
		h := fnv.New32a()
		_, _ = h.Write([]byte(s.String()))
		return tick.Shards > 1 && int(h.Sum32()%uint32(tick.Shards)) != tick.Shard //nolint:gosec // a few shards
	})
	t.out.Sources = len(there)
	begun := func(s snapshot.Source) time.Time {
		if at := t.cursor.Sources[s.String()]; at != nil {
			return at.Begun
		}
		return time.Time{}
	}
	slices.SortStableFunc(there, func(a, b snapshot.Source) int { return begun(a).Compare(begun(b)) })
	return there, nil
}

// fresh reads the packs of the snapshots that arrived since all others were read.
func (t *tour) fresh(ctx context.Context, src snapshot.Source, at *control.SourceTour) error {
	now := t.now()
	if at.Read.IsZero() || !at.FreshOpen && control.Within(at.Looked, now, freshEvery) {
		return nil
	}
	t.out.Looked++
	if !at.FreshOpen {
		at.Fresh, at.FreshOpen = verify.Sweep{Since: at.Read}, true
	}
	done, err := t.read(ctx, src, at, &at.Fresh)
	if err != nil || !done {
		return err
	}
	at.Read, at.Looked = at.Fresh.Horizon, now.UTC()
	at.Fresh, at.FreshOpen = verify.Sweep{}, false
	return nil
}

// lap reads all packs, once in a period.
func (t *tour) lap(ctx context.Context, src snapshot.Source, at *control.SourceTour) error {
	now := t.now()
	if !at.Open && control.Within(at.Begun, now, t.env.Period) {
		return nil
	}
	t.out.Looked++
	if !at.Open {
		at.Lap, at.Open, at.Begun, at.Split = verify.Sweep{}, true, now.UTC(), nil
	}
	switch {
	case t.queue == nil:
		at.Split = nil
	case at.Split != nil:
		if err := t.gather(ctx, src, at); err != nil || at.Split != nil {
			return err
		}
	case !at.Lap.Horizon.IsZero() && at.Lap.Total-at.Lap.Bytes > int64(t.env.Range):
		return t.split(ctx, src, at)
	}
	done, err := t.read(ctx, src, at, &at.Lap)
	if err != nil || !done {
		return err
	}
	t.out.Laps++
	at.Laps++
	at.Ended, at.Packs, at.Bytes = t.now().UTC(), at.Lap.Packs, at.Lap.Bytes
	if at.Read.Before(at.Lap.Horizon) {
		at.Read, at.Looked = at.Lap.Horizon, at.Ended
	}
	at.Lap, at.Open = verify.Sweep{}, false
	return nil
}

// read continues one sweep with what is left of the run's limits.
func (t *tour) read(ctx context.Context, src snapshot.Source, at *control.SourceTour, sweep *verify.Sweep) (bool, error) {
	budget := verify.Budget{Stop: t.late, Cool: coolShare, Turn: at.Laps}
	if t.env.RunBytes > 0 {
		budget.Bytes = max(1, int64(t.env.RunBytes)-t.out.Bytes)
	}
	if t.limited() && (budget.Bytes == 0 || t.cursor.Allowance.Left < budget.Bytes) {
		budget.Bytes = max(1, t.cursor.Allowance.Left)
	}
	opts := t.options()
	seen := verify.Seen{Sequence: at.Sequence}
	seen.Manifest, _ = layout.ParseHash(at.Manifest)
	opts.Expect = map[snapshot.Source]verify.Seen{src: seen}
	next, result, done, err := verify.Continue(ctx, t.repo, src, *sweep, budget, opts)
	t.out.Packs += next.Packs - sweep.Packs
	t.out.Bytes += next.Bytes - sweep.Bytes
	t.cursor.Allowance.Left -= next.Bytes - sweep.Bytes
	if sweep == &at.Lap {
		at.Total = next.Total
	}
	t.out.Archived += next.Frozen - sweep.Frozen
	t.out.Spared += next.Spared - sweep.Spared
	*sweep = next
	if err != nil {
		return false, err
	}
	if result.Unrecorded != nil {
		return false, fmt.Errorf("write receipts: %w", result.Unrecorded)
	}
	at.Error = ""
	t.out.Findings += len(result.Findings)
	var replaces []string
	if done {
		t.see(at, result)
		// The source as a whole was looked at: what arrivals said is said again, or over. What is new is only a part.
		if sweep == &at.Lap {
			replaces = []string{"arrival", "rotation"}
		}
	}
	return done, t.report(ctx, src, "rotation", result.Findings, replaces...)
}

// see remembers the newest snapshot; one with a lower number is a rollback, and what was seen before stays.
func (t *tour) see(at *control.SourceTour, result *verify.Result) {
	for _, s := range result.Sources {
		if s.Head.Sequence > at.Sequence {
			at.Sequence, at.Manifest = s.Head.Sequence, s.Head.Manifest.String()
		}
	}
}

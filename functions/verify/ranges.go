package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

const (
	// maxRanges bounds into how many ranges a source is cut.
	maxRanges = 32
	// askAgain is when a range of which nothing is done is asked for again: its message was lost, or failed for good.
	askAgain = 2 * time.Hour
)

// owner names the invocation.
func owner(ctx context.Context) string {
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		return lc.AwsRequestID
	}
	return "local"
}

// lease is for as long as the invocation can last.
func (f *function) lease(ctx context.Context) control.Lease {
	now := f.now()
	until := now.Add(15 * time.Minute)
	if end, ok := ctx.Deadline(); ok {
		until = now.Add(time.Until(end) + time.Minute)
	}
	return control.Lease{Owner: owner(ctx), Until: until.UTC()}
}

// split cuts a lap of which too much is left for one invocation into ranges, and asks for them:
//
//  1. A document for each range is written, unless it is there.
//  2. The cursor notes the split: until then the lap goes on as one. A crash before leaves documents that nobody reads.
//  3. The messages are sent. A crash before that is healed by the next tick, which asks for all that is not done.
func (t *tour) split(ctx context.Context, src snapshot.Source, at *control.SourceTour) error {
	left := at.Lap.Total - at.Lap.Bytes
	n := int(min(maxRanges, (left+int64(t.env.Range)-1)/int64(t.env.Range)))
	parts := at.Lap.Split(n)
	for i := range parts {
		doc := control.VerifyRange{Version: 1, Sweep: parts[i]}
		_, err := statestore.Write(ctx, t.state, control.VerifyRangeKey(src, at.Begun, i, len(parts)), doc, "")
		if err != nil && !errors.Is(err, statestore.ErrConflict) {
			return fmt.Errorf("begin a range of %s: %w", src, err)
		}
	}
	at.Split = &control.Split{Ranges: len(parts)}
	if err := t.save(ctx); err != nil {
		return err
	}
	invoke.Log(ctx).Info("read in ranges", "source", src.String(), "bytes", left, "ranges", len(parts))
	return t.gather(ctx, src, at)
}

// gather looks how far the ranges of a lap have come. What they have read is taken off the allowance; those that are not
// done are asked for again; when all are, the lap is one again and is ended by its next reading.
func (t *tour) gather(ctx context.Context, src snapshot.Source, at *control.SourceTour) error {
	parts := make([]verify.Sweep, at.Split.Ranges)
	var open []events.Reread
	var read int64
	working := false
	for i := range parts {
		key := control.VerifyRangeKey(src, at.Begun, i, len(parts))
		doc, _, err := statestore.Read[control.VerifyRange](ctx, t.state, key)
		if errors.Is(err, statestore.ErrNotExist) {
			return t.unsplit(ctx, src, at, "a range is lost")
		}
		if err != nil {
			return err
		}
		parts[i] = doc.Sweep
		read += doc.Sweep.Bytes
		working = working || doc.Busy.Held("", t.now())
		if !doc.Done {
			open = append(open, events.Reread{Version: events.Version, Source: src.String(), Lap: at.Begun, Range: i, Ranges: len(parts)})
		}
	}
	more := max(0, read-at.Split.Counted)
	at.Split.Counted += more
	t.out.Bytes += more
	t.cursor.Allowance.Left -= more
	if len(open) == 0 {
		at.Lap = at.Lap.Join(parts)
		return t.unsplit(ctx, src, at, "all ranges are read")
	}
	since := t.now().Sub(at.Split.Sent)
	switch {
	case t.spent():
		return nil
	case at.Split.Sent.IsZero(): // by the split itself, or a crash came between
	case t.limited() && !working: // they have read what they were allowed to
	case !working && more == 0 && since >= askAgain:
	default:
		return nil
	}
	if t.limited() {
		share := max(1, t.cursor.Allowance.Left/int64(len(open)))
		for i := range open {
			open[i].Bytes = share
		}
	}
	if err := t.queue.Send(ctx, open); err != nil {
		return err
	}
	at.Split.Sent = t.now().UTC()
	return nil
}

// unsplit makes the lap one again. The cursor is written before the documents go.
func (t *tour) unsplit(ctx context.Context, src snapshot.Source, at *control.SourceTour, why string) error {
	n := at.Split.Ranges
	at.Split = nil
	if err := t.save(ctx); err != nil {
		return err
	}
	invoke.Log(ctx).Info("no longer read in ranges", "source", src.String(), "why", why)
	for i := range n {
		key := control.VerifyRangeKey(src, at.Begun, i, n)
		_, tag, err := t.state.Get(ctx, key)
		if errors.Is(err, statestore.ErrNotExist) {
			continue
		}
		if err == nil {
			err = t.state.Delete(ctx, key, tag)
		}
		if err != nil && !errors.Is(err, statestore.ErrConflict) && !errors.Is(err, statestore.ErrNotExist) {
			return fmt.Errorf("forget a range of %s: %w", src, err)
		}
	}
	return nil
}

// readRange reads further packs of one range, in one of shares equal parts of the time that the invocation has left. A
// message that comes twice finds the range taken, or done. One that is not done when its time is up asks for itself again,
// as long as it may read more.
func (f *function) readRange(ctx context.Context, repo *repository.Repository, r *events.Reread, shares int) error {
	src, err := snapshot.ParseSource(r.Source)
	if err != nil {
		return fmt.Errorf("range of packs: %w", err)
	}
	log := invoke.Log(ctx).With("source", r.Source, "range", r.Range, "ranges", r.Ranges)
	key := control.VerifyRangeKey(src, r.Lap, r.Range, r.Ranges)
	doc, tag, err := statestore.Read[control.VerifyRange](ctx, f.state, key)
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		log.Info("the lap is over")
		return nil
	case err != nil:
		return err
	case doc.Done:
		return nil
	case doc.Busy.Held(owner(ctx), f.now()):
		log.Info("another invocation is at work", "owner", doc.Busy.Owner)
		return nil
	}
	doc.Busy = f.lease(ctx)
	if tag, err = statestore.Write(ctx, f.state, key, doc, tag); errors.Is(err, statestore.ErrConflict) {
		return nil // somebody else took it just now
	} else if err != nil {
		return fmt.Errorf("take a range: %w", err)
	}
	end := time.Time{}
	if left, ok := timeToRead(ctx); ok {
		end = time.Now().Add(left / time.Duration(shares))
	}
	budget := verify.Budget{Bytes: r.Bytes, Cool: coolShare, Stop: func() bool { return !end.IsZero() && !time.Now().Before(end) }}
	before := doc.Sweep
	next, result, done, err := verify.Continue(ctx, repo, src, doc.Sweep, budget, f.options())
	doc.Sweep, doc.Done, doc.Busy, doc.Error = next, done && err == nil, control.Lease{}, ""
	if err != nil {
		doc.Error = err.Error()
	} else if result.Unrecorded != nil {
		doc.Error = result.Unrecorded.Error()
	}
	// The context may be over; a short one of its own is left for this.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, werr := statestore.Write(last, f.state, key, doc, tag); werr != nil {
		return errors.Join(err, fmt.Errorf("save a range: %w", werr)) // what was read is read again
	}
	read := next.Bytes - before.Bytes
	log.Info("range", "bytes", read, "done", doc.Done, "error", doc.Error)
	if err != nil {
		return err
	}
	if err := f.report(last, src, "rotation", result.Findings); err != nil {
		return err
	}
	switch {
	case done:
		return nil
	case next.Position == before.Position:
		// Asking again at once would go on like this for ever. The queue waits, and puts it aside if it stays so.
		return fmt.Errorf("range %d of %d of %s: the time was up before anything was read", r.Range, r.Ranges, src)
	}
	return f.goOn(last, r, read)
}

// goOn asks for the rest of a range, if what may be read is not used up.
func (f *function) goOn(ctx context.Context, r *events.Reread, read int64) error {
	if f.queue == nil || r.Bytes > 0 && read >= r.Bytes {
		return nil
	}
	again := *r
	if r.Bytes > 0 {
		again.Bytes = r.Bytes - read
	}
	return f.queue.Send(ctx, []events.Reread{again})
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// windUp is kept free before the end of the context, for the documents; a tenth of the time where that is less.
const windUp = 10 * time.Second

// passed is the answer of an invocation.
type passed struct {
	Busy    bool            `json:"busy,omitempty"` // another invocation is at work
	DryRun  bool            `json:"dry_run,omitempty"`
	Sources int             `json:"sources"` // whose turn it was
	Done    int             `json:"done"`
	Failed  int             `json:"failed"`
	Left    int             `json:"left"` // for the next invocation
	Removed int             `json:"removed"`
	Freed   int64           `json:"freed"`
	Reports []*sourceReport `json:"reports,omitempty"` // for an order that names sources, and for a dry run
}

// pass is one invocation.
type pass struct {
	*function
	*opened
	order      *order
	primary    *repository.Repository // nil: this is the first region, or see primaryErr
	primaryErr error
	owner      string
	cursor     *control.LifecycleCursor
	key, tag   string
	end        time.Time // zero: no end
	deleted    int
	out        passed
}

func (p *pass) late() bool { return !p.end.IsZero() && !time.Now().Before(p.end) }

// run has a pass over each source whose turn it is, those first whose last one, or last attempt at one, was longest ago. The cursor is held with
// a lease: two invocations at the same time would do each other's work. A dry run holds nothing and writes nothing.
func (p *pass) run(ctx context.Context, named []snapshot.Source) (any, error) {
	p.out.DryRun = p.order.DryRun
	p.key = control.LifecycleShardKey(p.order.Shard, p.order.Shards)
	if end, ok := ctx.Deadline(); ok {
		p.end = end.Add(-min(windUp, time.Until(end)/10))
	}
	p.owner = "local"
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		p.owner = lc.AwsRequestID
	}
	ok, err := p.take(ctx)
	if err != nil {
		return nil, err
	}
	if !ok {
		return passed{Busy: true, DryRun: p.order.DryRun}, nil
	}
	err = p.all(ctx, named)
	if p.order.DryRun {
		return p.out, err
	}
	p.cursor.Busy = control.Lease{}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return p.out, errors.Join(err, p.save(last))
}

// take reads the cursor and holds it for as long as the invocation can last.
func (p *pass) take(ctx context.Context) (bool, error) {
	cursor, tag, err := statestore.Read[control.LifecycleCursor](ctx, p.state, p.key)
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		cursor = &control.LifecycleCursor{}
	case err != nil && tag != "":
		invoke.Log(ctx).Error("the cursor is not readable: beginning anew", "key", p.key, "error", err.Error())
		cursor = &control.LifecycleCursor{}
	case err != nil:
		return false, err
	}
	if cursor.Passed == nil {
		cursor.Passed = map[string]time.Time{}
	}
	if cursor.Tried == nil {
		cursor.Tried = map[string]time.Time{}
	}
	p.cursor, p.tag = cursor, tag
	if p.order.DryRun {
		return true, nil
	}
	now := p.now()
	if cursor.Busy.Held(p.owner, now) {
		invoke.Log(ctx).Info("another invocation is at work", "owner", cursor.Busy.Owner, "until", cursor.Busy.Until)
		return false, nil
	}
	until := now.Add(15 * time.Minute)
	if end, ok := ctx.Deadline(); ok {
		until = now.Add(time.Until(end) + time.Minute)
	}
	cursor.Version, cursor.Busy = 1, control.Lease{Owner: p.owner, Until: until.UTC()}
	switch err := p.save(ctx); {
	case errors.Is(err, statestore.ErrConflict):
		return false, nil // somebody else took it just now
	case err != nil:
		return false, err
	}
	return true, nil
}

func (p *pass) save(ctx context.Context) error {
	tag, err := statestore.Write(ctx, p.state, p.key, p.cursor, p.tag)
	if err != nil {
		return fmt.Errorf("save the cursor: %w", err)
	}
	p.tag = tag
	return nil
}

func (p *pass) all(ctx context.Context, named []snapshot.Source) error {
	turn, err := p.turn(ctx, named)
	if err != nil {
		return err
	}
	p.out.Sources = len(turn)
	unlocked := p.lockRepository(ctx)
	if unlocked != nil && ctx.Err() == nil {
		invoke.Log(ctx).Error("the repository's own documents can not be locked for longer", "error", unlocked.Error())
	}
	for i, src := range turn {
		if p.late() || ctx.Err() != nil {
			p.out.Left = len(turn) - i
			break
		}
		if err := p.begin(ctx, src); err != nil {
			return err
		}
		report, err := p.source(ctx, src)
		if len(named) > 0 || p.order.DryRun {
			p.out.Reports = append(p.out.Reports, report)
		}
		if err != nil {
			// One source in trouble keeps no other from its turn: see begin.
			p.out.Failed++
			report.Error = err.Error()
			invoke.Log(ctx).Error("pass over a source ended with an error", "source", src.String(), "error", err.Error())
			continue
		}
		p.out.Done++
		p.cursor.Passed[src.String()] = p.now().UTC()
		delete(p.cursor.Tried, src.String())
	}
	invoke.Log(ctx).Info("lifecycle", "dry_run", p.order.DryRun, "sources", p.out.Sources, "done", p.out.Done, "failed", p.out.Failed,
		"left", p.out.Left, "removed", p.out.Removed, "freed", p.out.Freed)
	if until := p.cursor.Repository.Snapshots[lock.Records]; unlocked != nil && until.Before(p.now().Add(lock.Slack-patience)) {
		// No finding tells of them, as they are of no source: that the function fails is what does.
		known := "until when they are locked is not known"
		if !until.IsZero() {
			known = "they are locked until " + until.UTC().Format(time.RFC3339)
		}
		return fmt.Errorf("lock the repository's own documents for longer: %s: %w", known, unlocked)
	}
	return nil
}

// begin notes that the pass over a source begins, before it does: one that takes all the time of an invocation, or more
// memory than there is, has its next turn after all others. Where the cursor is another's by now, all ends.
func (p *pass) begin(ctx context.Context, src snapshot.Source) error {
	if p.order.DryRun {
		return nil
	}
	p.cursor.Tried[src.String()] = p.now().UTC()
	switch err := p.save(ctx); {
	case errors.Is(err, statestore.ErrConflict):
		return err
	case err != nil:
		invoke.Log(ctx).Warn("that a pass begins can not be noted", "source", src.String(), "error", err.Error())
	}
	return nil
}

// relist is how often, within the time between two passes, the sources are listed anew: of ten thousand hosts that is ten
// thousand requests. New ones wait for that long; their objects are locked as they arrive.
const relist = 4

// turn returns the sources whose turn it is.
func (p *pass) turn(ctx context.Context, named []snapshot.Source) ([]snapshot.Source, error) {
	if len(named) > 0 {
		return named, nil
	}
	now := p.now()
	all, err := p.known()
	if err != nil || p.order.DryRun || !control.Within(p.cursor.Listed, now, p.env.Every/relist) {
		if all, err = p.list(ctx); err != nil {
			return nil, err
		}
	}
	last := func(s snapshot.Source) time.Time { return p.cursor.Passed[s.String()] }
	turn := func(s snapshot.Source) time.Time { // of its last pass, however that ended
		if at := p.cursor.Tried[s.String()]; at.After(last(s)) && !at.After(now) {
			return at
		}
		return last(s)
	}
	all = slices.DeleteFunc(all, func(s snapshot.Source) bool { return !p.order.DryRun && control.Within(last(s), now, p.env.Every) })
	slices.SortStableFunc(all, func(a, b snapshot.Source) int {
		return cmp.Or(turn(a).Compare(turn(b)), cmp.Compare(a.String(), b.String()))
	})
	return all, nil
}

// known are the sources of the shard as the cursor has them.
func (p *pass) known() ([]snapshot.Source, error) {
	out := make([]snapshot.Source, 0, len(p.cursor.Passed))
	for name := range p.cursor.Passed {
		src, err := snapshot.ParseSource(name)
		if err != nil {
			return nil, err // they are listed
		}
		out = append(out, src)
	}
	return out, nil
}

// list lists the sources of the shard: its hosts, then those of each. They are noted in the cursor.
func (p *pass) list(ctx context.Context) ([]snapshot.Source, error) {
	out, err := p.repo.SourcesOf(ctx, func(host string) bool { return control.ShardOf(host, p.order.Shards) == p.order.Shard })
	if err != nil {
		return nil, err
	}
	passed := make(map[string]time.Time, len(out))
	for _, src := range out {
		passed[src.String()] = p.cursor.Passed[src.String()]
	}
	maps.DeleteFunc(p.cursor.Tried, func(name string, _ time.Time) bool {
		_, there := passed[name]
		return !there
	})
	p.cursor.Passed, p.cursor.Listed = passed, p.now().UTC()
	return out, nil
}

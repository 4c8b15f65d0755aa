package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// Summary is what an invocation did, for its log line and for who invokes it by hand.
type Summary struct {
	Shards  int `json:"shards,omitempty"` // the hosts are many: so many ticks were put into the queue instead
	Hosts   int `json:"hosts"`            // of the policy, in this shard
	Looked  int `json:"looked"`           // hosts at which something might have been to do
	Asked   int `json:"asked"`            // new runs
	Again   int `json:"again"`            // messages sent again, and further attempts
	Waiting int `json:"waiting"`          // runs that are held back by the limit
	Closed  int `json:"closed"`           // runs given up, or found done
	Left    int `json:"left,omitempty"`   // hosts that were not reached in time: the next tick begins with them
	Errors  int `json:"errors"`
}

// tick does what is due now. The clock that counts is that of now: a tick that comes late or twice finds done what is
// done.
func (c *coordinator) tick(ctx context.Context, t *events.Tick) (*Summary, error) {
	p, tag, err := c.policy(ctx)
	if err != nil {
		return nil, err
	}
	hosts := slices.Sorted(maps.Keys(p.Hosts))
	shards := t.Shards
	if shards == 0 {
		shards = (len(hosts) + c.shardHosts - 1) / c.shardHosts
		if shards > 1 {
			return c.fan(ctx, t, shards)
		}
		shards = 1
	}
	hosts = slices.DeleteFunc(hosts, func(host string) bool { return control.ShardOf(host, shards) != t.Shard })
	r := &round{coordinator: c, p: p, tag: tag, now: c.now().UTC()}
	r.Hosts = len(hosts)
	r.slots = &slots{state: c.state, limit: p.Limits.Concurrent, granted: map[string]bool{}}
	r.run(ctx, hosts, control.ShardKey(t.Shard, shards), t.Shard == 0)
	invoke.Log(ctx).Info("tick", "shard", t.Shard, "shards", shards, "policy", tag, "hosts", r.Hosts, "looked", r.Looked,
		"asked", r.Asked, "again", r.Again, "waiting", r.Waiting, "closed", r.Closed, "left", r.Left, "errors", r.Errors)
	if len(r.errs) > 0 {
		return &r.Summary, fmt.Errorf("%d errors, beginning with: %w", r.Errors, errors.Join(r.errs...))
	}
	return &r.Summary, nil
}

// fan leaves the work to one invocation for each shard.
func (c *coordinator) fan(ctx context.Context, t *events.Tick, shards int) (*Summary, error) {
	ticks := make([]events.Tick, shards)
	at := t.Time
	if at.IsZero() {
		at = c.now()
	}
	for i := range ticks {
		ticks[i] = events.Tick{Version: events.Version, Time: at.UTC(), Shard: i, Shards: shards}
	}
	if err := c.queues.Fan(ctx, ticks); err != nil {
		return nil, err
	}
	invoke.Log(ctx).Info("tick", "shards", shards)
	return &Summary{Shards: shards}, nil
}

// round is one tick for one shard.
type round struct {
	*coordinator
	p     *policy.Policy
	tag   string
	now   time.Time
	slots *slots

	mu sync.Mutex
	Summary
	errs   []error  // the first few; guarded by mu
	closed []string // guarded by mu
	shard  control.Shard
}

func (r *round) failed(ctx context.Context, host string, err error) {
	invoke.Log(ctx).Error("host", "host", host, "error", err.Error())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Errors++; len(r.errs) < 5 {
		r.errs = append(r.errs, fmt.Errorf("host %s: %w", host, err))
	}
}

// run looks at the hosts at which something may be to do.
//
//  1. Their documents are read, and what is due is found.
//  2. Slots are taken for new runs, higher tiers first, then what is due longest. A crash after that leaves slots of runs
//     that were never written down: the next tick asks for the same runs, which have the same ids, and otherwise
//     they are freed after a while.
//  3. Each document is written, then the host's messages are sent: see [control.HostJobs.Follow].
//  4. The slots of runs that have ended are freed, and the shard notes when each host is looked at next. A crash before
//     that makes the next tick look at hosts once more than needed.
//
// Hosts that were not reached before the deadline are looked at first by the next tick.
func (r *round) run(ctx context.Context, hosts []string, key string, first bool) {
	shard, tag, err := statestore.Read[control.Shard](ctx, r.state, key)
	switch {
	case errors.Is(err, statestore.ErrNotExist), err != nil && tag != "":
		shard = &control.Shard{} // lost or damaged: everything is looked at
	case err != nil:
		r.failed(ctx, "", err)
		return
	}
	pending := shard.Pending(hosts, r.tag, r.now)
	r.shard = *shard
	r.Looked = len(pending)
	if first && r.slots.limit > 0 {
		if err := r.slots.clean(ctx, r.p, r.now); err != nil {
			r.failed(ctx, "", err)
		}
	}
	looks := r.look(ctx, pending)
	if err := r.slots.reserve(ctx, wanted(looks), r.now); err != nil {
		r.failed(ctx, "", err)
	}
	group := errgroup.Group{}
	group.SetLimit(parallel)
	for _, l := range looks {
		group.Go(func() error {
			if err := r.host(ctx, l); err != nil {
				r.failed(ctx, l.host, err)
			}
			return nil
		})
	}
	_ = group.Wait() // errors are counted where they occur
	r.finish(ctx, hosts, key, tag)
}

// look reads the documents of hosts and finds what is to be done. It takes two thirds of the time at most: a repository
// that is slow, or does not answer, must not keep what was found from being done, tick after tick.
func (r *round) look(ctx context.Context, hosts []string) []*look {
	looking := ctx
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		looking, cancel = context.WithTimeout(ctx, time.Until(end)/3*2)
		defer cancel()
	}
	looks := make([]*look, len(hosts))
	group := errgroup.Group{}
	group.SetLimit(parallel)
	for i, host := range hosts {
		group.Go(func() error {
			l, err := r.read(looking, host)
			if err != nil && looking.Err() != nil && ctx.Err() == nil {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.Left++
				return nil
			}
			if err != nil {
				r.failed(ctx, host, err)
				return nil
			}
			looks[i] = l
			return nil
		})
	}
	_ = group.Wait() // errors are counted where they occur
	return slices.DeleteFunc(looks, func(l *look) bool { return l == nil })
}

// finish frees slots and writes when each host is to be looked at. It does so also when the time is up.
func (r *round) finish(ctx context.Context, hosts []string, key, tag string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	r.Closed = len(r.closed)
	if err := r.slots.release(ctx, r.closed); err != nil {
		r.failed(ctx, "", err)
	}
	if r.Looked == 0 && r.shard.Policy == r.tag {
		return
	}
	r.shard.Version, r.shard.Policy = 1, r.tag
	r.shard.Keep(hosts)
	_, err := statestore.Write(ctx, r.state, key, &r.shard, tag)
	if errors.Is(err, statestore.ErrConflict) {
		// Another tick was at it at the same time; its times are as good, or make us look once more.
		invoke.Log(ctx).Info("another tick wrote the shard", "key", key)
		return
	}
	if err != nil {
		r.failed(ctx, "", err)
	}
}

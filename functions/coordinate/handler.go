package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/functions/queue"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

const (
	// shardHosts is how many hosts one invocation takes by default.
	shardHosts = 500
	// parallel is how many hosts are worked on at once.
	parallel = 32
	// staleTick is how old a tick from the queue may be: minutes that are over are not made up.
	staleTick = 5 * time.Minute
)

// queues is where messages go.
type queues interface {
	// Send puts jobs into the queue of a host; errNoQueue if there is none.
	Send(ctx context.Context, host string, jobs []*events.Job) error
	// Fan puts ticks into the function's own queue.
	Fan(ctx context.Context, ticks []events.Tick) error
}

// errNoQueue says that a host has no queue.
var errNoQueue = queue.ErrAbsent

// manifests is what the repository shows.
type manifests interface {
	// Newest returns the newest manifest of a source; Sequence 0 if there is none that can be believed.
	Newest(ctx context.Context, p *policy.Policy, src snapshot.Source) (control.Evidence, error)
	// Arrived returns when a manifest arrived; the zero time if there is none.
	Arrived(ctx context.Context, p *policy.Policy, id snapshot.ID) (time.Time, error)
	// Proofs returns what receipts tell of the verifications that the source's agent has made.
	Proofs(ctx context.Context, p *policy.Policy, src snapshot.Source) (schedule.Proofs, error)
}

// coordinator is the function. It keeps nothing between invocations that it could not do without.
type coordinator struct {
	state      statestore.Store
	policy     func(context.Context) (*policy.Policy, string, error)
	queues     queues
	manifests  manifests
	limits     control.Limits
	shardHosts int
	now        func() time.Time
}

func newCoordinator(env environment.Coordinate, cloud *invoke.Cloud) *coordinator {
	return &coordinator{
		state: cloud.State, policy: cloud.Policy, queues: newSQS(cloud.Config, env), manifests: &stored{cloud},
		limits:     control.Limits{Lost: env.Lost, Attempts: env.Attempts},
		shardHosts: cmp.Or(env.ShardHosts, shardHosts), now: time.Now,
	}
}

// handle takes a tick of the schedule, or a batch of the function's queue.
func (c *coordinator) handle(ctx context.Context, payload json.RawMessage) (any, error) {
	if invoke.IsMessages(payload) {
		return invoke.Batch(ctx, payload, c.messages)
	}
	t, err := events.DecodeTick(payload)
	if err != nil {
		return nil, err
	}
	return c.tick(ctx, t)
}

// messages takes ticks for shards, and events. Those that are neither fail, until the queue puts them aside.
func (c *coordinator) messages(ctx context.Context, batch []invoke.Message) []error {
	failed := make([]error, len(batch))
	var reports []report
	for i, m := range batch {
		var probe struct {
			DetailType string `json:"detail-type"`
		}
		if err := json.Unmarshal(m.Body, &probe); err != nil {
			failed[i] = fmt.Errorf("decode message: %w", err)
			continue
		}
		if probe.DetailType != "" {
			r, err := decodeReport(m.Body, c.now())
			if failed[i] = err; err == nil {
				r.message = i
				reports = append(reports, r)
			}
			continue
		}
		t, err := events.DecodeTick(m.Body)
		switch {
		case err != nil:
			failed[i] = err
		case t.Shards == 0:
			failed[i] = errors.New("decode message: neither an event nor a tick of a shard")
		case c.now().Sub(t.Time) > staleTick:
			invoke.Log(ctx).Info("tick dropped: a newer one has done or will do its work", "time", t.Time)
		default:
			_, failed[i] = c.tick(ctx, t)
		}
	}
	c.reports(ctx, reports, failed)
	return failed
}

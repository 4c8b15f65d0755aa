package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/functions/queue"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// tickQueue is the function's own queue.
type tickQueue interface {
	Put(ctx context.Context, bodies []string) error
}

// newQueue returns the queue at a URL; nil where there is none.
func newQueue(cfg aws.Config, url string) tickQueue {
	if url == "" {
		return nil
	}
	return queue.New(cfg, "").To(url)
}

// shards is into how many parts the sources are cut, by their hosts. It follows from the policy: a longer policy needs no
// deployment. Where the number changes, sources have a pass a little early.
func (f *function) shards(p *policy.Policy) int {
	if f.queue == nil {
		return 1
	}
	n := 0
	p.Each(func(string, string, *policy.Source) { n++ })
	return max(1, (n+f.env.Shard-1)/f.env.Shard)
}

// fanned is the answer to a tick that was passed on.
type fanned struct {
	Shards int `json:"shards"`
}

// fan leaves the work to one invocation for each shard. A crash in the midst of it leaves some without one for an hour.
func (f *function) fan(ctx context.Context, o *order, shards int) (any, error) {
	at := o.Time
	if at.IsZero() {
		at = f.now()
	}
	bodies := make([]string, shards)
	for i := range bodies {
		body, err := json.Marshal(struct {
			Version int       `json:"version"`
			Time    time.Time `json:"time"`
			Shard   int       `json:"shard"`
			Shards  int       `json:"shards"`
		}{1, at.UTC(), i, shards})
		if err != nil {
			return nil, fmt.Errorf("encode tick: %w", err)
		}
		bodies[i] = string(body)
	}
	if err := f.queue.Put(ctx, bodies); err != nil {
		return nil, fmt.Errorf("put %d ticks into the own queue: %w", shards, err)
	}
	invoke.Log(ctx).Info("tick", "shards", shards)
	return fanned{shards}, nil
}

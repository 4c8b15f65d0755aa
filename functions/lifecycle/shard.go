package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// maxBatch is how many messages SQS takes at once.
const maxBatch = 10

// queue is the function's own queue.
type queue interface {
	Put(ctx context.Context, bodies []string) error
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

// sqsQueue is a queue of SQS.
type sqsQueue struct {
	client *sqs.Client
	url    string
}

// newQueue returns the queue; nil where there is none.
func newQueue(cfg aws.Config, url string) queue {
	if url == "" {
		return nil
	}
	return &sqsQueue{url: url, client: sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		if at := invoke.Endpoint(os.Getenv, "SQS"); at != "" {
			o.BaseEndpoint = aws.String(at)
		}
	})}
}

// Put implements [queue].
func (q *sqsQueue) Put(ctx context.Context, bodies []string) error {
	for part := range slices.Chunk(bodies, maxBatch) {
		entries := make([]types.SendMessageBatchRequestEntry, len(part))
		for i, body := range part {
			entries[i] = types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(body)}
		}
		out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: aws.String(q.url), Entries: entries})
		if err == nil && len(out.Failed) > 0 {
			err = errors.New(aws.ToString(out.Failed[0].Code))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

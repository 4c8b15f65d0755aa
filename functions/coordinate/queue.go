package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/queue"
)

// sqsQueues puts messages into queues of SQS.
type sqsQueues struct {
	*queue.SQS
	own string // URL of the function's own queue
}

func newSQS(cfg aws.Config, env environment.Coordinate) *sqsQueues {
	return &sqsQueues{queue.New(cfg, env.QueueBase), env.Queue}
}

// Send implements [queues].
func (q *sqsQueues) Send(ctx context.Context, host string, jobs []*events.Job) error {
	name, err := events.QueueName(host)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoQueue, err)
	}
	url, err := q.URL(ctx, name)
	if err != nil {
		return err
	}
	bodies := make([]string, len(jobs))
	for i, j := range jobs {
		body, err := events.EncodeJob(j)
		if err != nil {
			return err
		}
		bodies[i] = string(body)
	}
	return q.Put(ctx, url, bodies)
}

// Fan implements [queues].
func (q *sqsQueues) Fan(ctx context.Context, ticks []events.Tick) error {
	bodies := make([]string, len(ticks))
	for i, t := range ticks {
		body, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("encode tick: %w", err)
		}
		bodies[i] = string(body)
	}
	return q.Put(ctx, q.own, bodies)
}

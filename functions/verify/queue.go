package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/queue"
)

// rangeQueue is the function's own queue.
type rangeQueue interface {
	// Send asks for ranges to be read. One that is sent twice is read once at a time.
	Send(ctx context.Context, list []events.Reread) error
}

// ownQueue is a queue of SQS.
type ownQueue struct{ *queue.One }

// newQueue returns the queue at a URL; nil where there is none.
func newQueue(cfg aws.Config, url string) rangeQueue {
	if url == "" {
		return nil
	}
	return ownQueue{queue.New(cfg, "").To(url)}
}

// Send implements [rangeQueue].
func (q ownQueue) Send(ctx context.Context, list []events.Reread) error {
	bodies := make([]string, len(list))
	for i, r := range list {
		body, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode reread: %w", err)
		}
		bodies[i] = string(body)
	}
	if err := q.Put(ctx, bodies); err != nil {
		return fmt.Errorf("ask for ranges to be read: %w", err)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/queue"
)

// sqsQueues puts jobs into the hosts' queues of SQS.
type sqsQueues struct{ *queue.SQS }

// Send implements [queues].
func (q sqsQueues) Send(ctx context.Context, host string, job *events.Job) error {
	name, err := events.QueueName(host)
	if err != nil {
		return err
	}
	url, err := q.URL(ctx, name)
	if err != nil {
		return hinted(host, err)
	}
	body, err := events.EncodeJob(job)
	if err != nil {
		return err
	}
	if err := q.Put(ctx, url, []string{string(body)}); err != nil {
		return fmt.Errorf("send restore %s: %w", job.ID, hinted(host, err))
	}
	return nil
}

func hinted(host string, err error) error {
	if errors.Is(err, queue.ErrAbsent) {
		return fmt.Errorf("%w: `holdfast host add %s` makes it", err, host)
	}
	return err
}

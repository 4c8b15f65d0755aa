package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
)

// queue is the function's own queue.
type queue interface {
	// Send asks for ranges to be read. One that is sent twice is read once at a time.
	Send(ctx context.Context, list []events.Reread) error
}

// maxBatch is how many messages SQS takes at once.
const maxBatch = 10

// sqsQueue is a queue of SQS.
type sqsQueue struct {
	client *sqs.Client
	url    string
}

// newQueue returns the queue at a URL; nil where there is none.
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

// Send implements [queue].
func (q *sqsQueue) Send(ctx context.Context, list []events.Reread) error {
	var errs []error
	for batch := range slices.Chunk(list, maxBatch) {
		in := &sqs.SendMessageBatchInput{QueueUrl: &q.url}
		for i, r := range batch {
			body, err := json.Marshal(r)
			if err != nil {
				return fmt.Errorf("encode reread: %w", err)
			}
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(string(body))})
		}
		out, err := q.client.SendMessageBatch(ctx, in)
		if err != nil {
			errs = append(errs, fmt.Errorf("ask for ranges to be read: %w", err))
			continue
		}
		for _, f := range out.Failed {
			errs = append(errs, fmt.Errorf("ask for a range to be read: %s: %s", aws.ToString(f.Code), aws.ToString(f.Message)))
		}
	}
	return errors.Join(errs...)
}

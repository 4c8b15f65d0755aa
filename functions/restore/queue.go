package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
)

// sqsQueues puts jobs into the hosts' queues of SQS.
type sqsQueues struct {
	client *sqs.Client
	base   string // of the queues' URLs, ending in a slash; empty: they are asked for
}

func newQueues(cfg aws.Config, base string) *sqsQueues {
	if base != "" && !strings.HasSuffix(base, "/") {
		base += "/"
	}
	return &sqsQueues{base: base, client: sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		if at := invoke.Endpoint(os.Getenv, "SQS"); at != "" {
			o.BaseEndpoint = aws.String(at)
		}
	})}
}

// Send implements [queues].
func (q *sqsQueues) Send(ctx context.Context, host string, job *events.Job) error {
	name, err := events.QueueName(host)
	if err != nil {
		return err
	}
	url := q.base + name
	if q.base == "" {
		out, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(name)})
		if absent := new(types.QueueDoesNotExist); errors.As(err, &absent) {
			return fmt.Errorf("find queue %s: %w: `holdfast host add %s` makes it", name, err, host)
		}
		if err != nil {
			return fmt.Errorf("find queue %s: %w", name, err)
		}
		url = aws.ToString(out.QueueUrl)
	}
	body, err := events.EncodeJob(job)
	if err != nil {
		return err
	}
	out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{
		QueueUrl: aws.String(url), Entries: []types.SendMessageBatchRequestEntry{{Id: aws.String("0"), MessageBody: aws.String(string(body))}},
	})
	if err == nil && len(out.Failed) > 0 {
		err = errors.New(aws.ToString(out.Failed[0].Code))
	}
	if err != nil {
		return fmt.Errorf("send restore %s to queue %s: %w", job.ID, name, err)
	}
	return nil
}

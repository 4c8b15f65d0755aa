package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
)

// maxBatch is how many messages SQS takes at once.
const maxBatch = 10

// sqsQueues puts messages into queues of SQS.
type sqsQueues struct {
	client *sqs.Client
	own    string // URL of the function's own queue
	base   string // of the hosts' queues' URLs; empty: they are asked for

	mu   sync.Mutex
	urls map[string]string // by host; guarded by mu
}

func newSQS(cfg aws.Config, env environment.Coordinate) *sqsQueues {
	client := sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		if at := invoke.Endpoint(os.Getenv, "SQS"); at != "" {
			o.BaseEndpoint = aws.String(at)
		}
	})
	base := env.QueueBase
	if base != "" && !strings.HasSuffix(base, "/") {
		base += "/"
	}
	return &sqsQueues{client: client, own: env.Queue, base: base, urls: map[string]string{}}
}

// url returns the URL of a host's queue. It is kept: a queue that is made anew has the same.
func (q *sqsQueues) url(ctx context.Context, host string) (string, error) {
	name, err := events.QueueName(host)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoQueue, err)
	}
	if q.base != "" {
		return q.base + name, nil
	}
	q.mu.Lock()
	url := q.urls[host]
	q.mu.Unlock()
	if url != "" {
		return url, nil
	}
	out, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", wrap("find queue "+name, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.urls[host] = aws.ToString(out.QueueUrl)
	return q.urls[host], nil
}

// Send implements [queues].
func (q *sqsQueues) Send(ctx context.Context, host string, jobs []*events.Job) error {
	url, err := q.url(ctx, host)
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
	return q.put(ctx, url, bodies)
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
	return q.put(ctx, q.own, bodies)
}

// put sends bodies, several at once. One that SQS does not take is an error; the others are sent.
func (q *sqsQueues) put(ctx context.Context, url string, bodies []string) error {
	name := url[strings.LastIndexByte(url, '/')+1:]
	var errs []error
	for batch := range slices.Chunk(bodies, maxBatch) {
		in := &sqs.SendMessageBatchInput{QueueUrl: &url}
		for i, body := range batch {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(body)})
		}
		out, err := q.client.SendMessageBatch(ctx, in)
		if err != nil {
			errs = append(errs, wrap("send to queue "+name, err))
			continue
		}
		for _, f := range out.Failed {
			errs = append(errs, fmt.Errorf("send to queue %s: %s: %s", name, aws.ToString(f.Code), aws.ToString(f.Message)))
		}
	}
	return errors.Join(errs...)
}

// wrap tells a queue that is not there from other trouble.
func wrap(what string, err error) error {
	var missing *types.QueueDoesNotExist
	var api smithy.APIError
	if errors.As(err, &missing) || errors.As(err, &api) && strings.Contains(api.ErrorCode(), "NonExistentQueue") {
		return fmt.Errorf("%s: %w", what, errNoQueue)
	}
	return fmt.Errorf("%s: %w", what, err)
}

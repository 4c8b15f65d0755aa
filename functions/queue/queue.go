// Package queue puts messages into queues of SQS: a function's own, and those of hosts. Use [New], then [SQS.Put]; what only
// ever writes to its own queue uses [SQS.To].
//
// Nothing here decides anything, and nothing is sent again: whoever calls is safe to repeat, and does.
package queue

import (
	"context"
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

	"github.com/btcdecoded/holdfast/functions/invoke"
)

// maxBatch is how many messages SQS takes at once.
const maxBatch = 10

// ErrAbsent says that a queue is not there.
var ErrAbsent = errors.New("there is no such queue")

// SQS is the service. It is safe for concurrent use.
type SQS struct {
	client *sqs.Client
	base   string // of the URLs of queues that have a name, ending in a slash; empty: they are asked for

	mu   sync.Mutex
	urls map[string]string // by name; guarded by mu
}

// New makes the client; it talks to nobody. base is the URL below which queues are found by their names; empty: SQS is asked.
func New(cfg aws.Config, base string) *SQS {
	if base != "" && !strings.HasSuffix(base, "/") {
		base += "/"
	}
	client := sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		if at := invoke.Endpoint(os.Getenv, "SQS"); at != "" {
			o.BaseEndpoint = aws.String(at)
		}
	})
	return &SQS{client: client, base: base, urls: map[string]string{}}
}

// URL returns the URL of the queue with the name; [ErrAbsent] if there is none. It is kept: a queue that is made anew has the
// same.
func (q *SQS) URL(ctx context.Context, name string) (string, error) {
	if q.base != "" {
		return q.base + name, nil
	}
	q.mu.Lock()
	url := q.urls[name]
	q.mu.Unlock()
	if url != "" {
		return url, nil
	}
	out, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", told("find queue "+name, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.urls[name] = aws.ToString(out.QueueUrl)
	return q.urls[name], nil
}

// Put sends bodies to the queue at a URL, several at once. One that SQS does not take is an error; the others are sent.
// Errors: [ErrAbsent].
func (q *SQS) Put(ctx context.Context, url string, bodies []string) error {
	name := url[strings.LastIndexByte(url, '/')+1:]
	var errs []error
	for batch := range slices.Chunk(bodies, maxBatch) {
		in := &sqs.SendMessageBatchInput{QueueUrl: &url}
		for i, body := range batch {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(body)})
		}
		out, err := q.client.SendMessageBatch(ctx, in)
		if err != nil {
			errs = append(errs, told("send to queue "+name, err))
			continue
		}
		for _, f := range out.Failed {
			errs = append(errs, fmt.Errorf("send to queue %s: %s: %s", name, aws.ToString(f.Code), aws.ToString(f.Message)))
		}
	}
	return errors.Join(errs...)
}

// told tells a queue that is not there from other trouble.
func told(what string, err error) error {
	var missing *types.QueueDoesNotExist
	var api smithy.APIError
	if errors.As(err, &missing) || errors.As(err, &api) && strings.Contains(api.ErrorCode(), "NonExistentQueue") {
		return fmt.Errorf("%s: %w", what, ErrAbsent)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// One is one queue.
type One struct {
	sqs *SQS
	url string
}

// To returns the queue at a URL; nil where there is none.
func (q *SQS) To(url string) *One {
	if url == "" {
		return nil
	}
	return &One{q, url}
}

// Put sends bodies; see [SQS.Put].
func (o *One) Put(ctx context.Context, bodies []string) error { return o.sqs.Put(ctx, o.url, bodies) }

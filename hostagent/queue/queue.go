// Package queue is what connects an agent to AWS: the SQS queue of its host, the EventBridge bus, and what `holdfast
// host` does to queues. Use [Open] for an agent and [OpenHosts] for the administration.
//
// Credentials come from where the AWS tools find them, in their order: environment, profiles (also one with a
// credential_process, as IAM Roles Anywhere has it), the machine's role. AWS_ENDPOINT_URL names another server.
//
// Messages come at least once and in any order; who takes them must know their ids. Events arrive at least once.
package queue

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/logging"

	"github.com/btcdecoded/holdfast/events"
)

// Options says whom to talk to.
type Options struct {
	Queue   string // name or URL of the host's queue
	Bus     string // name or ARN of the bus; empty: none
	Host    string // whose agent speaks on the bus
	Region  string // empty: that of the queue's URL, or else from the environment, the profile or the machine
	Profile string // in the AWS configuration files; empty: the default one
}

// requestTimeout bounds one request; it is longer than SQS waits for a message.
const requestTimeout = time.Minute

// ErrNoQueue says that the queue does not exist, or that the credentials may not see it.
var ErrNoQueue = errors.New("there is no such queue")

// Open returns the queue and the bus; the bus is nil if there is to be none.
func Open(ctx context.Context, o Options) (*Queue, *Bus, error) {
	if o.Region == "" {
		o.Region = regionOf(o.Queue)
	}
	cfg, err := load(ctx, o.Region, o.Profile)
	if err != nil {
		return nil, nil, err
	}
	q := &Queue{client: sqs.NewFromConfig(cfg), name: o.Queue}
	if isURL(o.Queue) {
		q.url = o.Queue
	}
	if o.Bus == "" {
		return q, nil, nil
	}
	return q, &Bus{client: eventbridge.NewFromConfig(cfg), name: o.Bus, source: events.AgentSource(o.Host)}, nil
}

func load(ctx context.Context, region, profile string) (aws.Config, error) {
	client := awshttp.NewBuildableClient().WithTimeout(requestTimeout).WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = 4
	})
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client), config.WithLogger(logging.Nop{}),
	}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	if profile != "" {
		options = append(options, config.WithSharedConfigProfile(profile))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return cfg, fmt.Errorf("load the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = machineRegion(ctx, cfg)
	}
	if cfg.Region == "" {
		return cfg, errors.New("no AWS region; set AWS_REGION, or name the queue by its URL")
	}
	return cfg, nil
}

// machineRegion asks the machine where it is, if it is one of EC2.
func machineRegion(ctx context.Context, cfg aws.Config) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	out, err := imds.NewFromConfig(cfg).GetRegion(ctx, nil)
	if err != nil {
		return ""
	}
	return out.Region
}

func isURL(s string) bool { return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") }

// regionOf finds the region in a queue's URL: https://sqs.eu-west-1.amazonaws.com/123456789012/name.
func regionOf(queue string) string {
	u, err := url.Parse(queue)
	if err != nil || !isURL(queue) {
		return ""
	}
	parts := strings.Split(u.Hostname(), ".")
	if len(parts) >= 4 && parts[0] == "sqs" && parts[2] == "amazonaws" {
		return parts[1]
	}
	return ""
}

// Queue is the queue of one host. It is for one goroutine.
type Queue struct {
	client *sqs.Client
	name   string
	url    string // empty: not looked up yet
}

// Message is what a queue delivers.
type Message struct {
	Body   []byte
	Handle string // with which it is deleted
}

// maxMessages is the most that SQS gives at once.
const maxMessages = 10

// Receive waits for messages, at most as long as wait, and returns some or none. It errors with [ErrNoQueue].
func (q *Queue) Receive(ctx context.Context, wait time.Duration) ([]Message, error) {
	if err := q.find(ctx); err != nil {
		return nil, err
	}
	out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &q.url, MaxNumberOfMessages: maxMessages, WaitTimeSeconds: int32(min(wait, 20*time.Second) / time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("receive from queue %s: %w", q.name, explain(err))
	}
	list := make([]Message, 0, len(out.Messages))
	for _, m := range out.Messages {
		list = append(list, Message{Body: []byte(aws.ToString(m.Body)), Handle: aws.ToString(m.ReceiptHandle)})
	}
	return list, nil
}

// Delete deletes a message that was received.
func (q *Queue) Delete(ctx context.Context, handle string) error {
	if err := q.find(ctx); err != nil {
		return err
	}
	if _, err := q.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: &handle}); err != nil {
		return fmt.Errorf("delete from queue %s: %w", q.name, explain(err))
	}
	return nil
}

// find looks the URL up. It is not kept when the queue is gone: who makes it again makes it with the same name.
func (q *Queue) find(ctx context.Context) error {
	if q.url != "" {
		return nil
	}
	out, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &q.name})
	if err != nil {
		return fmt.Errorf("find queue %s: %w", q.name, explain(err))
	}
	q.url = aws.ToString(out.QueueUrl)
	return nil
}

// explain names what callers can match.
func explain(err error) error {
	var gone *types.QueueDoesNotExist
	if errors.As(err, &gone) {
		return fmt.Errorf("%w: %w", ErrNoQueue, err)
	}
	return err
}

package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/btcdecoded/holdfast/events"
)

// HostTag is the tag of a host's queue, of its role, and of sessions: which host it is.
const HostTag = "holdfast-host"

// How the queue of a host is made.
const (
	visibility = "60"     // seconds; an agent deletes a message as soon as the job is in its journal
	retention  = "345600" // four days; jobs are stale long before
	receives   = "5"      // a message that no agent can put into its journal goes to the dead letters then
)

// ErrNoDeadLetters says that the queue for dead letters is not there.
var ErrNoDeadLetters = errors.New("there is no queue for dead letters")

// Hosts makes and removes the queues of hosts.
type Hosts struct{ client *sqs.Client }

// Host is the queue of a host.
type Host struct {
	Name    string `json:"name"`
	Queue   string `json:"queue"`
	URL     string `json:"url"`
	Waiting int    `json:"waiting"` // messages that nobody has taken yet, about
}

// OpenHosts returns the administration of the queues in a region.
func OpenHosts(ctx context.Context, region, profile string) (*Hosts, error) {
	cfg, err := load(ctx, region, profile)
	if err != nil {
		return nil, err
	}
	return &Hosts{client: sqs.NewFromConfig(cfg)}, nil
}

// Add makes the queue of a host, or brings the one that is there to what it should be; made says which. It errors with
// [ErrNoDeadLetters] where the control plane is not deployed.
func (h *Hosts) Add(ctx context.Context, host string) (out Host, made bool, err error) {
	name, err := events.QueueName(host)
	if err != nil {
		return out, false, fmt.Errorf("add host %s: %w", host, err)
	}
	dead, err := h.deadLetters(ctx)
	if err != nil {
		return out, false, fmt.Errorf("add host %s: %w", host, err)
	}
	redrive, err := json.Marshal(map[string]string{"deadLetterTargetArn": dead, "maxReceiveCount": receives})
	if err != nil {
		return out, false, fmt.Errorf("add host %s: %w", host, err)
	}
	attributes := map[string]string{
		"VisibilityTimeout": visibility, "MessageRetentionPeriod": retention, "ReceiveMessageWaitTimeSeconds": "20",
		"SqsManagedSseEnabled": "true", "RedrivePolicy": string(redrive),
	}
	tags := map[string]string{HostTag: host, "application": "holdfast"}
	at, err := h.url(ctx, name)
	switch {
	case errors.Is(err, ErrNoQueue):
		made = true
		created, err := h.client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes, Tags: tags})
		if err != nil {
			return out, false, fmt.Errorf("make queue %s: %w", name, err)
		}
		at = aws.ToString(created.QueueUrl)
	case err != nil:
		return out, false, fmt.Errorf("add host %s: %w", host, err)
	default:
		if _, err := h.client.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &at, Attributes: attributes}); err != nil {
			return out, false, fmt.Errorf("set attributes of queue %s: %w", name, err)
		}
		if _, err := h.client.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: &at, Tags: tags}); err != nil {
			return out, false, fmt.Errorf("tag queue %s: %w", name, err)
		}
	}
	return Host{Name: host, Queue: name, URL: at}, made, nil
}

// Remove deletes the queue of a host with all that waits in it; false if there is none.
func (h *Hosts) Remove(ctx context.Context, host string) (bool, error) {
	name, err := events.QueueName(host)
	if err != nil {
		return false, fmt.Errorf("remove host %s: %w", host, err)
	}
	at, err := h.url(ctx, name)
	if errors.Is(err, ErrNoQueue) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove host %s: %w", host, err)
	}
	if _, err := h.client.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &at}); err != nil {
		return false, fmt.Errorf("delete queue %s: %w", name, err)
	}
	return true, nil
}

// List returns the hosts that have a queue, by name: the queues with our prefix and a tag that says which host it is.
func (h *Hosts) List(ctx context.Context) ([]Host, error) {
	var out []Host
	pages := sqs.NewListQueuesPaginator(h.client, &sqs.ListQueuesInput{
		QueueNamePrefix: aws.String(events.QueuePrefix), MaxResults: aws.Int32(1000),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list queues: %w", err)
		}
		for _, at := range page.QueueUrls {
			one, ok, err := h.host(ctx, at)
			if err != nil {
				return nil, err
			}
			if ok {
				out = append(out, one)
			}
		}
	}
	slices.SortFunc(out, func(a, b Host) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (h *Hosts) host(ctx context.Context, at string) (out Host, ok bool, err error) {
	tags, err := h.client.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: &at})
	if err != nil {
		if errors.Is(explain(err), ErrNoQueue) {
			return out, false, nil // removed since it was listed
		}
		return out, false, fmt.Errorf("read tags of queue %s: %w", at, err)
	}
	name := tags.Tags[HostTag]
	queue, err := events.QueueName(name)
	if name == "" || err != nil || !strings.HasSuffix(at, "/"+queue) {
		return out, false, nil //nolint:nilerr // a queue of something else
	}
	attributes, err := h.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &at, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages},
	})
	if err != nil {
		return out, false, fmt.Errorf("read attributes of queue %s: %w", at, err)
	}
	waiting, _ := strconv.Atoi(attributes.Attributes[string(types.QueueAttributeNameApproximateNumberOfMessages)])
	return Host{Name: name, Queue: queue, URL: at, Waiting: waiting}, true, nil
}

// deadLetters returns the ARN of the queue for dead letters.
func (h *Hosts) deadLetters(ctx context.Context) (string, error) {
	at, err := h.url(ctx, events.DeadLetterName)
	if errors.Is(err, ErrNoQueue) {
		return "", fmt.Errorf("%w: %s", ErrNoDeadLetters, events.DeadLetterName)
	}
	if err != nil {
		return "", err
	}
	out, err := h.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &at, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return "", fmt.Errorf("read the name of queue %s: %w", events.DeadLetterName, err)
	}
	arn := out.Attributes[string(types.QueueAttributeNameQueueArn)]
	if arn == "" {
		return "", fmt.Errorf("queue %s has no name of its own, only %v", events.DeadLetterName, slices.Collect(maps.Keys(out.Attributes)))
	}
	return arn, nil
}

func (h *Hosts) url(ctx context.Context, name string) (string, error) {
	out, err := h.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", explain(err)
	}
	return aws.ToString(out.QueueUrl), nil
}

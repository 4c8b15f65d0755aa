package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"
)

// Limits of PutEvents: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html.
const (
	maxEntries  = 10
	maxRequest  = 250_000 // bytes; the limit is 256 KiB, and each entry counts some more than its detail
	entryExtra  = 200
	maxAttempts = 2 // who calls tries again by itself, and keeps the order
)

// ErrNever says that the bus will not take an event however often it is sent.
var ErrNever = errors.New("the bus will never take this event")

// Event is what goes to the bus, from this agent.
type Event struct {
	Type   string // the detail-type
	Detail string // JSON
}

// Bus is an EventBridge bus.
type Bus struct {
	client *eventbridge.Client
	name   string
	source string // of its events: this host's agent
}

// Put sends events in order. It returns for each nil or why it did not arrive, which is [ErrNever] where sending it again
// is pointless; after one that did not arrive because of the network, none is sent.
func (b *Bus) Put(ctx context.Context, list []Event) []error {
	each := make([]error, len(list))
	for from := 0; from < len(list); {
		to, size := from, 0
		for to < len(list) && to-from < maxEntries {
			size += len(list[to].Detail) + len(list[to].Type) + entryExtra
			if to > from && size > maxRequest {
				break
			}
			to++
		}
		if err := b.put(ctx, list[from:to], each[from:to]); err != nil {
			for i := from; i < len(list); i++ {
				each[i] = err
			}
			if to-from == 1 && refused(err) {
				each[from] = fmt.Errorf("%w: %w", ErrNever, err)
			}
			break
		}
		from = to
	}
	return each
}

func (b *Bus) put(ctx context.Context, list []Event, each []error) error {
	in := &eventbridge.PutEventsInput{}
	for _, e := range list {
		in.Entries = append(in.Entries, types.PutEventsRequestEntry{
			EventBusName: &b.name, Source: aws.String(b.source), DetailType: aws.String(e.Type),
			// No time: it would be that of this host's clock, and who reads events goes by the bus's. What happened when
			// stands in the detail.
			Detail: aws.String(e.Detail),
		})
	}
	out, err := b.client.PutEvents(ctx, in, func(o *eventbridge.Options) { o.RetryMaxAttempts = maxAttempts })
	if err != nil {
		return fmt.Errorf("put events on bus %s: %w", b.name, err)
	}
	if len(out.Entries) != len(list) {
		return fmt.Errorf("put events on bus %s: %d answers to %d events", b.name, len(out.Entries), len(list))
	}
	for i, e := range out.Entries {
		code := aws.ToString(e.ErrorCode)
		if code == "" {
			continue
		}
		each[i] = fmt.Errorf("put event on bus %s: %s: %s", b.name, code, aws.ToString(e.ErrorMessage))
		// What is wrong with the event itself stays wrong. Rights and limits may change.
		if slices.Contains([]string{"MalformedDetail", "InvalidArgument", "InvalidEvent"}, code) {
			each[i] = fmt.Errorf("%w: %w", ErrNever, each[i])
		}
	}
	return nil
}

// refused reports whether a request was understood and not taken.
func refused(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains([]string{"ValidationException", "PutEventsRequestEntrySizeLimitExceeded"}, api.ErrorCode())
}

package invoke

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/emf"
)

// Message is one message of a queue.
type Message struct {
	ID       string
	Body     []byte
	Receives string // how often it was received, this time counted
	Source   string // ARN of the queue
}

// IsMessages reports whether the payload is a batch of a queue's messages.
func IsMessages(payload json.RawMessage) bool {
	var probe struct {
		Records []struct {
			EventSource string `json:"eventSource"`
		} `json:"Records"` //nolint:tagliatelle // as SQS spells it
	}
	return json.Unmarshal(payload, &probe) == nil && len(probe.Records) > 0 && probe.Records[0].EventSource == "aws:sqs"
}

// Messages calls fn for each message of a batch, in order, and returns the answer that names those which failed: they
// alone come again, and go to the dead-letter queue when they fail too often. A panic fails its message only. When ctx
// ends, the rest of the batch fails unread. The function's event source must have ReportBatchItemFailures.
func Messages(ctx context.Context, payload json.RawMessage, fn func(context.Context, Message) error) (any, error) {
	return Batch(ctx, payload, func(ctx context.Context, batch []Message) []error {
		failed := make([]error, len(batch))
		for i, m := range batch {
			failed[i] = One(ctx, m, fn)
		}
		return failed
	})
}

// Batch is [Messages] for functions that work on a whole batch at once: fn returns one error for each message, nil for
// those that are done.
func Batch(ctx context.Context, payload json.RawMessage, fn func(context.Context, []Message) []error) (any, error) {
	var batch lambdaevents.SQSEvent
	if err := json.Unmarshal(payload, &batch); err != nil {
		return nil, fmt.Errorf("decode batch of messages: %w", err)
	}
	messages := make([]Message, len(batch.Records))
	for i, r := range batch.Records {
		messages[i] = Message{ID: r.MessageId, Body: []byte(r.Body), Receives: r.Attributes["ApproximateReceiveCount"], Source: r.EventSourceARN}
	}
	answer := lambdaevents.SQSEventResponse{BatchItemFailures: []lambdaevents.SQSBatchItemFailure{}}
	defer func() { count(ctx, len(answer.BatchItemFailures)) }()
	for i, err := range fn(ctx, messages) {
		if err == nil {
			continue
		}
		m := messages[i]
		Log(ctx).Error("message failed", "message", m.ID, "receives", m.Receives, "error", err.Error())
		answer.BatchItemFailures = append(answer.BatchItemFailures, lambdaevents.SQSBatchItemFailure{ItemIdentifier: m.ID})
	}
	return answer, nil
}

type nameKey struct{}

// count writes how many messages failed, as a metric: Lambda calls an invocation good of which some, or all, messages failed,
// and one that is too old by the time it comes again would never get to the dead letters.
func count(ctx context.Context, failed int) {
	name, ok := ctx.Value(nameKey{}).(string)
	if failed == 0 || !ok {
		return
	}
	err := emf.Write(os.Stdout, emf.Entry{
		Namespace: environment.Namespace, Time: time.Now(), Dimensions: map[string]string{environment.DimensionFunction: name},
		Metrics: []emf.Metric{{Name: environment.MetricFailedMessages, Unit: environment.UnitCount, Value: float64(failed)}},
	})
	if err != nil {
		Log(ctx).Error("metric", "error", err.Error())
	}
}

// One calls fn for one message. A panic is an error; where ctx has ended, fn is not called.
func One(ctx context.Context, m Message, fn func(context.Context, Message) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			Log(ctx).Error("panic", "message", m.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return fn(WithLog(ctx, Log(ctx).With("message", m.ID)), m)
}

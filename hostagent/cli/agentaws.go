package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/hostagent/queue"
)

// connect opens the queue and the bus that flags and environment name, for this host; each is nil where there is to be none.
func (a *app) connect(ctx context.Context, host string, f agentFlags) (daemon.Queue, daemon.Bus, string, error) {
	name := a.setting(f.queue, "HOLDFAST_QUEUE")
	bus := a.setting(f.bus, "HOLDFAST_BUS")
	if name == "" && bus == "" {
		return nil, nil, "", nil
	}
	if bus == "" {
		bus = events.BusName
	}
	q, b, err := queue.Open(ctx, queue.Options{Queue: name, Bus: bus, Host: host, Profile: f.profile})
	if err != nil {
		return nil, nil, "", err
	}
	if name == "" {
		return nil, awsBus{b}, "", nil
	}
	return awsQueue{q}, awsBus{b}, name, nil
}

// awsQueue is a queue as the daemon wants it.
type awsQueue struct{ q *queue.Queue }

// Receive hands messages over.
func (a awsQueue) Receive(ctx context.Context, wait time.Duration) ([]daemon.Message, error) {
	list, err := a.q.Receive(ctx, wait)
	if err != nil {
		return nil, err
	}
	out := make([]daemon.Message, 0, len(list))
	for _, m := range list {
		out = append(out, daemon.Message{Body: m.Body, Handle: m.Handle})
	}
	return out, nil
}

// Delete deletes a message.
func (a awsQueue) Delete(ctx context.Context, handle string) error { return a.q.Delete(ctx, handle) }

// awsBus is a bus as the daemon wants it.
type awsBus struct{ b *queue.Bus }

// Put hands events over.
func (a awsBus) Put(ctx context.Context, list []journal.Event) ([]error, error) {
	out := make([]queue.Event, 0, len(list))
	for _, e := range list {
		out = append(out, queue.Event{Type: e.Type, Detail: e.Detail})
	}
	each := a.b.Put(ctx, out)
	for i, err := range each {
		if errors.Is(err, queue.ErrNever) {
			each[i] = fmt.Errorf("%w: %w", daemon.ErrNever, err)
		}
	}
	return each, nil
}

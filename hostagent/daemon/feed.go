package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
)

// Message is what a queue delivers.
type Message struct {
	Body   []byte
	Handle string // with which it is deleted
}

// Queue brings messages at least once, in any order, until they are deleted.
type Queue interface {
	// Receive waits for messages, at most as long as wait, and returns some or none.
	Receive(ctx context.Context, wait time.Duration) ([]Message, error)
	Delete(ctx context.Context, handle string) error
}

// QueueFeed brings the jobs of a queue.
type QueueFeed struct {
	Queue Queue
	Name  string
	Wait  time.Duration // how long to wait for a message; 0: twenty seconds, the most that SQS knows
}

const longPoll = 20 * time.Second

// fullWait is how long a feed waits when the journal is full.
const fullWait = time.Minute

func (f *QueueFeed) String() string { return "queue " + f.Name }

// Poll takes messages and deletes those that are settled. What is not settled comes again by itself.
func (f *QueueFeed) Poll(ctx context.Context, offer Offer) (n int, wait time.Duration, err error) {
	longest := f.Wait
	if longest == 0 {
		longest = longPoll
	}
	list, err := f.Queue.Receive(ctx, longest)
	if err != nil {
		return 0, 0, err
	}
	var errs []error
	for _, m := range list {
		// The order matters: a crash between the two brings the message again, and its id is known.
		err := offer(ctx, Offered{Body: m.Body, Origin: journal.FromQueue})
		if errors.Is(err, journal.ErrFull) {
			wait = fullWait
		}
		if err == nil {
			if err = f.Queue.Delete(ctx, m.Handle); err == nil {
				n++
			} else {
				err = fmt.Errorf("delete a message: %w", err)
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return n, wait, errors.Join(errs...)
}

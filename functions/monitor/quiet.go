package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// alarmTest sends a message that says that it is a test. Where nobody would get it, that is an error.
func (f *function) alarmTest(ctx context.Context, r request) (any, error) {
	now := f.now()
	s, err := f.people.subscriptions(ctx, nil, now)
	if err != nil {
		return nil, err
	}
	if s.Confirmed == 0 {
		return nil, fmt.Errorf("test of the alarms: no subscription to the topic is confirmed (%d wait for it): nobody gets them", len(s.Pending))
	}
	m := alert.TestMessage(r.By, f.options(), now)
	if err := f.people.send(ctx, &m); err != nil {
		return nil, err
	}
	invoke.Log(ctx).Info("test of the alarms", "message", m.ID, "by", r.By)
	return map[string]any{"message": m.ID, "subject": m.Subject, "confirmed_subscriptions": s.Confirmed, "pending_subscriptions": len(s.Pending)}, nil
}

// quiet enters an acknowledgement or a maintenance window.
func (f *function) quiet(ctx context.Context, r request) (any, error) {
	now := f.now()
	if r.Until.IsZero() && r.For > 0 {
		from := r.From
		if from.IsZero() {
			from = now
		}
		r.Until = from.Add(r.For.Std())
	}
	var book *alert.Book
	err := statestore.Update(ctx, f.state, control.AlertsKey, func(b *alert.Book) error {
		book = b
		if r.Action == actionAcknowledge {
			return b.Acknowledge(alert.Ack{Pattern: r.Pattern, By: r.By, Reason: r.Reason, Until: r.Until}, now)
		}
		return b.Maintain(alert.Window{Pattern: r.Pattern, By: r.By, Reason: r.Reason, From: r.From, Until: r.Until}, now)
	})
	if err != nil {
		return nil, err
	}
	invoke.Log(ctx).Info(r.Action, "by", r.By, "source", r.Source, "code", r.Code, "tier", r.Tier, "until", r.Until, "reason", r.Reason)
	return map[string]any{"acknowledgements": book.Acks, "windows": book.Windows}, nil
}

// keyChecked notes that a person proved the offline identity with `holdfast key check`. No machine can do that: the
// identity is where no machine is.
func (f *function) keyChecked(ctx context.Context, r request) (any, error) {
	now := f.now().UTC()
	if r.At.IsZero() {
		r.At = now
	}
	switch {
	case r.By == "":
		return nil, errors.New("key checked: by is empty: say who proved the identity")
	case r.At.After(now.Add(time.Minute)):
		return nil, fmt.Errorf("key checked: %s is in the future", r.At.Format(time.RFC3339))
	}
	err := statestore.Update(ctx, f.state, control.MonitorKey, func(m *control.Monitor) error {
		if !r.At.After(m.KeyProven) {
			return statestore.ErrUnchanged
		}
		m.KeyProven, m.KeyBy = r.At.UTC(), r.By
		return nil
	})
	if err != nil {
		return nil, err
	}
	invoke.Log(ctx).Info("key checked", "by", r.By, "at", r.At)
	return map[string]any{"key_proven": r.At.UTC(), "by": r.By}, nil
}

// maxListed is how many alerts an answer has: Lambda bounds it. The worst come first.
const maxListed = 1000

// status answers with what is open, for people and scripts.
func (f *function) status(ctx context.Context) (any, error) {
	b, _, err := statestore.Read[alert.Book](ctx, f.state, control.AlertsKey)
	if b, err = missing(b, err); err != nil {
		return nil, err
	}
	m, _, err := statestore.Read[control.Monitor](ctx, f.state, control.MonitorKey)
	if m, err = missing(m, err); err != nil {
		return nil, err
	}
	open := b.List()
	return map[string]any{
		"last_pass": m.Time, "open": len(open), "alerts": open[:min(len(open), maxListed)], "acknowledgements": b.Acks, "windows": b.Windows, "waiting_messages": len(b.Outbox),
		"subscriptions": m.Subscriptions, "orphans": m.Orphans, "key_proven": m.KeyProven,
	}, nil
}

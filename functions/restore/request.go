package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// defaultValid is how long a request is valid.
const defaultValid = 24 * time.Hour

// requested is the answer to a request.
type requested struct {
	*control.Restore
	Next string `json:"next"`
}

// request enters a request that nobody has signed yet, or one that "holdfast approve request" wrote, with the signatures
// that it has.
//
// Order: 1. removals of the source are frozen, 2. the document. A crash between leaves a freeze that ends by itself.
func (f *function) request(ctx context.Context, r request) (any, error) {
	p, _, err := f.cloud.Policy(ctx)
	if err != nil {
		return nil, err
	}
	now := f.now().UTC()
	order := r.Order
	if order == nil {
		if order, err = f.order(ctx, p, r, now); err != nil {
			return nil, err
		}
	}
	asked, err := approval.Decode(order.Request)
	if err != nil {
		return nil, err
	}
	w := wanted{
		src: asked.From(), at: recovery.Selector{Sequence: asked.Snapshot, At: asked.At}, host: asked.Host, target: asked.Target, speed: recovery.Speed(r.Thaw),
		days: int(asked.Expires.Sub(asked.Created)/(24*time.Hour)) + int(control.FrozenBeyond/(24*time.Hour)) + 1,
	}
	plan, err := f.planFor(ctx, p, w)
	if err != nil {
		return nil, err
	}
	if thawed := now.Add(plan.Thaw); thawed.After(asked.Expires) {
		return nil, fmt.Errorf("request %s: it expires at %s, and what is archived can be read at about %s only: ask for one that is valid for longer (at most %s)",
			asked.ID, asked.Expires.UTC().Format(time.RFC3339), thawed.UTC().Format(time.RFC3339), approval.MaxLife)
	}
	doc, err := control.NewRestore(*order, plan, now)
	if err != nil {
		return nil, err
	}
	doc.Frozen = asked.Expires.Add(control.FrozenBeyond)
	if err := control.FreezeSource(ctx, f.state, asked.From(), now, doc.Frozen, "restore "+doc.ID); err != nil {
		return nil, fmt.Errorf("freeze removals of %s: %w", asked.Source, err)
	}
	_, err = statestore.Write(ctx, f.state, control.RestoreKey(doc.ID), doc, "")
	if errors.Is(err, statestore.ErrConflict) { // a repeated request is one request
		doc, err = f.update(ctx, doc.ID, func(known *control.Restore) error {
			if !same(known, order) {
				return errOther(asked.ID)
			}
			return statestore.ErrUnchanged
		})
	}
	if err != nil {
		return nil, err
	}
	invoke.Log(ctx).Info("requested", "restore", doc.ID, "source", asked.Source, "snapshot", asked.Snapshot, "host", asked.Host)
	if len(order.Signatures) > 0 {
		return f.approve(ctx, request{Order: order})
	}
	return requested{doc, "put the member order into a file; `holdfast approve sign FILE --as NAME --key KEY` by two approvers; then the action approve with it"}, nil
}

func same(known *control.Restore, order *events.RestoreOrder) bool {
	return bytes.Equal(known.Order.Request, order.Request)
}

func errOther(id string) error {
	return fmt.Errorf("restore %s: it is another request than the one that is known under this id", id)
}

// order makes a request out of what is wanted.
func (f *function) order(ctx context.Context, p *policy.Policy, r request, now time.Time) (*events.RestoreOrder, error) {
	w, err := r.wanted()
	if err != nil {
		return nil, err
	}
	plan, err := f.planFor(ctx, p, w)
	if err != nil {
		return nil, err
	}
	until, err := logUntil(plan, w.at.At)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", w.src, err)
	}
	src := w.src
	valid := r.Expires.Std()
	if valid <= 0 {
		valid = defaultValid + plan.Thaw
	}
	now = now.Truncate(time.Second)
	q := &approval.Request{
		Version: approval.Version, ID: approval.NewID(), Host: r.Host, Source: src.String(), Snapshot: plan.Selection.Point.Sequence, At: until,
		Paths: r.Paths, Target: r.Target, InPlace: r.InPlace, Reason: r.Reason, Created: now, Expires: now.Add(valid),
	}
	if q.Host == "" {
		q.Host = src.Host
	}
	body, err := approval.Encode(q)
	if err != nil {
		return nil, err
	}
	return &events.RestoreOrder{Request: body, Signatures: []events.Signature{}}, nil
}

// approve adds signatures, and sends the job when there are enough and nothing of the snapshot is archived any more.
//
// Order: 1. the document with the signatures, as approved; 2. the message; 3. the document as sent. A crash after 1 leaves
// it approved: the same approval again, or the action send, sends it. After 2 it may be sent twice: the agent's journal
// drops the second.
func (f *function) approve(ctx context.Context, r request) (any, error) {
	if r.Order == nil {
		return nil, errors.New("approve: no order: want the file that `holdfast approve sign` wrote, as the member order")
	}
	asked, err := approval.Decode(r.Order.Request)
	if err != nil {
		return nil, err
	}
	p, _, err := f.cloud.Policy(ctx)
	if err != nil {
		return nil, err
	}
	enough := false
	doc, err := f.update(ctx, asked.ID, func(doc *control.Restore) error {
		if !same(doc, r.Order) {
			return errOther(asked.ID)
		}
		var err error
		enough, err = doc.Sign(p, r.Order.Signatures, f.now())
		return err
	})
	if err != nil || !enough {
		return doc, err
	}
	return f.send(ctx, doc)
}

// again sends an approved restore again that no agent has taken yet.
func (f *function) again(ctx context.Context, r request) (any, error) {
	doc, err := f.update(ctx, r.ID, func(doc *control.Restore) error {
		if !doc.Expire(f.now()) {
			return statestore.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f.send(ctx, doc)
}

func (f *function) send(ctx context.Context, doc *control.Restore) (any, error) {
	switch doc.Status {
	case control.RestoreApproved, control.RestoreThawing, control.RestoreSent:
	case control.RestoreAccepted:
		return doc, nil
	default:
		return nil, fmt.Errorf("send restore %s: it is %s", doc.ID, doc.Status)
	}
	doc, ready, err := f.thaw(ctx, doc)
	if err != nil || !ready {
		return doc, err // the tick goes on with it
	}
	if err := f.queues.Send(ctx, doc.Request.Host, doc.Job()); err != nil {
		return nil, err
	}
	invoke.Log(ctx).Info("sent", "restore", doc.ID, "job", doc.ID, "host", doc.Request.Host)
	return f.update(ctx, doc.ID, func(doc *control.Restore) error {
		doc.MarkSent(f.now())
		return nil
	})
}

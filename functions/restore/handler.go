package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// cloud is where policy and repository come from.
type cloud interface {
	Policy(ctx context.Context) (*policy.Policy, string, error)
	Repository(ctx context.Context, p *policy.Policy) (*repository.Repository, error)
}

// queues are the hosts' queues.
type queues interface {
	Send(ctx context.Context, host string, job *events.Job) error
}

type function struct {
	cloud  cloud
	state  statestore.Store
	queues queues
	now    func() time.Time
}

// request is what a person sends. docs/runbook.md, "Restoring over the queue", has examples.
type request struct {
	Action string `json:"action"`

	// What is wanted: plan and request.
	Source   string          `json:"source"`   // host/source
	Snapshot uint64          `json:"snapshot"` // 0: the newest, or the newest at At
	At       time.Time       `json:"at"`
	Paths    []string        `json:"paths"`
	Host     string          `json:"host"` // on which it runs; empty: that of the source
	Target   string          `json:"target"`
	InPlace  bool            `json:"in_place"`
	Reason   string          `json:"reason"`
	Expires  policy.Duration `json:"expires"` // how long the request is valid; 0: a day, and the time to thaw
	Thaw     string          `json:"thaw"`    // how fast archived packs are thawed: standard (also empty) or bulk

	// approve; or request with one that "holdfast approve request" wrote.
	Order *events.RestoreOrder `json:"order"`

	ID string `json:"id"` // status, send, cancel
	By string `json:"by"` // cancel
}

// The actions.
const (
	actionPlan    = "plan"
	actionRequest = "request"
	actionApprove = "approve"
	actionSend    = "send"
	actionStatus  = "status"
	actionList    = "list"
	actionCancel  = "cancel"
	actionFollow  = "follow" // the schedule's
)

func (f *function) handle(ctx context.Context, payload json.RawMessage) (any, error) {
	if e, err := events.DecodeEnvelope(payload); err == nil {
		return f.event(ctx, e)
	}
	r := request{}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields() // a misspelt member would be a restore of something else
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("decode request: %w", err)
	}
	switch r.Action {
	case actionPlan:
		return f.plan(ctx, r)
	case actionRequest:
		return f.request(ctx, r)
	case actionApprove:
		return f.approve(ctx, r)
	case actionSend:
		return f.again(ctx, r)
	case actionStatus:
		return f.status(ctx, r)
	case actionList:
		return f.list(ctx)
	case actionCancel:
		return f.cancel(ctx, r)
	case actionFollow:
		return f.follow(ctx)
	}
	actions := []string{actionPlan, actionRequest, actionApprove, actionSend, actionStatus, actionList, actionCancel, actionFollow}
	return nil, fmt.Errorf("unknown action %q: want one of %s", r.Action, strings.Join(actions, ", "))
}

// update changes the document of a restore that there is.
func (f *function) update(ctx context.Context, id string, change func(*control.Restore) error) (*control.Restore, error) {
	if !events.IsID(id) {
		return nil, fmt.Errorf("id %q: want 32 lower-case hexadecimal digits", id)
	}
	var doc *control.Restore
	err := statestore.Update(ctx, f.state, control.RestoreKey(id), func(r *control.Restore) error {
		if r.Request == nil {
			return fmt.Errorf("restore %s: %w", id, statestore.ErrNotExist)
		}
		doc = r
		return change(r)
	})
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// status answers with the document.
func (f *function) status(ctx context.Context, r request) (any, error) {
	return f.update(ctx, r.ID, func(doc *control.Restore) error {
		if !doc.Expire(f.now()) {
			return statestore.ErrUnchanged
		}
		return nil
	})
}

// line is one restore in a list.
type line struct {
	ID       string                `json:"id"`
	Status   control.RestoreStatus `json:"status"`
	Source   string                `json:"source"`
	Snapshot uint64                `json:"snapshot"`
	Host     string                `json:"host"`
	Created  time.Time             `json:"created"`
	Signers  []string              `json:"signers,omitempty"`
}

// list answers with all restores, the newest first.
func (f *function) list(ctx context.Context) (any, error) {
	docs, err := f.all(ctx)
	if len(docs) == 0 && err != nil {
		return nil, err
	}
	if err != nil {
		invoke.Log(ctx).Error("not all restores can be listed", "error", err.Error())
	}
	out := []line{}
	for _, doc := range docs {
		doc.Expire(f.now())
		q := doc.Request
		out = append(out, line{doc.ID, doc.Status, q.Source, q.Snapshot, q.Host, q.Created, doc.Signers})
	}
	slices.SortFunc(out, func(a, b line) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// all reads the documents of all restores. Those that can't be read are an error beside the others.
func (f *function) all(ctx context.Context) ([]*control.Restore, error) {
	var keys []string
	err := f.state.List(ctx, control.RestoresPrefix, func(key string) error {
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list restores: %w", err)
	}
	var out []*control.Restore
	var errs []error
	for _, key := range keys {
		doc, _, err := statestore.Read[control.Restore](ctx, f.state, key)
		if errors.Is(err, statestore.ErrNotExist) || err == nil && doc.Request == nil {
			continue
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, doc)
	}
	return out, errors.Join(errs...)
}

// cancel ends a restore that no agent has begun.
func (f *function) cancel(ctx context.Context, r request) (any, error) {
	if r.By == "" {
		return nil, errors.New("cancel: by is empty: say who cancels")
	}
	doc, err := f.update(ctx, r.ID, func(doc *control.Restore) error { return doc.Cancel(r.By, f.now()) })
	if err == nil {
		invoke.Log(ctx).Info("cancelled", "restore", r.ID, "by", r.By)
	}
	return doc, err
}

// event enters what an agent reports about a restore. Reports about other jobs, and about restores that nobody knows
// here, are for others.
func (f *function) event(ctx context.Context, e *events.Envelope) (any, error) {
	id, change, err := f.told(e)
	if err != nil || change == nil {
		return nil, err
	}
	_, err = f.update(invoke.WithJob(ctx, id), id, func(doc *control.Restore) error {
		if !change(doc) {
			return statestore.ErrUnchanged
		}
		return nil
	})
	if errors.Is(err, statestore.ErrNotExist) {
		invoke.Log(ctx).Info("a restore that is not known here", "restore", id)
		return nil, nil
	}
	return nil, err
}

// told says which restore an event is about and what it changes; nothing for events of other jobs.
func (f *function) told(e *events.Envelope) (id string, change func(*control.Restore) bool, err error) {
	now := f.now()
	sender, ok := events.SentBy(e.Source)
	var named struct {
		Host string `json:"host"`
	}
	if err := json.Unmarshal(e.Detail, &named); ok && (err != nil || named.Host != sender) {
		return "", nil, fmt.Errorf("event %s: the agent of host %s speaks in the name of another", e.ID, sender)
	}
	if !ok {
		return "", nil, nil
	}
	switch e.DetailType {
	case events.TypeJobAccepted:
		d, err := events.DecodeJobAccepted(e.Detail)
		if err != nil || d.Kind != events.Restore {
			return "", nil, err
		}
		return d.Job, func(r *control.Restore) bool { return r.Accepted(d, now) }, nil
	case events.TypeJobRefused:
		d, err := events.DecodeJobRefused(e.Detail)
		if err != nil || d.Kind != events.Restore || !events.IsID(d.Job) {
			return "", nil, err
		}
		return d.Job, func(r *control.Restore) bool { return r.Refuse(d, now) }, nil
	case events.TypeJobFinished:
		d, err := events.DecodeJobFinished(e.Detail)
		if err != nil || d.Kind != events.Restore {
			return "", nil, err
		}
		return d.Job, func(r *control.Restore) bool { return r.Finish(d, now) }, nil
	}
	return "", nil, nil
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// Defaults of the environment.
const (
	// period is the time in which all bytes are read again.
	period = 30 * 24 * time.Hour
	// rangeBytes is how much of a source one invocation is asked to read; of what is larger, several read at the same time.
	rangeBytes = 64 << 30
)

// backend opens the repository.
type backend interface {
	// Repository opens it anew, so that signers that were added since are known.
	Repository(ctx context.Context) (*repository.Repository, error)
}

// cloudBackend is the repository of the policy, or the copy that the environment names: the policy is not known where that
// is.
type cloudBackend struct {
	*invoke.Cloud
	isCopy bool
}

func (b cloudBackend) Repository(ctx context.Context) (*repository.Repository, error) {
	p := &policy.Policy{}
	if !b.isCopy {
		var err error
		if p, _, err = b.Policy(ctx); err != nil {
			return nil, err
		}
	}
	repo, err := b.Cloud.Repository(ctx, p)
	if err != nil {
		return nil, err
	}
	// The process may be hours old: whoever was given rights meanwhile would pass for a stranger.
	return repository.Open(ctx, repo.Store(), repo.Identity())
}

// function is the function with what it works on.
type function struct {
	env     environment.Verify
	backend backend
	state   statestore.Store
	queue   rangeQueue // nil: there is none
	out     io.Writer  // of metrics
	now     func() time.Time
}

func newFunction(env environment.Verify, b backend, state statestore.Store, q rangeQueue) *function {
	env.Period, env.Range = cmp.Or(env.Period, period), cmp.Or(env.Range, rangeBytes)
	return &function{env: env, backend: b, state: state, queue: q, out: os.Stdout, now: time.Now}
}

// handle serves a batch of the queue, or a tick.
func (f *function) handle(ctx context.Context, payload json.RawMessage) (any, error) {
	if invoke.IsMessages(payload) {
		return f.messages(ctx, payload)
	}
	tick, err := events.DecodeTick(payload)
	if err != nil {
		return nil, err
	}
	return f.rotate(ctx, tick)
}

// options are those of all checks.
func (f *function) options() verify.Options {
	return verify.Options{Record: true, Place: layout.ReceiptCloud, Copy: f.env.Copy, Workers: f.env.Workers, Now: f.now}
}

// report logs what was found and leaves it for monitor. What one of replaces had said before is over if it was not
// found again.
func (f *function) report(ctx context.Context, src snapshot.Source, by string, found []verify.Finding, replaces ...string) error {
	list := make([]control.Finding, 0, len(found))
	for _, at := range found {
		one := control.Finding{By: by, Key: at.Key, Problem: string(at.Problem), Detail: at.Detail, Warning: at.Warning}
		for _, id := range at.Snapshots {
			one.Snapshots = append(one.Snapshots, id.Sequence)
		}
		list = append(list, one)
		say := invoke.Log(ctx).Error
		if at.Warning {
			say = invoke.Log(ctx).Warn
		}
		say("finding", "source", src.String(), "key", at.Key, "problem", at.Problem, "detail", at.Detail, "snapshots", one.Snapshots)
	}
	if len(list) == 0 && len(replaces) == 0 {
		return nil
	}
	key := control.VerifyFindingsKey(src)
	err := statestore.Update(ctx, f.state, key, func(doc *control.Findings) error {
		if !doc.Note(src, f.now(), list, replaces...) {
			return statestore.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("leave the findings about %s: %w", src, err)
	}
	return nil
}

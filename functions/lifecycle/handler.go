package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

const (
	// every is the time between two passes over a source, where the environment names none: daily, with an hourly schedule.
	every = 20 * time.Hour
	// shardSources is how many sources one invocation takes where the environment names no other number: at seven seconds
	// for each, which is what comparing with another region takes, they fit into its fifteen minutes; what does not has its
	// turn in the next hour.
	shardSources = 100
	// staleOrder is how old a tick from the queue may be.
	staleOrder = time.Hour
)

// order is what calls the function: a tick of its schedule, or a person's.
type order struct {
	Version int               `json:"version"`
	Time    time.Time         `json:"time"`
	Shard   int               `json:"shard"`
	Shards  int               `json:"shards"`
	DryRun  bool              `json:"dry_run"` // change nothing, tell what would be
	Sources []string          `json:"sources"` // host/source; empty: those whose turn it is
	Confirm map[string]string `json:"confirm"` // by host/source: the plan that a person agrees to
}

// decodeOrder is strict: a word that is misspelt must not turn a dry run into another.
func decodeOrder(payload []byte) (*order, []snapshot.Source, error) {
	o := &order{}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(o); err != nil {
		return nil, nil, fmt.Errorf("decode order: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("decode order: more than one document")
	}
	if o.Shard < 0 || o.Shards < 0 || o.Shard > 0 && o.Shard >= o.Shards {
		return nil, nil, errors.New("decode order: no such shard")
	}
	var sources []snapshot.Source
	named := map[string]bool{}
	for _, name := range o.Sources {
		src, err := snapshot.ParseSource(name)
		if err != nil {
			return nil, nil, fmt.Errorf("decode order: %w", err)
		}
		named[src.String()] = true
		sources = append(sources, src)
	}
	for name := range o.Confirm {
		if !named[name] {
			return nil, nil, fmt.Errorf("decode order: what is agreed to must be among the sources: %s", name)
		}
	}
	return o, sources, nil
}

// opened is what a pass works on.
type opened struct {
	repo   *repository.Repository
	policy *policy.Policy
	stale  string // why the policy may be an older one: nothing is removed then; empty: it is the one in force
}

// backend opens repositories.
type backend interface {
	// Open opens the repository anew, so that signers that were added since are known, and reads the policy.
	Open(ctx context.Context) (*opened, error)
	// Primary opens what the repository is the replica of, with the identity of repo; nil in the first region.
	Primary(ctx context.Context, repo *repository.Repository) (*repository.Repository, error)
}

// function is the function with what it works on.
type function struct {
	env     environment.Lifecycle
	rules   lock.Rules
	backend backend
	state   statestore.Store
	freezes statestore.Store // where restores freeze removals: the state of the first region
	queue   tickQueue        // nil: one invocation has all sources
	now     func() time.Time
}

// replica reports whether it tends the replica, in the second region.
func (f *function) replica() bool { return f.env.Primary != "" }

func newFunction(env environment.Lifecycle, b backend, state, freezes statestore.Store, q tickQueue) (*function, error) {
	env.Every, env.Shard = cmp.Or(env.Every, every), cmp.Or(env.Shard, shardSources)
	f := &function{
		env: env, backend: b, state: state, freezes: freezes, queue: q, now: time.Now,
		rules: lock.Rules{Mode: objstore.LockMode(env.Lock), Default: env.Default},
	}
	switch f.rules.Mode {
	case "", objstore.Governance, objstore.Compliance:
		return f, nil
	}
	return nil, fmt.Errorf("lock mode %q: want %s or %s, or none", env.Lock, objstore.Governance, objstore.Compliance)
}

// handle takes a tick of the schedule, an order of a person, or what an earlier tick has put into the function's queue.
func (f *function) handle(ctx context.Context, payload json.RawMessage) (any, error) {
	if invoke.IsMessages(payload) {
		return invoke.Messages(ctx, payload, f.message)
	}
	o, sources, err := decodeOrder(payload)
	if err != nil {
		return nil, err
	}
	return f.order(ctx, o, sources)
}

// message takes the tick of one shard. One that waited for long is dropped: a newer one has done or will do its work.
func (f *function) message(ctx context.Context, m invoke.Message) error {
	o, sources, err := decodeOrder(m.Body)
	switch {
	case err != nil:
		return err
	case o.Shards == 0 || len(sources) > 0:
		return errors.New("decode message: not a tick of a shard")
	case f.now().Sub(o.Time) > staleOrder:
		invoke.Log(ctx).Info("tick dropped: a newer one has done or will do its work", "time", o.Time)
		return nil
	}
	_, err = f.order(ctx, o, nil)
	return err
}

func (f *function) order(ctx context.Context, o *order, sources []snapshot.Source) (any, error) {
	on, err := f.backend.Open(ctx)
	if err != nil {
		return nil, err
	}
	shards := f.shards(on.policy)
	switch {
	case o.Shards == 0 && len(sources) == 0 && shards > 1 && !o.DryRun:
		return f.fan(ctx, o, shards)
	case o.Shards == 0 && len(sources) > 0:
		// Under the lease of those who have the source's turn.
		o.Shard, o.Shards = control.ShardOf(sources[0].Host, shards), shards
		for _, src := range sources {
			if control.ShardOf(src.Host, shards) != o.Shard {
				return nil, fmt.Errorf("order: %s and %s are in different shards: order the sources of one host at a time", sources[0], src)
			}
		}
	}
	p := &pass{function: f, order: o, opened: on}
	if p.primary, err = f.backend.Primary(ctx, on.repo); err != nil {
		// The replica has its pass all the same; that it can't be compared is told of each source.
		p.primaryErr = err
		invoke.Log(ctx).Error("the primary can not be opened", "error", err.Error())
	}
	return p.run(ctx, sources)
}

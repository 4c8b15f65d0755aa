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
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// every is the time between two passes over a source, where the environment names none: daily, with an hourly schedule.
const every = 20 * time.Hour

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

// backend opens repositories.
type backend interface {
	// Repository opens the repository anew, so that signers that were added since are known, and reads the policy.
	Repository(ctx context.Context) (*repository.Repository, *policy.Policy, error)
	// Replica opens the replica with the identity of repo; nil if there is none.
	Replica(ctx context.Context, repo *repository.Repository) (*repository.Repository, error)
}

// cloudBackend is the repository of the policy, and the replica of the environment.
type cloudBackend struct {
	*invoke.Cloud
	replica string
}

func (b cloudBackend) Repository(ctx context.Context) (*repository.Repository, *policy.Policy, error) {
	p, _, err := b.Policy(ctx)
	if err != nil {
		return nil, nil, err
	}
	repo, err := b.Cloud.Repository(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	repo, err = repository.Open(ctx, repo.Store(), repo.Identity())
	return repo, p, err
}

func (b cloudBackend) Replica(ctx context.Context, repo *repository.Repository) (*repository.Repository, error) {
	if b.replica == "" {
		return nil, nil
	}
	store, err := open.Open(ctx, b.replica, open.Options{})
	if err != nil {
		return nil, fmt.Errorf("open the replica: %w", err)
	}
	replica, err := repository.Open(ctx, store, repo.Identity())
	if err != nil {
		return nil, fmt.Errorf("open the replica: %w", err)
	}
	if replica.ID() != repo.ID() {
		return nil, fmt.Errorf("open the replica: it is repository %s, not %s", replica.ID(), repo.ID())
	}
	return replica, nil
}

// function is the function with what it works on.
type function struct {
	env     environment.Lifecycle
	rules   lock.Rules
	backend backend
	state   statestore.Store
	now     func() time.Time
}

func newFunction(env environment.Lifecycle, b backend, state statestore.Store) (*function, error) {
	env.Every = cmp.Or(env.Every, every)
	f := &function{env: env, backend: b, state: state, now: time.Now, rules: lock.Rules{Mode: objstore.LockMode(env.Lock), Default: env.Default}}
	switch f.rules.Mode {
	case "", objstore.Governance, objstore.Compliance:
		return f, nil
	}
	return nil, fmt.Errorf("lock mode %q: want %s or %s, or none", env.Lock, objstore.Governance, objstore.Compliance)
}

func (f *function) handle(ctx context.Context, payload json.RawMessage) (any, error) {
	o, sources, err := decodeOrder(payload)
	if err != nil {
		return nil, err
	}
	repo, pol, err := f.backend.Repository(ctx)
	if err != nil {
		return nil, err
	}
	p := &pass{function: f, order: o, repo: repo, policy: pol}
	if p.replica, err = f.backend.Replica(ctx, repo); err != nil {
		// The primary has its pass all the same; what is wrong with the replica is told of each source.
		p.replicaErr = err
		invoke.Log(ctx).Error("the replica can not be opened", "error", err.Error())
	}
	return p.run(ctx, sources)
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// cloudBackend is the repository of the environment, or of the policy.
type cloudBackend struct {
	*invoke.Cloud
	first   *invoke.Cloud // the first region, which has the policy; nil: this is it
	primary string        // address of the repository there
}

func newBackend(env environment.Lifecycle) (cloudBackend, error) {
	cloud, err := invoke.Open(env.Cloud)
	if err != nil || env.Primary == "" {
		return cloudBackend{Cloud: cloud}, err
	}
	if env.PrimaryState == "" || env.PrimaryRegion == "" || env.Repository == "" {
		return cloudBackend{}, errors.New("the function tends a replica, and is not told all that it needs: HOLDFAST_PRIMARY_STATE_BUCKET, HOLDFAST_PRIMARY_REGION, HOLDFAST_REPOSITORY")
	}
	first, err := invoke.OpenIn(environment.Cloud{State: env.PrimaryState, Endpoint: env.Endpoint}, env.PrimaryRegion)
	return cloudBackend{cloud, first, env.Primary}, err
}

// freezes is where restores freeze removals.
func (b cloudBackend) freezes() statestore.Store {
	if b.first != nil {
		return b.first.State
	}
	return b.State
}

// Open implements [backend].
func (b cloudBackend) Open(ctx context.Context) (*opened, error) {
	on := &opened{}
	var err error
	if b.first == nil {
		on.policy, _, err = b.Policy(ctx)
	} else {
		on.policy, on.stale, err = b.fromFirst(ctx)
	}
	if err != nil {
		return nil, err
	}
	repo, err := b.Repository(ctx, on.policy)
	if err != nil {
		return nil, err
	}
	on.repo, err = repository.Open(ctx, repo.Store(), repo.Identity())
	return on, err
}

// fromFirst reads the policy of the first region, which is the one in force. A first region that is gone must not take the
// locks of the replica with it: then the copy in its own region says for how long things are kept, and nothing is removed.
func (b cloudBackend) fromFirst(ctx context.Context) (p *policy.Policy, stale string, err error) {
	p, _, err = b.first.Policy(ctx)
	if err == nil {
		return p, "", nil
	}
	p, _, own := b.Policy(ctx)
	if own != nil {
		return nil, "", errors.Join(err, own)
	}
	invoke.Log(ctx).Error("the first region does not tell its policy: the copy here extends locks, and nothing is removed", "error", err.Error())
	return p, "the first region does not tell its policy, and may be restoring", nil
}

// Primary implements [backend].
func (b cloudBackend) Primary(ctx context.Context, repo *repository.Repository) (*repository.Repository, error) {
	if b.primary == "" {
		return nil, nil
	}
	store, err := invoke.Store(ctx, b.primary)
	if err != nil {
		return nil, fmt.Errorf("open the primary: %w", err)
	}
	primary, err := repository.Open(ctx, store, repo.Identity())
	if err != nil {
		return nil, fmt.Errorf("open the primary: %w", err)
	}
	if primary.ID() != repo.ID() {
		return nil, fmt.Errorf("open the primary: it is repository %s, not %s", primary.ID(), repo.ID())
	}
	return primary, nil
}

package invoketest

import (
	"context"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// Account stands in for an invoke.Cloud: it has the policy and the repository that functions ask for.
type Account struct {
	File *policy.Policy
	Repo *repository.Repository
	Err  error // of reading the policy
}

// Policy returns the policy, with a tag that never changes.
func (a *Account) Policy(context.Context) (*policy.Policy, string, error) {
	return a.File, "tag", a.Err
}

// Repository returns the repository, whatever the policy says.
func (a *Account) Repository(context.Context, *policy.Policy) (*repository.Repository, error) {
	return a.Repo, nil
}

package repair

import (
	"bytes"
	"context"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/overlay"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// open opens the copy and the repository, after the repository's own documents have been put back where they have to be.
func (r *run) open(ctx context.Context) error {
	var err error
	planned := overlay.Store{Documents: map[string][]byte{}}
	if r.opts.From != nil {
		if r.from, err = repository.Open(ctx, r.opts.From, r.identity); err != nil {
			return fmt.Errorf("open the copy: %w", err)
		}
		if planned.Documents, err = r.repairRepository(ctx); err != nil {
			return err
		}
	}
	if r.opts.DryRun && len(planned.Documents) > 0 {
		planned.Under = r.store
		r.repo, err = repository.Open(ctx, planned, r.identity)
		return err
	}
	r.repo, err = repository.Open(ctx, r.store, r.identity)
	return err
}

// repairRepository puts the repository's own document and the access documents back, and returns those that it put.
//
//  1. Both sides are read. One document that is the same in both proves that they are the same repository.
//  2. Where the repository can be opened, documents that differ are no damage but a fork.
//  3. Together with the copy's documents it must open. Only then they are put, in ascending order, the repository's own
//     first. A crash leaves some: the next run goes on.
func (r *run) repairRepository(ctx context.Context) (map[string][]byte, error) {
	type planned struct{ key, problem string }
	var plan []planned
	docs, same, differs := map[string][]byte{}, false, ""
	for _, key := range repositoryKeys(r.from.Access().Sequence) {
		theirs, err := objstore.ReadAll(ctx, r.from.Store(), key, maxDocument)
		if err != nil {
			return nil, fmt.Errorf("the copy: read %s: %w", key, err)
		}
		problem := "is not the document that the copy has"
		ours, err := objstore.ReadAll(ctx, r.store, key, maxDocument)
		if err != nil {
			if problem, err = trouble(ctx, err); err != nil {
				return nil, fmt.Errorf("read %s: %w", key, err)
			}
		}
		if bytes.Equal(ours, theirs) {
			same = true
			continue
		}
		if problem != missing {
			differs = key
		}
		docs[key] = theirs
		plan = append(plan, planned{key, problem})
	}
	if len(plan) == 0 {
		return nil, nil
	}
	if !same {
		return nil, fmt.Errorf("%w: no document of repository %s is here", ErrNotCopy, r.from.ID())
	}
	if _, err := repository.Open(ctx, r.store, r.identity); err == nil && differs != "" {
		return nil, fmt.Errorf("%w: %s", ErrDiverged, differs)
	}
	again, err := repository.Open(ctx, overlay.Store{Under: r.store, Documents: docs}, r.identity)
	if err == nil && again.ID() != r.from.ID() {
		err = ErrNotCopy
	}
	if err != nil {
		return nil, fmt.Errorf("open the repository with the documents of the copy: %w", err)
	}
	for _, p := range plan {
		if err := r.putProven(ctx, Item{Key: p.key, Problem: p.problem}, docs[p.key]); err != nil {
			return nil, err
		}
	}
	return docs, nil
}

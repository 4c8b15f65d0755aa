package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// opener opens the repository of the policy.
type opener interface {
	Repository(ctx context.Context, p *policy.Policy) (*repository.Repository, error)
}

// stored looks into the repository.
type stored struct{ opener }

// Newest implements [manifests]. It lists the manifests of the source and reads the newest one that has a signature of
// its host, and those before it that tell when the chain's full and the newest differential were made.
func (s *stored) Newest(ctx context.Context, p *policy.Policy, src snapshot.Source) (control.Evidence, error) {
	repo, err := s.Repository(ctx, p)
	if err != nil {
		return control.Evidence{}, err
	}
	prefix := layout.ManifestPrefix(src)
	all := map[uint64]objstore.Info{}
	var numbers []uint64 // ascending, as listed
	err = repo.Store().List(ctx, prefix, func(i objstore.Info) error {
		if n, err := layout.ParseNumbered(prefix, i.Key); err == nil { // else it is no manifest
			all[n], numbers = i, append(numbers, n)
		}
		return nil
	})
	if err != nil {
		return control.Evidence{}, fmt.Errorf("list %s: %w", prefix, err)
	}
	source, err := p.Lookup(src.Host, src.Name)
	if err != nil {
		return control.Evidence{}, err
	}
	var e control.Evidence
	start := uint64(0)
	for reads, at := 0, len(numbers)-1; at >= 0 && reads < maxReads; reads, at = reads+1, at-1 {
		m, err := read(ctx, repo, all[numbers[at]])
		if err != nil {
			return control.Evidence{}, err
		}
		if m == nil {
			continue
		}
		found := evidence(m, all[numbers[at]].Modified)
		if e.Sequence == 0 {
			e, start = found, m.ChainStart
		}
		e.Settled = e.Settled.Settle(found.Type, found.Started)
		if m.Type != snapshot.Incremental || source.Schedule.Differential.IsZero() {
			break
		}
	}
	if e.Sequence > 0 && e.Settled.Full.IsZero() && start > 0 {
		m, err := read(ctx, repo, all[start])
		if err != nil {
			return control.Evidence{}, err
		}
		if m != nil {
			e.Settled = e.Settled.Settle(m.Type, evidence(m, all[start].Modified).Started)
		}
	}
	return e, nil
}

// maxReads is how many manifests are read at most.
const maxReads = 12

// read reads a manifest; nil if it is not there or proves nothing.
func read(ctx context.Context, repo *repository.Repository, i objstore.Info) (*snapshot.Manifest, error) {
	if i.Key == "" {
		return nil, nil // pruned
	}
	m := &snapshot.Manifest{}
	_, err := repo.Document(ctx, i.Key, m)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		return nil, nil // pruned meanwhile
	case errors.Is(err, keyring.ErrUntrusted), errors.Is(err, keyring.ErrUnsigned), errors.Is(err, keyring.ErrSignature),
		errors.Is(err, snapshot.ErrFormat), errors.Is(err, snapshot.ErrUnsupported):
		invoke.Log(ctx).Error("a manifest proves nothing", "key", i.Key, "error", err.Error())
		return nil, nil
	case err != nil:
		return nil, err
	case m.Unfinished:
		return nil, nil // its run was still at work, and may have been cut off: it is asked for until it has come to its end
	}
	return m, nil
}

func evidence(m *snapshot.Manifest, arrived time.Time) control.Evidence {
	return control.Evidence{Sequence: m.Sequence, Type: m.Type, Partial: m.Partial, Started: schedule.Began(m, arrived), Arrived: arrived}
}

// Arrived implements [manifests].
func (s *stored) Arrived(ctx context.Context, p *policy.Policy, id snapshot.ID) (time.Time, error) {
	repo, err := s.Repository(ctx, p)
	if err != nil {
		return time.Time{}, err
	}
	i, err := repo.Store().Stat(ctx, layout.ManifestKey(id))
	if errors.Is(err, objstore.ErrNotExist) {
		return time.Time{}, nil
	}
	return i.Modified, err
}

// Proofs implements [manifests].
func (s *stored) Proofs(ctx context.Context, p *policy.Policy, src snapshot.Source) (schedule.Proofs, error) {
	repo, err := s.Repository(ctx, p)
	if err != nil {
		return schedule.Proofs{}, err
	}
	return observe.Proofs(ctx, repo, src)
}

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// slots is the policy's limit of backups at once, over all hosts and all shards.
type slots struct {
	state statestore.Store
	limit int // 0: none

	mu      sync.Mutex
	granted map[string]bool // guarded by mu
}

// has reports whether the run may begin.
func (s *slots) has(first string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit == 0 || s.granted[first]
}

// reserve takes slots for runs, the first ones first. One that is asked for again does not wait: it has waited before, and is
// behind its time. It counts from then on, so that new ones begin when there is room again.
func (s *slots) reserve(ctx context.Context, orders []order, now time.Time) error {
	if s.limit == 0 || len(orders) == 0 {
		return nil
	}
	var got map[string]bool
	err := statestore.Update(ctx, s.state, control.SlotsKey, func(d *control.Slots) error {
		got = map[string]bool{}
		before := len(d.Held)
		for _, o := range orders {
			if !o.New {
				d.Put(o.First, control.Slot{Host: o.host, Source: o.Source, Since: now})
			}
		}
		for _, o := range orders {
			if o.New {
				got[o.First] = d.Take(o.First, control.Slot{Host: o.host, Source: o.Source, Since: now}, s.limit)
			}
		}
		d.Version = 1
		if len(d.Held) == before {
			return statestore.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return err // nothing begins: a limit that can't be looked up holds
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for first, ok := range got {
		s.granted[first] = ok
	}
	return nil
}

// release frees the slots of runs that have ended.
func (s *slots) release(ctx context.Context, firsts []string) error {
	if s.limit == 0 || len(firsts) == 0 {
		return nil
	}
	return statestore.Update(ctx, s.state, control.SlotsKey, func(d *control.Slots) error {
		if !d.Release(firsts...) {
			return statestore.ErrUnchanged
		}
		return nil
	})
}

// clean frees slots of runs that are not at work: those of a crash, of hosts that left the policy or take no job, and those
// whose attempt has failed and that wait for the next.
func (s *slots) clean(ctx context.Context, p *policy.Policy, now time.Time) error {
	d, tag, err := statestore.Read[control.Slots](ctx, s.state, control.SlotsKey)
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		return nil
	case err != nil && tag != "":
		// Damaged: who has a slot is forgotten, which is better than that nobody gets one.
		invoke.Log(ctx).Error("document is damaged and begun anew", "key", control.SlotsKey, "error", err.Error())
		return s.state.Delete(ctx, control.SlotsKey, tag)
	case err != nil:
		return err
	}
	var over []string
	for _, first := range d.Doubtful(now) {
		if _, err := p.Lookup(d.Held[first].Host, d.Held[first].Source); err != nil {
			over = append(over, first)
			continue
		}
		h, _, err := statestore.Read[control.HostJobs](ctx, s.state, control.JobsKey(d.Held[first].Host))
		switch {
		case errors.Is(err, statestore.ErrNotExist):
			over = append(over, first)
		case err != nil:
			return err
		case !h.Runs(first):
			over = append(over, first)
		}
	}
	return s.release(ctx, over)
}

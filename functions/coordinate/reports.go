package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// report is one event of an agent.
type report struct {
	message int    // index in the batch
	host    string // whose agent has sent it
	forged  string // the host in whose name it was sent, if that is another
	when    time.Time

	accepted  *events.JobAccepted
	refused   *events.JobRefused
	finished  *events.JobFinished
	heartbeat *events.Heartbeat
}

// decodeReport reads an event as EventBridge delivers it.
func decodeReport(body []byte, now time.Time) (report, error) {
	e, err := events.DecodeEnvelope(body)
	if err != nil {
		return report{}, err
	}
	r := report{when: e.Time}
	if r.when.IsZero() || r.when.After(now) || now.Sub(r.when) > 24*time.Hour {
		r.when = now // the time of the bus; one that it can't have seen is not believed
	}
	sender, ok := events.SentBy(e.Source)
	if !ok {
		return report{}, fmt.Errorf("decode event: from %q, not from an agent", e.Source)
	}
	named := ""
	switch e.DetailType {
	case events.TypeJobAccepted:
		if r.accepted, err = events.DecodeJobAccepted(e.Detail); err == nil {
			named = r.accepted.Host
		}
	case events.TypeJobRefused:
		if r.refused, err = events.DecodeJobRefused(e.Detail); err == nil {
			named = r.refused.Host
		}
	case events.TypeJobFinished:
		if r.finished, err = events.DecodeJobFinished(e.Detail); err == nil {
			named = r.finished.Host
		}
	case events.TypeHeartbeat:
		if r.heartbeat, err = events.DecodeHeartbeat(e.Detail); err == nil {
			named = r.heartbeat.Host
		}
	default:
		err = fmt.Errorf("decode event: unknown type %q", e.DetailType)
	}
	if err == nil && named != sender {
		// The rights of the agent's role are made so that the source can't be another's.
		return report{host: sender, forged: named, when: r.when}, nil
	}
	r.host = sender
	return r, err
}

// reports takes events, those of one host together and in the order of the bus. Where a host's document can't be
// written, all its messages fail and come again: taking an event twice does no harm.
func (c *coordinator) reports(ctx context.Context, all []report, failed []error) {
	if len(all) == 0 {
		return
	}
	p, _, err := c.policy(ctx)
	if err != nil {
		for _, r := range all {
			failed[r.message] = err
		}
		return
	}
	hosts := map[string][]report{}
	for _, r := range all {
		if p.Hosts[r.host] == nil {
			// Of a host that was removed, or that nobody knows: it gets no document.
			invoke.Log(ctx).Warn("event of a host that is not in the policy", "host", r.host)
			continue
		}
		hosts[r.host] = append(hosts[r.host], r)
	}
	group := errgroup.Group{}
	group.SetLimit(parallel)
	s := &slots{state: c.state, limit: p.Limits.Concurrent}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		group.Go(func() error {
			err := c.take(ctx, p, host, hosts[host], s)
			for _, r := range hosts[host] {
				failed[r.message] = err // each message is of one host: nobody else writes here
			}
			return nil
		})
	}
	_ = group.Wait() // errors are in failed
}

// take takes the events of one host.
func (c *coordinator) take(ctx context.Context, p *policy.Policy, host string, reports []report, s *slots) error {
	slices.SortStableFunc(reports, func(a, b report) int { return a.when.Compare(b.when) })
	taker := &taker{coordinator: c, p: p, host: host, arrived: map[snapshot.ID]time.Time{}, proofs: map[snapshot.Source]schedule.Proofs{}}
	err := statestore.Update(ctx, c.state, control.JobsKey(host), func(h *control.HostJobs) error {
		taker.closed, taker.changed = nil, h.Host == ""
		h.Version, h.Host = 1, host
		for _, r := range reports {
			if err := taker.take(ctx, h, r); err != nil {
				return err
			}
		}
		if !taker.changed {
			return statestore.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.release(ctx, taker.closed)
}

// taker puts events into the document of a host.
type taker struct {
	*coordinator
	p       *policy.Policy
	host    string
	arrived map[snapshot.ID]time.Time           // of manifests that were looked up; the document may be changed several times
	proofs  map[snapshot.Source]schedule.Proofs // likewise
	changed bool
	closed  []string
}

func (t *taker) take(ctx context.Context, h *control.HostJobs, r report) error {
	changed := false
	var closed []string
	switch {
	case r.forged != "":
		invoke.Log(ctx).Error("an event in the name of another host", "host", t.host, "named", r.forged)
		changed = h.TakeForged(r.forged, r.when)
	case r.accepted != nil:
		changed = h.TakeAccepted(r.accepted, r.when)
		invoke.Log(ctx).Debug("accepted", "job", r.accepted.Job, "host", t.host)
	case r.refused != nil:
		changed, closed = h.TakeRefused(r.refused, r.when)
		invoke.Log(ctx).Info("refused", "job", r.refused.Job, "host", t.host, "source", r.refused.Source, "code", r.refused.Code)
	case r.finished != nil:
		if err := t.finished(ctx, h, r.finished, r.when); err != nil {
			return err
		}
	case r.heartbeat != nil:
		var ends []*events.JobFinished
		changed, ends = h.TakeHeartbeat(r.heartbeat, t.limits, r.when)
		for _, e := range ends {
			if err := t.finished(ctx, h, e, r.when); err != nil {
				return err
			}
		}
	}
	t.changed = t.changed || changed
	t.closed = append(t.closed, closed...)
	return nil
}

// verified takes the end of a verification, with what the receipts of its source say.
func (t *taker) verified(ctx context.Context, h *control.HostJobs, e *events.JobFinished, when time.Time) error {
	var shown schedule.Proofs
	if h.News(e) {
		src := snapshot.Source{Host: t.host, Name: e.Source}
		at, ok := t.proofs[src]
		if !ok {
			var err error
			if at, err = t.manifests.Proofs(ctx, t.p, src); err != nil {
				return fmt.Errorf("look up what job %s has verified: %w", e.Job, err)
			}
			t.proofs[src] = at
		}
		shown = at
	}
	changed, closed := h.TakeVerified(e, shown, t.limits, when)
	t.changed = t.changed || changed
	t.closed = append(t.closed, closed...)
	invoke.Log(ctx).Info("verified", "job", e.Job, "host", t.host, "source", e.Source, "level", e.Type, "result", e.Result, "news", changed)
	return nil
}

// finished takes the end of a job, once the repository shows the snapshot of which it tells.
func (t *taker) finished(ctx context.Context, h *control.HostJobs, e *events.JobFinished, when time.Time) error {
	if e.Kind == events.Verify {
		return t.verified(ctx, h, e, when)
	}
	var arrived time.Time
	if h.News(e) && e.Result != events.Failed && e.Snapshot > 0 && e.Snapshot <= snapshot.MaxSequence {
		id := snapshot.ID{Source: snapshot.Source{Host: t.host, Name: e.Source}, Sequence: e.Snapshot}
		at, ok := t.arrived[id]
		if !ok {
			var err error
			if at, err = t.manifests.Arrived(ctx, t.p, id); err != nil {
				return fmt.Errorf("look up the snapshot %s that job %s made: %w", id, e.Job, err)
			}
			t.arrived[id] = at
		}
		if arrived = at; at.IsZero() {
			invoke.Log(ctx).Warn("an event tells of a snapshot that is not there", "job", e.Job, "snapshot", id.String())
		}
	}
	changed, closed := h.TakeFinished(e, arrived, t.limits, when)
	t.changed = t.changed || changed
	t.closed = append(t.closed, closed...)
	invoke.Log(ctx).Info("finished", "job", e.Job, "host", t.host, "source", e.Source, "result", e.Result, "snapshot", e.Snapshot,
		"news", changed)
	return nil
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// wanted is what a plan is for.
type wanted struct {
	src    snapshot.Source
	at     recovery.Selector
	host   string // on which it would run; empty: that of the source
	target string // empty: in place
	speed  recovery.Speed
	days   int // for which thawed copies stay; 0: as for a request of the usual length
}

// plan answers what a restore would mean. It changes nothing.
func (f *function) plan(ctx context.Context, r request) (any, error) {
	p, _, err := f.cloud.Policy(ctx)
	if err != nil {
		return nil, err
	}
	w, err := r.wanted()
	if err != nil {
		return nil, err
	}
	return f.planFor(ctx, p, w)
}

// wanted reads what a person asks for.
func (r *request) wanted() (w wanted, err error) {
	if w.src, err = snapshot.ParseSource(r.Source); err != nil {
		return w, err
	}
	switch w.speed = recovery.Speed(r.Thaw); w.speed {
	case "", recovery.Standard, recovery.Bulk:
	default:
		return w, fmt.Errorf("thaw %q: want %s or %s", r.Thaw, recovery.Standard, recovery.Bulk)
	}
	w.at, w.host, w.target = recovery.Selector{Sequence: r.Snapshot, At: r.At}, r.Host, r.Target
	return w, nil
}

// planFor reads the history of the source. The source need not be in the policy: that of a lost host may be gone from it.
func (f *function) planFor(ctx context.Context, p *policy.Policy, w wanted) (*recovery.Plan, error) {
	repo, err := f.cloud.Repository(ctx, p)
	if err != nil {
		return nil, err
	}
	h, err := observe.ReadReceipts(ctx, repo, w.src)
	if err != nil {
		return nil, err
	}
	facts := recovery.Facts{RPO: policy.DefaultRPO.Std(), Bytes: func(n uint64) (content, stored int64) {
		if m := manifest(h, n); m != nil {
			return int64(min(m.Counts.Bytes, 1<<62)), int64(min(m.Counts.PackBytes, 1<<62))
		}
		return 0, 0
	}}
	if s, err := p.Lookup(w.src.Host, w.src.Name); err == nil {
		facts.RPO = s.Objectives.RPO.Std()
	}
	var points []recovery.Point
	for _, s := range h.Compliance() {
		points = append(points, s.Point)
	}
	if m := h.Restored; m != nil && m.Failed == "" {
		facts.Measured = &recovery.Measured{Time: m.Time, Took: m.Took, Bytes: m.Bytes}
	}
	streams, err := log.Streams(ctx, repo, w.src)
	if err != nil {
		return nil, err
	}
	facts.Epochs, facts.Space = log.Epochs(streams), f.space(ctx, p, w)
	plan, err := recovery.MakePlan(points, w.at, facts, f.now())
	if err == nil {
		// Now that it is known which snapshot it is: what of it is in cold classes.
		if err := f.coldFacts(ctx, repo, manifest(h, plan.Selection.Point.Sequence), w, &facts); err != nil {
			return nil, err
		}
		plan, err = recovery.MakePlan(points, w.at, facts, f.now())
	}
	if err != nil {
		return nil, fmt.Errorf("plan a restore of %s: %w", w.src, err)
	}
	return plan, nil
}

// logUntil is up to when the log is to be applied to the snapshot of a plan; zero: it is that snapshot alone. Records'
// arrivals stand for their times here, and are later: none that arrived by then is left out. A moment of which nothing is
// known is an error: which state before or after it is meant, people must say.
func logUntil(plan *recovery.Plan, at time.Time) (time.Time, error) {
	s := &plan.Selection
	for _, gap := range plan.Window.Gaps {
		if !at.IsZero() && s.Reached.Before(at) && !gap.Open && !at.Before(gap.From) && at.Before(gap.To) && s.Log != nil {
			return time.Time{}, fmt.Errorf("nothing tells what was committed between %s and %s: %s; ask for a time before or after, or for a snapshot by its number",
				gap.From.UTC().Format(time.RFC3339), gap.To.UTC().Format(time.RFC3339), gap.Cause)
		}
	}
	if s.Log == nil {
		return time.Time{}, nil
	}
	return s.Reached.UTC(), nil
}

func manifest(h *observe.History, n uint64) *repository.Stored {
	for _, m := range h.Manifests {
		if m.Sequence == n {
			return m
		}
	}
	return nil
}

// coldFacts adds what of the snapshot is in cold classes.
func (f *function) coldFacts(ctx context.Context, repo *repository.Repository, m *repository.Stored, w wanted, facts *recovery.Facts) error {
	packs, err := coldPacks(ctx, repo, m)
	if passing(ctx, err) {
		return err
	}
	if err != nil {
		facts.Warnings = append(facts.Warnings, fmt.Sprintf("which packs it needs can not be read, nor what must be thawed: %v", err))
		return nil
	}
	days := w.days
	if days == 0 {
		days = int((defaultValid + control.FrozenBeyond) / (24 * time.Hour))
	}
	facts.Thawing = recovery.Thaw(count(packs, f.now()), w.speed, days)
	return nil
}

// space is the room at the target, as the agent told last; nil: it has not.
func (f *function) space(ctx context.Context, p *policy.Policy, w wanted) *recovery.Space {
	host := w.host
	if host == "" {
		host = w.src.Host
	}
	doc, err := f.jobsOf(ctx, host)
	if err != nil {
		invoke.Log(ctx).Warn("what the agent told can not be read", "host", host, "error", err.Error())
	}
	if doc == nil || err != nil {
		return nil
	}
	places := []string{w.target}
	if w.target == "" {
		places = nil
		if s, err := p.Lookup(w.src.Host, w.src.Name); err == nil && s.Files != nil && host == w.src.Host {
			places = s.Files.Roots
		}
	}
	var least *recovery.Space
	for _, place := range places {
		best := ""
		for dir := range doc.Free {
			if snapshot.Within(dir, place) && len(dir) > len(best) {
				best = dir
			}
		}
		if best == "" {
			continue
		}
		s := &recovery.Space{Path: best, Free: int64(min(doc.Free[best], 1<<62)), Time: doc.FreeAt}
		if least == nil || s.Free < least.Free {
			least = s
		}
	}
	return least
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// deleters is how many objects are deleted at the same time.
const deleters = 16

// sourceReport is what was decided and done about one source.
type sourceReport struct {
	Source    string               `json:"source"`
	DryRun    bool                 `json:"dry_run,omitempty"`
	Frozen    string               `json:"frozen,omitempty"`
	Decisions []retention.Decision `json:"decisions"`
	Shortened string               `json:"shortened,omitempty"`
	Prune     *prune.Report        `json:"prune,omitempty"`
	Waiting   *control.PlanWaiting `json:"waiting,omitempty"`
	Locks     *lockReport          `json:"locks,omitempty"`
	Cold      *coldReport          `json:"cold,omitempty"`
	Replica   *replicaReport       `json:"replica,omitempty"`
	Findings  []control.Finding    `json:"findings,omitempty"`
	Error     string               `json:"error,omitempty"`
}

// visit is a pass over one source.
type visit struct {
	*pass
	src    snapshot.Source
	doc    *control.LifecycleSource
	report *sourceReport
	found  []control.Finding
	looked []string // kinds of findings that this pass has looked for

	logBase uint64 // snapshot from which on the log stays; 0: all of it
}

// source has a pass over one source:
//
//  1. What is known of it is read; rules that are new are written down before anything follows from them.
//  2. What stays is locked for longer, and held. This comes first: nothing that follows can make it less.
//  3. Snapshots are announced, withdrawn and removed, unless removals are frozen or too many would go.
//  4. What is proven and old is tagged for a colder storage class. Versions and markers that nobody of ours has made are
//     looked for.
//  5. In the region of the replica the listing is compared with that of the primary.
//
// A crash between them repeats it all with the next invocation.
func (p *pass) source(ctx context.Context, src snapshot.Source) (*sourceReport, error) {
	v := &visit{pass: p, src: src, report: &sourceReport{Source: src.String(), DryRun: p.order.DryRun, Decisions: []retention.Decision{}}}
	err := v.run(ctx)
	v.overdue(ctx, err)
	v.report.Findings = v.found
	return v.report, errors.Join(err, v.write(ctx, err))
}

// patience is how long passes over a source may fail before people are told: locks are extended for longer than that.
const patience = 48 * time.Hour

// overdue tells of a source that has had no whole pass for long. Nothing else would: what is locked and decided is known
// from the last one, and stays as it was until the locks end.
func (v *visit) overdue(ctx context.Context, failed error) {
	v.looked = append(v.looked, "pass")
	if failed == nil || v.doc != nil && v.now().Sub(v.doc.Passed) < patience {
		return
	}
	why := failed.Error()
	if r := []rune(why); len(r) > 500 {
		why = string(r[:500]) + "…"
	}
	v.find(ctx, control.Finding{By: "pass", Key: v.src.String(), Problem: "the source had no whole pass for days", Detail: why})
}

func (v *visit) run(ctx context.Context) error {
	doc, _, err := statestore.Read[control.LifecycleSource](ctx, v.state, control.LifecycleSourceKey(v.src))
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		doc = &control.LifecycleSource{}
	case err != nil:
		return err
	}
	v.doc = doc
	if v.doc.Frozen, err = v.frozen(ctx); err != nil {
		return err
	}
	v.report.Frozen = v.doc.Frozen
	h, err := observe.Read(ctx, v.repo, v.src)
	if err != nil {
		return err
	}
	for _, m := range h.Manifests {
		v.doc.Seen = max(v.doc.Seen, m.Sequence)
	}
	decisions, err := v.decide(ctx, h)
	if err != nil {
		return err
	}
	v.report.Decisions = decisions
	var errs []error
	for _, step := range []func() error{
		func() error { return v.locks(ctx, h, decisions) },
		func() error { return v.prune(ctx, h, decisions) },
		func() error { return v.cold(ctx, h, decisions) },
		func() error { return v.versions(ctx) },
		func() error { return v.compare(ctx) },
	} {
		if err := step(); err != nil {
			if ctx.Err() != nil {
				return errors.Join(append(errs, ctx.Err())...)
			}
			errs = append(errs, err) // the others have nothing to do with it
		}
	}
	return errors.Join(errs...)
}

// frozen says why nothing may be removed. A first region that does not answer keeps the replica from removing, not from
// locking.
func (v *visit) frozen(ctx context.Context) (string, error) {
	if v.stale != "" {
		return v.stale, nil
	}
	why, err := control.SourceFrozen(ctx, v.freezes, v.src, v.now())
	if err != nil && v.replica() && ctx.Err() == nil {
		invoke.Log(ctx).Error("whether removals are frozen is not known: none is made", "source", v.src.String(), "error", err.Error())
		return "the first region does not answer, and may be restoring", nil
	}
	return why, err
}

// place names the repository in the journal.
func (v *visit) place() string {
	if v.replica() {
		return "replica"
	}
	return "primary"
}

// decide plans with the rules of the policy. A source that is not in the policy loses nothing.
func (v *visit) decide(ctx context.Context, h *observe.History) ([]retention.Decision, error) {
	rules := policy.Retention{}
	if s, err := v.policy.Lookup(v.src.Host, v.src.Name); err == nil {
		rules = s.Retention
	} else {
		invoke.Log(ctx).Warn("source is not in the policy: nothing of it is removed", "source", v.src.String())
	}
	now := v.now()
	rec, changed := v.doc.Retention.Update(rules, now)
	if changed && !v.order.DryRun {
		err := statestore.Update(ctx, v.state, control.LifecycleSourceKey(v.src), func(d *control.LifecycleSource) error {
			d.Version, d.Source, d.Retention = 1, v.src.String(), rec
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	v.doc.Retention = rec
	v.logBase = 0
	if n, ok := rec.LogBase(h.Retention(), now); ok {
		v.logBase = n
	}
	decisions, shortened, err := rec.Plan(h.Retention(), now)
	v.doc.Shortened = shortened
	v.looked = append(v.looked, "retention")
	if shortened != nil {
		v.report.Shortened = shortened.String()
		v.find(ctx, control.Finding{By: "retention", Key: v.src.String(), Problem: "retention was shortened", Detail: shortened.String(), Warning: true})
	}
	return decisions, err
}

// find notes something for the log and for monitor.
func (v *visit) find(ctx context.Context, f control.Finding) {
	v.found = append(v.found, f)
	say := invoke.Log(ctx).Error
	if f.Warning {
		say = invoke.Log(ctx).Warn
	}
	say("finding", "source", v.src.String(), "by", f.By, "key", f.Key, "problem", f.Problem, "detail", f.Detail)
}

// prune removes what retention drops.
func (v *visit) prune(ctx context.Context, h *observe.History, decisions []retention.Decision) error {
	if err := h.Broken(); err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	report, err := v.remove(ctx, decisions)
	v.report.Prune = report
	if report != nil {
		v.sum(report)
	}
	var many *retention.TooMany
	if errors.As(err, &many) {
		v.wait(ctx, report, many)
		return nil
	}
	if err == nil && v.doc.Frozen == "" {
		v.doc.Waiting = nil
	}
	return err
}

var (
	errFrozen = errors.New("removals were frozen meanwhile")
	errLimit  = errors.New("the limit of deletions in one run is reached")
)

// remove runs both phases of a removal. While removals are frozen nothing is done, not even announced.
func (v *visit) remove(ctx context.Context, decisions []retention.Decision) (*prune.Report, error) {
	if v.doc.Frozen != "" {
		return nil, nil
	}
	n := 0
	report, err := prune.Run(ctx, v.repo, v.src, prune.Options{
		Decisions: decisions, Seen: v.doc.Seen, LogBase: v.logBase, DryRun: v.order.DryRun, Confirm: v.order.Confirm[v.src.String()], Place: layout.ReceiptCloud,
		Receipts: true, Workers: deleters, Now: v.now,
		Journal: func(ctx context.Context, keys []string) error {
			n++
			return v.journal(ctx, keys, n)
		},
	})
	switch {
	case errors.Is(err, errFrozen):
		v.doc.Frozen, err = v.frozen(ctx)
		v.report.Frozen = v.doc.Frozen
	case errors.Is(err, errLimit):
		invoke.Log(ctx).Info("removals go on with the next run", "source", v.src.String(), "limit", v.env.Deletes)
		err = nil
	}
	return report, err
}

func (v *visit) sum(r *prune.Report) {
	locked := 0
	for _, k := range r.Kept {
		if k.Reason == prune.Locked {
			locked++
		}
	}
	v.doc.Last = &control.Pruned{
		Condemned: len(r.Condemned), Withdrawn: len(r.Withdrawn), Removed: len(r.Removed), Waiting: len(r.Waiting),
		Locked: locked, Packs: r.Packs, Freed: r.Freed,
	}
	v.out.Removed += len(r.Removed)
	v.out.Freed += r.Freed
}

// mostNamed bounds the snapshots that a waiting plan names.
const mostNamed = 1000

// wait stops and asks: the plan is written down, and goes on when a person calls the function with it.
func (v *visit) wait(ctx context.Context, r *prune.Report, many *retention.TooMany) {
	w := &control.PlanWaiting{Plan: r.Plan, Drop: many.Drop, Total: many.Total, Since: v.now().UTC()}
	for _, a := range r.Blocked[:min(len(r.Blocked), mostNamed)] {
		w.Snapshots = append(w.Snapshots, a.Snapshot.Sequence)
	}
	if old := v.doc.Waiting; old != nil && old.Plan == w.Plan {
		w.Since = old.Since
	}
	v.doc.Waiting, v.report.Waiting = w, w
	problem, where := "too many snapshots would go", ""
	if v.replica() {
		problem, where = "too many snapshots of the replica would go", " in the region of the replica"
	}
	v.find(ctx, control.Finding{
		By: "retention", Key: v.src.String(), Problem: problem, Warning: true,
		Detail: fmt.Sprintf(`%s: nothing is removed; call holdfast-lifecycle%s: look with {"dry_run":true,"sources":[%q]}, agree with {"sources":[%q],"confirm":{%q:%q}}`,
			many.Error(), where, v.src, v.src, v.src, w.Plan),
	})
}

// write leaves what is known for the next pass and for monitor.
func (v *visit) write(ctx context.Context, failed error) error {
	if v.order.DryRun {
		return nil
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), windUp/2)
		defer cancel()
	}
	if err := v.remember(ctx, failed); err != nil {
		return err
	}
	err := statestore.Update(ctx, v.state, control.LifecycleFindingsKey(v.src), func(d *control.Findings) error {
		if !d.Note(v.src, v.now(), v.found, v.looked...) {
			return statestore.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("leave the findings about %s: %w", v.src, err)
	}
	return nil
}

// remember leaves what is known of the source; nothing where what was there could not be read.
func (v *visit) remember(ctx context.Context, failed error) error {
	if v.doc == nil {
		return nil
	}
	v.doc.Version, v.doc.Source, v.doc.Error = 1, v.src.String(), ""
	if failed != nil {
		v.doc.Error = failed.Error()
	} else {
		v.doc.Passed = v.now().UTC()
	}
	return statestore.Update(ctx, v.state, control.LifecycleSourceKey(v.src), func(d *control.LifecycleSource) error {
		*d = *v.doc
		return nil
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// followed is the answer to a tick.
type followed struct {
	Restores int `json:"restores"` // that were not at their end
	Failed   int `json:"failed"`   // that could not be looked at
}

// follow looks after all restores that are not at their end: what is archived is asked for, what is thawed goes to its
// host, freezes of restores that run are renewed, and those that are done get their report. One in trouble keeps no other
// waiting; the next tick tries again.
func (f *function) follow(ctx context.Context) (any, error) {
	docs, unread := f.all(ctx)
	var out followed
	var errs []error
	for _, doc := range docs {
		if !doc.Follows(f.now()) {
			continue
		}
		out.Restores++
		if err := f.followOne(invoke.WithJob(ctx, doc.ID), doc); err != nil {
			out.Failed++
			errs = append(errs, err)
			invoke.Log(ctx).Error("a restore can not be followed", "restore", doc.ID, "error", err.Error())
		}
	}
	if unread != nil || out.Failed > 0 && out.Failed == out.Restores {
		// Nothing works, or nobody knows what is to be done: the alarm of failing functions is for that.
		return out, errors.Join(append(errs, unread)...)
	}
	return out, nil
}

func (f *function) followOne(ctx context.Context, doc *control.Restore) error {
	if doc.Expire(f.now()) {
		_, err := f.update(ctx, doc.ID, func(d *control.Restore) error {
			if !d.Expire(f.now()) {
				return statestore.ErrUnchanged
			}
			return nil
		})
		return err
	}
	switch doc.Status {
	case control.RestoreApproved, control.RestoreThawing:
		_, err := f.send(ctx, doc)
		return err
	case control.RestoreSent:
		return f.renew(ctx, doc)
	case control.RestoreAccepted:
		return errors.Join(f.keepFrozen(ctx, doc), f.renew(ctx, doc))
	case control.RestoreDone:
		return f.report(ctx, doc)
	}
	return nil
}

// renew prolongs thawed copies while they are needed.
func (f *function) renew(ctx context.Context, doc *control.Restore) error {
	if doc.Thaw == nil || !control.RenewThaw(doc.Thaw.Until, f.now()) {
		return nil
	}
	_, _, err := f.thaw(ctx, doc)
	return err
}

// keepFrozen keeps removals of the source frozen for as long as the agent is seen at the restore.
//
// Order: 1. the freeze, 2. the document. A crash between leaves a freeze that the next look finds to be long enough.
func (f *function) keepFrozen(ctx context.Context, doc *control.Restore) error {
	host, err := f.jobsOf(ctx, doc.Request.Host)
	if err != nil || host == nil {
		return err
	}
	now := f.now()
	until := doc.See(host, now)
	if !until.IsZero() {
		if err := control.FreezeSource(ctx, f.state, doc.Request.From(), now, until, "restore "+doc.ID); err != nil {
			return fmt.Errorf("freeze removals of %s: %w", doc.Request.Source, err)
		}
	}
	_, err = f.update(ctx, doc.ID, func(d *control.Restore) error {
		before := d.Seen
		d.See(host, now)
		d.MarkFrozen(until, now)
		if d.Seen.Equal(before) && until.IsZero() {
			return statestore.ErrUnchanged
		}
		return nil
	})
	return err
}

// report makes the report of a restore that is done, and waits until what was restored is protected again. A source that
// was restored in place gets a full at once: what its snapshots say about the present is not true any more.
//
// Order: 1. the document with the report, 2. the orders, 3. the document with them. A crash after 2 orders again, under
// the same id, which the agent's journal drops.
func (f *function) report(ctx context.Context, doc *control.Restore) error {
	p, _, err := f.cloud.Policy(ctx)
	if err != nil {
		return err
	}
	if doc.Report == nil {
		doc, err = f.update(ctx, doc.ID, func(d *control.Restore) error {
			d.BeginReport(protects(p, d.Request), f.now())
			return nil
		})
		if err != nil {
			return err
		}
		r := doc.Report
		invoke.Log(ctx).Info("restore report", "restore", doc.ID, "source", doc.Request.Source, "snapshot", doc.Request.Snapshot, "host", doc.Request.Host,
			"minutes", r.Minutes, "expected_minutes", r.Expected, "lost_minutes", r.LostMin, "files", r.Files, "bytes", r.Bytes, "failed", r.Failed, "problem", r.Problem)
	}
	for _, s := range doc.Report.Sources {
		if !doc.Request.InPlace || !s.Asked.IsZero() || s.Snapshot != 0 {
			continue
		}
		_, name, _ := strings.Cut(s.Source, "/")
		if err := f.queues.Send(ctx, doc.Request.Host, doc.Guard(name, f.now())); err != nil {
			return err
		}
		if doc, err = f.update(ctx, doc.ID, func(d *control.Restore) error {
			d.MarkGuarded(s.Source, f.now())
			return nil
		}); err != nil {
			return err
		}
	}
	return f.protected(ctx, p, doc)
}

// protected looks for whole snapshots that began after the restore.
func (f *function) protected(ctx context.Context, p *policy.Policy, doc *control.Restore) error {
	repo, err := f.cloud.Repository(ctx, p)
	if err != nil {
		return err
	}
	type found struct {
		n       uint64
		arrived time.Time
	}
	news := map[string]found{}
	for _, s := range doc.Report.Sources {
		src, err := snapshot.ParseSource(s.Source)
		if err != nil || s.Snapshot != 0 {
			continue
		}
		listed, err := repo.Sequences(ctx, src)
		if err != nil {
			return err
		}
		for _, l := range listed {
			// By the store's clock, with room for that of the host; what the manifest says decides.
			if l.Info.Modified.Before(doc.Finished.Finished.Add(-recovery.ClockTolerance)) {
				continue
			}
			m, err := repo.Manifest(ctx, snapshot.ID{Source: src, Sequence: l.Sequence})
			if passing(ctx, err) {
				return err
			}
			if err == nil && !m.Partial && !m.Unfinished && m.Started.After(doc.Finished.Finished) {
				news[s.Source] = found{m.Sequence, m.Arrived}
				break
			}
		}
	}
	complete := false
	doc, err = f.update(ctx, doc.ID, func(d *control.Restore) error {
		changed := d.GiveUp(f.now())
		for source, n := range news {
			complete, changed = d.MarkProtected(source, n.n, n.arrived, f.now()) || complete, true
		}
		if !changed {
			return statestore.ErrUnchanged
		}
		return nil
	})
	if err == nil && complete {
		invoke.Log(ctx).Info("protected again", "restore", doc.ID, "source", doc.Request.Source, "sources", len(doc.Report.Sources))
	}
	return err
}

// protects names the sources that back up what a restore brought back: the source itself where it was restored on its own
// host, and on another one those whose roots and the target have something in common.
func protects(p *policy.Policy, q *approval.Request) []string {
	from := q.From()
	if q.Host == from.Host {
		if _, err := p.Lookup(from.Host, from.Name); err != nil {
			return nil
		}
		return []string{q.Source}
	}
	var out []string
	p.Each(func(host, name string, s *policy.Source) {
		if host != q.Host || s.Files == nil {
			return
		}
		for _, root := range s.Files.Roots {
			if snapshot.Within(root, q.Target) || snapshot.Within(q.Target, root) {
				out = append(out, host+"/"+name)
				return
			}
		}
	})
	return out
}

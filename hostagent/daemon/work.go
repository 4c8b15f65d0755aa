package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// work runs one job after the other until ctx ends. The running one ends with jobs.
func (a *Agent) work(ctx, jobs context.Context) {
	var b backoff
	for ctx.Err() == nil {
		e, ok := a.next()
		if !ok {
			select {
			case <-ctx.Done():
			case <-a.wake:
			}
			continue
		}
		if _, err := a.run(jobs, e); err != nil && jobs.Err() == nil {
			wait := b.next()
			a.Log.Error("the journal can not be written", "error", err, "again", wait)
			sleep(ctx, wait)
			continue
		}
		b = backoff{}
	}
}

// next is the job that runs next: restores before backups, because somebody waits; verifications last; backups by the
// tier of their sources; those that are alike in the order in which they came.
func (a *Agent) next() (journal.Entry, bool) {
	list := a.Journal.Waiting()
	if len(list) == 0 {
		return journal.Entry{}, false
	}
	p := a.Policies.Current()
	slices.SortStableFunc(list, func(x, y journal.Entry) int { return rank(p, x.Job) - rank(p, y.Job) })
	return list[0], true
}

func rank(p *policy.Policy, job *events.Job) int {
	switch job.Kind {
	case events.Restore:
		return 0
	case events.Backup:
		if s, err := p.Lookup(job.Host, job.Source); err == nil {
			return 1 + slices.Index([]policy.Tier{policy.Critical, policy.High, policy.Standard, policy.Low}, s.Objectives.Tier)
		}
		return 5
	case events.Verify:
	}
	return 6
}

// run runs one job and notes how it ended; nil if it was interrupted and begins again later. The error is the journal's.
func (a *Agent) run(ctx context.Context, e journal.Entry) (*events.JobFinished, error) {
	began := time.Now()
	if why := late(e, began); why != nil {
		if e.Attempts > 0 && e.Job.Kind == events.Backup && a.After != nil {
			if err := a.After(ctx, a.Policies.Current(), e.Job.Source); err != nil {
				why = fmt.Errorf("%w; then %w", why, err)
			}
		}
		return a.finish(e.Job, Outcome{}, why, began)
	}
	// A crash from here on counts as an attempt.
	if err := a.Journal.Start(e.Job.ID, began); err != nil {
		return nil, err
	}
	a.setRunning(&events.RunningJob{Job: e.Job.ID, Source: e.Job.Source, Kind: e.Job.Kind, Started: began.UTC()})
	defer a.setRunning(nil)
	a.Log.Info("job begins", "job", e.Job.ID, "kind", e.Job.Kind, "source", e.Job.Source, "type", e.Job.Type)
	ctx, cancel := a.yielding(ctx, e.Job)
	defer cancel()
	out, err := a.do(ctx, e.Job)
	if err != nil && ctx.Err() != nil {
		// It was stopped, not broken. What it has stored is taken up when it begins again.
		a.Log.Info("job interrupted", "job", e.Job.ID, "kind", e.Job.Kind, "source", e.Job.Source)
		return nil, a.Journal.Interrupt(e.Job.ID, time.Now())
	}
	return a.finish(e.Job, out, err, began)
}

// late says why a job that was accepted is not begun any more.
func late(e journal.Entry, now time.Time) error {
	switch {
	case e.Attempts >= maxAttempts:
		return fmt.Errorf("the agent ended %d times while this job ran", e.Attempts)
	case !e.Started.IsZero():
		return nil // begun in time: what was cut off is finished
	case now.After(e.Job.NotAfter):
		return fmt.Errorf("it had to wait until it was too late, %s", e.Job.NotAfter.UTC().Format(time.RFC3339))
	case e.Job.Kind == events.Restore:
		if r, err := approval.Decode(e.Job.Restore.Request); err == nil && now.After(r.Expires) {
			return fmt.Errorf("it had to wait until the request expired, %s", r.Expires.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// finish notes and reports how a job ended.
func (a *Agent) finish(job *events.Job, out Outcome, err error, began time.Time) (*events.JobFinished, error) {
	now := time.Now()
	f := &events.JobFinished{
		Version: events.Version, Job: job.ID, Host: a.Host, Source: job.Source, Kind: job.Kind, Type: job.Type, Due: job.Due.UTC(),
		Result: out.Result, Snapshot: out.Snapshot, Started: began.UTC(), Finished: now.UTC(), BytesAdded: out.Added, Counts: out.Counts,
		Error: clip(out.Problem),
	}
	if f.Source == "" && job.Restore != nil {
		// What another host had is none of this host's sources.
		if r, err := approval.Decode(job.Restore.Request); err == nil && r.From().Host == a.Host {
			f.Source = r.From().Name
		}
	}
	if out.Type != "" {
		f.Type = out.Type
	}
	if f.Result == "" {
		f.Result = events.OK
	}
	if err != nil {
		f.Result, f.Error = events.Failed, clip(err.Error())
	}
	if jerr := a.Journal.Finish(job.ID, f, now, a.event(events.TypeJobFinished, now, f)...); jerr != nil {
		return nil, jerr
	}
	nudge(a.mail)
	if err != nil {
		told := []any{"job", job.ID, "kind", job.Kind, "source", job.Source, "error", err}
		// What the person who reads this can do, where that is known.
		if h := interface{ Hint() string }(nil); errors.As(err, &h) && h.Hint() != "" {
			told = append(told, "hint", h.Hint())
		}
		a.Log.Error("job failed", told...)
	} else {
		a.Log.Info("job finished", "job", job.ID, "kind", job.Kind, "source", job.Source, "result", f.Result, "snapshot", f.Snapshot,
			"took", now.Sub(began).Round(time.Millisecond))
	}
	return f, nil
}

// do does what a job asks for. A panic in it is the job's failure, not the agent's.
func (a *Agent) do(ctx context.Context, job *events.Job) (out Outcome, err error) {
	defer func() {
		if r := recover(); r != nil {
			a.Log.Error("panic", "job", job.ID, "panic", r, "stack", string(debug.Stack()))
			err = errors.New("the job ended with a defect of the program; its log has more")
		}
	}()
	p := a.Policies.Current()
	switch job.Kind {
	case events.Backup:
		return a.backup(ctx, p, job)
	case events.Verify:
		return a.verify(ctx, p, job)
	case events.Restore:
		// Once more, by the policy of now: it may have changed while the job waited. Whether it expired was looked at
		// before: what was begun in time and cut off is finished.
		r, err := approval.Decode(job.Restore.Request)
		if err != nil {
			return out, err
		}
		if r, err = approval.Check(p, a.Host, job.ID, job.Restore, r.Created); err != nil {
			return out, err
		}
		return a.Work.Restore(ctx, p, r)
	}
	return out, fmt.Errorf("jobs of kind %q are not known", job.Kind)
}

// backup backs up a source, unless that was done since the job was due: by the other of queue and schedule, by a run that
// was late, or by a person. The newest manifest decides; where it can't be read, the backup itself will say why.
func (a *Agent) backup(ctx context.Context, p *policy.Policy, job *events.Job) (Outcome, error) {
	if _, err := p.Lookup(a.Host, job.Source); err != nil {
		return Outcome{}, err // it was in the policy when the job came
	}
	t := snapshot.SnapshotType(job.Type)
	if h, err := a.Work.History(ctx, p, job.Source); err == nil && h.done(t, job.Due) {
		a.Log.Info("nothing to do: it was backed up since", "job", job.ID, "source", job.Source, "due", job.Due, "snapshot", h.Sequence)
		return Outcome{Result: events.OK, Snapshot: h.Sequence}, nil
	}
	return a.Work.Backup(ctx, p, job.Source, t)
}

// done reports whether a run that was due then is done. When it was due was told by the clock of the control plane, or by this
// host's: a snapshot counts that began since by both clocks.
func (h History) done(t snapshot.SnapshotType, due time.Time) bool {
	return h.Sequence > 0 && h.Settled.Done(t, due) && h.Stored.Done(t, due)
}

func (a *Agent) setRunning(r *events.RunningJob) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = r
}

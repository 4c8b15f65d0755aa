package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// yieldEvery is how often a verification that runs looks whether something else has to run.
const yieldEvery = 5 * time.Second

// verify verifies a source, unless that was done since the job was due. The receipts decide; where they can't be read,
// the verification itself will say why.
func (a *Agent) verify(ctx context.Context, p *policy.Policy, job *events.Job) (Outcome, error) {
	if _, err := p.Lookup(a.Host, job.Source); err != nil {
		return Outcome{}, err // it was in the policy when the job came
	}
	if shown, err := a.Work.Proofs(ctx, p, job.Source); err == nil && shown.Since(job.Type, job.Due) {
		a.Log.Info("nothing to do: it was verified since", "job", job.ID, "source", job.Source, "level", job.Type, "due", job.Due)
		return Outcome{Result: events.OK}, nil
	}
	return a.Work.Verify(ctx, p, job.Source, job.Type)
}

// yielding returns the context of a job. That of a verification ends when a restore waits, or a backup that has waited for
// a quarter of its objective: a verification takes as long as the source is large, and goes on when there is time.
func (a *Agent) yielding(ctx context.Context, job *events.Job) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if job.Kind != events.Verify {
		return ctx, cancel
	}
	go func() {
		for ctx.Err() == nil {
			sleep(ctx, yieldEvery)
			if e, ok := a.urgent(time.Now()); ok && ctx.Err() == nil {
				a.Log.Info("the verification gives way", "job", job.ID, "source", job.Source, "to", e.Job.ID, "kind", e.Job.Kind)
				cancel()
			}
		}
	}()
	return ctx, cancel
}

// urgent is a job that must not wait for a verification to end.
func (a *Agent) urgent(now time.Time) (journal.Entry, bool) {
	p := a.Policies.Current()
	list := a.Journal.Waiting()
	i := slices.IndexFunc(list, func(e journal.Entry) bool {
		switch e.Job.Kind {
		case events.Restore:
			return true
		case events.Backup:
			s, err := p.Lookup(a.Host, e.Job.Source)
			return err == nil && now.Sub(e.Accepted) >= s.Objectives.RPO.Std()/4
		case events.Verify:
		}
		return false
	})
	if i < 0 {
		return journal.Entry{}, false
	}
	return list[i], true
}

// shown is what receipts said, and when they were read.
type shown struct {
	schedule.Proofs
	read time.Time
}

// proofsEvery is how often receipts are read while nothing is due by what they said: a person may have verified.
const proofsEvery = 6 * time.Hour

// verification is the job that verifies the source, if that is due and none waits; nil: there is none to make.
func (f *ScheduleFeed) verification(ctx context.Context, p *policy.Policy, name string) *events.Job {
	s := p.Hosts[f.Host].Sources[name]
	if s.Verification == (policy.Verification{}) || f.known[name].Sequence == 0 {
		return nil
	}
	for _, e := range f.Journal.Waiting() {
		if e.Job.Kind == events.Verify && e.Job.Source == name {
			return nil // first that one
		}
	}
	src, now := snapshot.Source{Host: f.Host, Name: name}, time.Now()
	have, ok := f.proofs[name]
	if _, due, _ := schedule.DueVerification(p, src, have.Proofs, now); ok && !due && now.Sub(have.read) < proofsEvery {
		return nil
	}
	v, due, _ := schedule.DueVerification(p, src, have.Proofs, now)
	if ok && due && f.refusesVerification(src, v, now) {
		return nil
	}
	learnt, err := f.Work.Proofs(ctx, p, name)
	if err != nil {
		learnt = have.Proofs // the verification itself will say why
	}
	f.proofs[name] = shown{learnt, now}
	if v, due, _ = schedule.DueVerification(p, src, learnt, now); !due || f.refusesVerification(src, v, now) {
		return nil
	}
	return f.verificationJob(src, v)
}

// refusesVerification reports whether nothing is to be done for a verification that is due: it was tried in this time, or
// the control plane may still ask for it. Where there is a queue, the agent waits a day, from when the verification was
// due first, or from its own start.
func (f *ScheduleFeed) refusesVerification(src snapshot.Source, v schedule.Verification, now time.Time) bool {
	since := v.First
	if since.IsZero() {
		since = f.began
	}
	return f.Remote && now.Sub(since) < takeVerificationsOver || f.verificationJob(src, v) == nil
}

// takeVerificationsOver is how long the control plane may be late with a verification.
const takeVerificationsOver = 24 * time.Hour

// verificationJob is the job for a verification; nil if it was tried. One that failed is due again, under another id, a
// day later.
func (f *ScheduleFeed) verificationJob(src snapshot.Source, v schedule.Verification) *events.Job {
	for n := range maxRetries {
		id := events.RetryID(v.ID, n)
		if !f.Journal.Known(id) {
			return &events.Job{
				Version: events.Version, ID: id, Host: src.Host, Source: src.Name, Kind: events.Verify, Type: v.Level,
				Attempt: n, Due: v.Due.UTC(), NotAfter: v.NotAfter.UTC(),
			}
		}
		// Some other job may have come under this id: the verification is not made by it.
		r := f.Journal.Result(id)
		if r == nil || r.Kind == events.Verify && r.Source == src.Name && r.Type == v.Level && r.Due.Equal(v.Due) {
			return nil
		}
	}
	return nil
}

package control

import (
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// receipts returns what the receipts of the source show, or asks for them.
func (f *follower) receipts(name string) (schedule.Proofs, bool) {
	p, ok := f.found.Receipts[name]
	if !ok {
		f.step.Proofs = append(f.step.Proofs, name)
		f.later(f.now)
	}
	return p, ok
}

// verification follows the verifications of a source that its policy wants from the agent.
func (f *follower) verification(name string, s *policy.Source) {
	vj := f.Verify[name]
	switch backups := f.Sources[name]; {
	case s.Verification == (policy.Verification{}):
		if vj != nil {
			f.drop(f.Verify, name)
		}
		return
	case vj != nil:
	case backups == nil:
		return // nobody has looked yet
	case backups.Done.Incremental.IsZero() && !f.backedUp(name, backups):
		return // there is nothing to verify
	default:
		vj = &SourceJobs{State: StateOK, Since: f.now}
	}
	if sane := vj.Proofs.Sane(f.now); sane != vj.Proofs {
		vj.Proofs, f.step.Changed = sane, true
	}
	if vj.Open != nil {
		f.open(name, s, vj)
	}
	if vj.Open == nil {
		f.dueVerification(name, s, vj)
	}
}

// backedUp looks whether a source has a snapshot that nobody told of: one that is backed up by hand, or by a cron job.
func (f *follower) backedUp(name string, backups *SourceJobs) bool {
	e, ok := f.evidence(name)
	if ok && backups.settle(e) {
		f.step.Changed = true
		return true
	}
	return false
}

// dueVerification asks for the verification that is due, if one is. A host gets one at a time: it does them one after
// the other, and what waits in its queue grows old.
func (f *follower) dueVerification(name string, s *policy.Source, vj *SourceJobs) {
	src := snapshot.Source{Host: f.Host, Name: name}
	v, due, next := schedule.DueVerification(f.policy, src, vj.Proofs, f.now)
	if due && f.verifies() {
		f.later(f.now.Add(followEvery))
		return
	}
	if due {
		// The agent, or a person, may have made it meanwhile.
		shown, ok := f.receipts(name)
		if !ok {
			return
		}
		if learnt := vj.Proofs.Learn(shown); learnt != vj.Proofs {
			vj.Proofs, f.step.Changed = learnt, true
			v, due, next = schedule.DueVerification(f.policy, src, vj.Proofs, f.now)
		}
		if f.Verify[name] == nil {
			if f.Verify == nil {
				f.Verify = map[string]*SourceJobs{}
			}
			f.Verify[name], f.step.Changed = vj, true
		}
	}
	if !due {
		f.later(next)
		return
	}
	f.asking = true
	j := &Job{ID: v.ID, First: v.ID, Kind: events.Verify, Type: v.Level, Due: v.Due, NotAfter: v.NotAfter.UTC()}
	f.step.Orders = append(f.step.Orders, Order{Source: name, Tier: s.Objectives.Tier, New: true, First: v.ID, Job: j.message(f.Host, name)})
}

// verifies reports whether the host has a verification to make already.
func (f *follower) verifies() bool {
	for _, vj := range f.Verify {
		if vj.Open != nil && vj.Open.Retry.IsZero() {
			return true
		}
	}
	return f.asking
}

// verified is made for verifications.
func (f *follower) verified(name string, vj *SourceJobs) (made, known bool) {
	shown, ok := f.receipts(name)
	if !ok {
		return false, false
	}
	vj.Proofs, f.step.Changed = vj.Proofs.Learn(shown), true
	if !vj.Proofs.Since(vj.Open.Type, vj.Open.Due) {
		return false, true
	}
	vj.Last = vj.Open.verified(vj.Proofs)
	f.close(vj, StateOK, "")
	return true, true
}

// verified is how a verification ended of which only the receipt tells. What it found is no matter of jobs: the receipts
// are there for it.
func (j *Job) verified(p schedule.Proofs) *Ended {
	return &Ended{Job: j.ID, Type: j.Type, Due: j.Due, Result: events.OK, Started: j.Asked, Finished: p.Of(j.Type).At.UTC()}
}

// TakeVerified takes the end of a verification. shown is what the receipts of its source say now: an event that tells of
// a verification without a receipt is not believed. One that found damage and says so in a receipt was made.
func (h *HostJobs) TakeVerified(e *events.JobFinished, shown schedule.Proofs, l Limits, when time.Time) (changed bool, closed []string) {
	changed = h.sign(when)
	if e.Kind != events.Verify || !h.News(e) {
		return changed, nil
	}
	vj := h.Verify[e.Source]
	j := vj.Open
	vj.Proofs = vj.Proofs.Learn(shown)
	if !vj.Proofs.Since(j.Type, j.Due) {
		failed := *e
		if e.Result != events.Failed {
			failed.Result, failed.Error = events.Failed, "the agent says that it has verified the source, and there is no receipt"
		}
		news, closed := vj.failed(&failed, l, when)
		return news || changed, closed
	}
	vj.Last, vj.Failures, vj.Open = ended(e), 0, nil
	vj.enter(StateOK, "", when)
	return true, []string{j.First}
}

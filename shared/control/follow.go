package control

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// defaultLost is four heartbeats.
	defaultLost     = 20 * time.Minute
	defaultAttempts = 4
	// followEvery is how often a host with an open job is looked at.
	followEvery = 5 * time.Minute
	// catchUp is how late a run may be asked for without a look whether the agent has made it by itself.
	catchUp = 10 * time.Minute
	// skew is how far ahead of the clock a time may be that was written down before. One further ahead stems from a
	// clock that was wrong: what it waits for is taken as over, so that nobody waits for years.
	skew = 5 * time.Minute
	// maxSends is after how many messages for one attempt, while nobody takes it, the next are sent daily only. There is
	// always a next: messages last for some days, and a job's time may be a month.
	maxSends = 10
	// noQueueEvery is how often a message is tried to be sent to a host whose queue is missing.
	noQueueEvery = 5 * time.Minute
)

// Limits says when jobs are lost and how often they are asked for.
type Limits struct {
	Lost     time.Duration // silence after which an accepted job is lost; 0: 20 minutes
	Attempts int           // at one run; 0: 4
}

func (l Limits) lost() time.Duration { return cmp.Or(l.Lost, defaultLost) }
func (l Limits) attempts() int       { return cmp.Or(l.Attempts, defaultAttempts) }

// Evidence is the newest manifest of a source; Sequence 0: there is none.
type Evidence struct {
	Sequence uint64
	Type     snapshot.SnapshotType
	Partial  bool
	Started  time.Time // when its capture began, by the store's clock
	Arrived  time.Time // by the store's clock

	Settled schedule.History // by older manifests: when the newest of other types began
}

// Found is what somebody has looked up in the repository, by name of the source. What was not looked up is missing.
type Found struct {
	Manifests map[string]Evidence
	Receipts  map[string]schedule.Proofs
}

// Order is a message for the queue of a host.
type Order struct {
	Source string
	Tier   policy.Tier
	New    bool   // a run that is not in the document yet: see Ask and Wait
	First  string // id of the first attempt
	Job    *events.Job
}

// Step is what is to be done for a host now.
type Step struct {
	Look    []string  // sources whose newest manifest is needed before more can be said: call Follow again with it
	Proofs  []string  // sources whose receipts are needed, likewise
	Orders  []Order   // messages to send, after the document has been written
	Closed  []string  // first ids of runs that have ended
	Changed bool      // the document is not as it was
	Next    time.Time // when to look again at the latest; zero: when the policy changes
}

// follower is one call of Follow.
type follower struct {
	*HostJobs
	policy *policy.Policy
	found  Found
	limits Limits
	now    time.Time
	step   Step
	asking bool // a verification was ordered in this call
}

// Follow looks at all sources of the host: which backups and verifications are due, which jobs are to be sent again, lost,
// given up or, as what was found shows, done. It changes the document, except for new runs: for each [Order] that is New the
// caller calls [HostJobs.Ask], or [HostJobs.Wait] if a limit holds it back.
//
// The caller then writes the document and, when that has succeeded, sends the messages, in this order: a crash between
// leaves a job that is written down and was not sent, and Follow sends it again when nobody has taken it. The other way
// round, a run might be asked for twice under two ids, if the policy or the clock changed between. Sent twice, a job has
// the same id, and the agent's journal drops the second.
func (h *HostJobs) Follow(p *policy.Policy, found Found, l Limits, now time.Time) Step {
	f := &follower{HostJobs: h, policy: p, found: found, limits: l, now: now.UTC()}
	host := p.Hosts[h.Host]
	for _, all := range []map[string]*SourceJobs{h.Sources, h.Verify} {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if host == nil || host.Sources[name] == nil {
				f.drop(all, name)
			}
		}
	}
	if host == nil {
		return f.step
	}
	for _, name := range slices.Sorted(maps.Keys(host.Sources)) {
		f.source(name, host.Sources[name])
	}
	for _, name := range slices.Sorted(maps.Keys(host.Sources)) {
		f.verification(name, host.Sources[name])
	}
	return f.step
}

// drop forgets what is no longer in the policy: what runs, runs; nobody waits for it.
func (f *follower) drop(all map[string]*SourceJobs, name string) {
	if sj := all[name]; sj != nil && sj.Open != nil {
		f.step.Closed = append(f.step.Closed, sj.Open.First)
	}
	delete(all, name)
	f.step.Changed = true
}

// later notes a time at which the host is to be looked at again.
func (f *follower) later(at time.Time) {
	if !at.IsZero() && (f.step.Next.IsZero() || at.Before(f.step.Next)) {
		f.step.Next = at
	}
}

// evidence returns the newest manifest of the source, or asks for it.
func (f *follower) evidence(name string) (Evidence, bool) {
	e, ok := f.found.Manifests[name]
	if !ok {
		if !slices.Contains(f.step.Look, name) {
			f.step.Look = append(f.step.Look, name)
		}
		f.later(f.now) // where it can't be had, the host is looked at again at once
	}
	return e, ok
}

func (f *follower) source(name string, s *policy.Source) {
	sj := f.Sources[name]
	if sj == nil {
		// New, or the document was lost: what is in the repository need not be made again.
		e, ok := f.evidence(name)
		if !ok {
			return
		}
		sj = &SourceJobs{State: StateOK, Since: f.now}
		if e.Sequence > 0 {
			sj.settle(e)
		}
		if f.Sources == nil {
			f.Sources = map[string]*SourceJobs{}
		}
		f.Sources[name], f.step.Changed = sj, true
	}
	if sane := sj.Done.Sane(f.now); sane != sj.Done {
		sj.Done, f.step.Changed = sane, true
	}
	if sj.Open != nil {
		f.open(name, s, sj)
	}
	if sj.Open == nil {
		f.due(name, s, sj)
	}
}

// due asks for the run that is due, if one is.
func (f *follower) due(name string, s *policy.Source, sj *SourceJobs) {
	src := snapshot.Source{Host: f.Host, Name: name}
	run, due, next := schedule.Due(f.policy, src, sj.Done, f.now)
	if due && f.now.Sub(run.Due) > catchUp && sj.State != StateWaiting {
		e, ok := f.evidence(name)
		if !ok {
			return
		}
		if before := sj.Done; sj.settle(e) && sj.Done != before {
			f.step.Changed = true
			run, due, next = schedule.Due(f.policy, src, sj.Done, f.now)
		}
	}
	if !due {
		if sj.State == StateWaiting {
			sj.enter(StateOK, "", f.now)
			f.step.Changed = true
		}
		f.later(next)
		return
	}
	j := &Job{ID: run.ID, First: run.ID, Kind: events.Backup, Type: string(run.Type), Due: run.Due, NotAfter: run.NotAfter.UTC()}
	f.step.Orders = append(f.step.Orders, Order{Source: name, Tier: s.Objectives.Tier, New: true, First: run.ID, Job: j.message(f.Host, name)})
	f.later(f.now.Add(time.Minute)) // it may have to wait; Ask says when else
}

// Ask notes a new run as asked for. It returns when the host is to be looked at again.
func (h *HostJobs) Ask(o Order, now time.Time) time.Time {
	now = now.UTC()
	sj := h.kind(o.Job.Kind)[o.Source]
	sj.Open = &Job{
		ID: o.Job.ID, First: o.First, Kind: o.Job.Kind, Type: o.Job.Type, Due: o.Job.Due, NotAfter: o.Job.NotAfter,
		Asked: now, Sent: now, Sends: 1,
	}
	sj.enter(StateRunning, "", now)
	return now.Add(resendAfter(1))
}

// Wait notes that a run is due and held back. It reports whether that changes the document.
func (h *HostJobs) Wait(o Order, now time.Time) bool {
	sj := h.Sources[o.Source]
	if sj.State == StateWaiting || sj.State == StateFailing {
		return false
	}
	sj.enter(StateWaiting, "", now)
	return true
}

// open follows a job that has not ended.
func (f *follower) open(name string, s *policy.Source, sj *SourceJobs) {
	j := sj.Open
	var silent, wait time.Duration
	switch {
	case j.Due.After(f.now.Add(skew)):
		f.disown(sj)
		return
	case !j.Retry.IsZero():
		if at := j.Retry; f.now.Before(at) && at.Sub(f.now) <= backoff(f.limits.attempts()) {
			f.later(at)
			return
		}
		if f.now.After(j.NotAfter) {
			f.giveUp(sj, j.Error)
			return
		}
		j.Attempt++
		*j = Job{
			ID: events.RetryID(j.First, j.Attempt), First: j.First, Kind: j.Kind, Type: j.Type, Due: j.Due, NotAfter: j.NotAfter,
			Attempt: j.Attempt, Asked: f.now, Sent: f.now, Sends: 1, Error: j.Error,
		}
		f.send(name, s, sj)
		return
	case !j.Accepted.IsZero():
		silent, wait = elapsed(later(j.Accepted, j.Seen), f.now), f.limits.lost()
		if silent >= wait {
			f.lost(name, s, sj)
			return
		}
	default:
		if f.now.After(j.NotAfter) {
			f.missed(name, sj)
			return
		}
		silent, wait = elapsed(j.Sent, f.now), resendAfter(j.Sends)
		if f.Problem != "" {
			wait = noQueueEvery
		}
		if silent >= wait {
			if f.Problem == "" {
				j.Sends = min(j.Sends+1, maxSends)
			}
			j.Sent = f.now
			if j.Sends > untaken {
				j.Error = "the agent has not taken the job yet"
			}
			f.send(name, s, sj)
			return
		}
		f.later(j.NotAfter.Add(time.Second))
	}
	f.later(f.now.Add(min(wait-silent, followEvery)))
}

// disown forgets a job that was asked for by a clock that was ahead. It is no run of now: neither must one wait for it, nor be
// taken for settled when it ends. What it makes counts by its manifest.
func (f *follower) disown(sj *SourceJobs) {
	f.step.Closed = append(f.step.Closed, sj.Open.First)
	sj.Open, f.step.Changed = nil, true
	sj.enter(StateOK, "", f.now)
}

// send orders the message of the open job again.
func (f *follower) send(name string, s *policy.Source, sj *SourceJobs) {
	j := sj.Open
	if j.Error != "" {
		sj.enter(StateLate, j.Error, f.now)
	}
	f.step.Changed = true
	f.step.Orders = append(f.step.Orders, Order{Source: name, Tier: s.Objectives.Tier, First: j.First, Job: j.message(f.Host, name)})
	f.later(f.now.Add(resendAfter(1)))
}

// made closes the open job if the repository shows that its run was made. known is false where somebody has to look first.
func (f *follower) made(name string, sj *SourceJobs) (made, known bool) {
	if sj.Open.Kind == events.Verify {
		return f.verified(name, sj)
	}
	e, ok := f.evidence(name)
	if ok && e.proves(sj.Open) {
		f.proven(sj, e)
		return true, true
	}
	return false, ok
}

// lost handles a job that was accepted and of which nothing was heard since.
func (f *follower) lost(name string, s *policy.Source, sj *SourceJobs) {
	j := sj.Open
	if made, known := f.made(name, sj); made || !known {
		return
	}
	j.Losses++
	j.Error = "accepted, and then nothing was heard of it"
	if j.Losses >= f.limits.attempts() || f.now.After(j.NotAfter) {
		// Past its time the agent would refuse it; if it is at it after all, its end will be reported.
		f.giveUp(sj, j.Error)
		return
	}
	// The same id: an agent that has the job in its journal goes on with it and drops the message; one that has lost
	// its journal takes it anew.
	j.Accepted, j.Seen, j.Sent, j.Sends = time.Time{}, time.Time{}, f.now, 1
	f.send(name, s, sj)
}

// missed handles a job that nobody took in time.
func (f *follower) missed(name string, sj *SourceJobs) {
	if made, known := f.made(name, sj); made || !known {
		return
	}
	f.giveUp(sj, "the agent did not take the job in time")
}

// proven closes a job of whose end nothing was heard, and whose snapshot is there.
func (f *follower) proven(sj *SourceJobs, e Evidence) {
	j := sj.Open
	result := events.OK
	if e.Partial {
		result = events.Partial
	}
	sj.Last = &Ended{Job: j.ID, Type: string(e.Type), Due: j.Due, Result: result, Snapshot: e.Sequence, Started: e.Started, Finished: e.Arrived}
	sj.Done = sj.Done.Settle(snapshot.SnapshotType(j.Type), j.Due)
	sj.settle(e)
	f.close(sj, StateOK, "")
}

// giveUp closes a job that will not be asked for again.
func (f *follower) giveUp(sj *SourceJobs, why string) {
	sj.giveUp(why, f.now)
	f.step.Closed = append(f.step.Closed, sj.Open.First)
	sj.Open, f.step.Changed = nil, true
}

// giveUp notes that the open job is given up; it stays open.
func (s *SourceJobs) giveUp(why string, now time.Time) {
	j := s.Open
	s.settleOpen()
	s.Last = &Ended{Job: j.ID, Type: j.Type, Due: j.Due, Result: events.Failed, Error: why, Started: j.Asked, Finished: now.UTC()}
	s.Failures++
	s.enter(StateFailing, why, now)
}

func (f *follower) close(sj *SourceJobs, state State, why string) {
	f.step.Closed = append(f.step.Closed, sj.Open.First)
	sj.Open, sj.Failures, f.step.Changed = nil, 0, true
	sj.enter(state, why, f.now)
}

// settle notes what the newest manifest of the source settles; false: there is none.
func (s *SourceJobs) settle(e Evidence) bool {
	if e.Sequence == 0 {
		return false
	}
	s.Done = s.Done.Joined(e.settles())
	return true
}

// settles is what the manifests of a source settle.
func (e Evidence) settles() schedule.History {
	if e.Sequence == 0 {
		return schedule.History{}
	}
	older := schedule.History{Full: e.Settled.Full, Differential: e.Settled.Differential}
	return schedule.History{}.Joined(older).Settle(e.Type, earlier(e.Started, e.Arrived))
}

// proves reports whether the manifests show that the job's run was made.
func (e Evidence) proves(j *Job) bool {
	return e.settles().Done(snapshot.SnapshotType(j.Type), j.Due)
}

func rank(t snapshot.SnapshotType) int {
	return slices.Index([]snapshot.SnapshotType{snapshot.Incremental, snapshot.Differential, snapshot.Full}, t)
}

// resendAfter is how long a message may go unanswered before the next is sent. A queue loses nothing that it has taken;
// what heals here is a crash before the message was sent, and a queue that was made anew.
func resendAfter(sends int) time.Duration {
	switch sends {
	case 0, 1:
		return 2 * time.Minute
	case 2:
		return 10 * time.Minute
	case 3:
		return time.Hour
	}
	if sends >= maxSends {
		return 24 * time.Hour
	}
	return 6 * time.Hour
}

// backoff is the time between a failed attempt and the next: 5 minutes, half an hour, 3 hours, …
func backoff(attempt int) time.Duration {
	d := 5 * time.Minute
	for range min(attempt, 4) {
		d *= 6
	}
	return d
}

// elapsed is the time from then to now; very long if then lies ahead, which says that a clock was wrong.
func elapsed(then, now time.Time) time.Duration {
	d := now.Sub(then)
	if d < -skew {
		return 1 << 62
	}
	return max(d, 0)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

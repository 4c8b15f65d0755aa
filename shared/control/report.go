package control

import (
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Reports are taken in whatever order they come, several times or not at all: each method may be called again with the
// same event, and what a lost event would have said is learnt from the next heartbeat, from the repository or by asking
// again. They report whether the document has changed, and name the runs that have ended.
//
// when is the time of the event by the bus, not by the agent's clock.

// sign notes a sign of life.
func (h *HostJobs) sign(when time.Time) bool {
	if when.Sub(h.Seen) < SeenEvery && h.Seen.Sub(when) < SeenEvery {
		return false
	}
	// A time far ahead stems from a clock that was wrong; an event that was long under way does not put back the time.
	if h.Seen.Sub(when) >= SeenEvery && h.Seen.Sub(when) < 24*time.Hour {
		return false
	}
	h.Seen = when.UTC()
	return true
}

// TakeAccepted takes a [events.JobAccepted].
func (h *HostJobs) TakeAccepted(e *events.JobAccepted, when time.Time) (changed bool) {
	changed = h.sign(when)
	sj := h.holding(e.Source, e.Job)
	if sj == nil || !sj.Open.Retry.IsZero() || !sj.Open.Accepted.IsZero() {
		return changed
	}
	sj.Open.Accepted, sj.Open.Seen = when.UTC(), when.UTC()
	return true
}

// TakeRefused takes a [events.JobRefused].
func (h *HostJobs) TakeRefused(e *events.JobRefused, when time.Time) (changed bool, closed []string) {
	changed = h.sign(when)
	sj := h.holding(e.Source, e.Job)
	open := sj != nil && sj.Open.Retry.IsZero()
	if e.Code == events.Duplicate {
		if open {
			// The journal has it: what the event of its acceptance would have said.
			return h.TakeAccepted(&events.JobAccepted{Job: e.Job, Source: e.Source}, when) || changed, nil
		}
		return changed, nil
	}
	r := Refusal{Job: e.Job, Source: e.Source, Code: e.Code, Reason: clip(e.Reason), Time: when.UTC()}
	if !slices.Contains(h.Refused, r) {
		h.remember(r)
		changed = true
	}
	if open {
		// Asking again would have the same answer.
		closed = append(closed, sj.Open.First)
		sj.giveUp("refused by the agent as "+string(e.Code)+reason(e.Reason), when)
		sj.Open, changed = nil, true
	}
	return changed, closed
}

// forgedEvery is how often it is written down anew that an agent speaks in the name of another host.
const forgedEvery = time.Hour

// TakeForged notes that the host's agent has sent an event in the name of another: whoever did so has its credentials, and
// what the event says is not believed. It is no sign of life.
func (h *HostJobs) TakeForged(named string, when time.Time) (changed bool) {
	r := Refusal{Code: events.Forged, Reason: clip("its agent has sent an event in the name of host " + named), Time: when.UTC()}
	known := func(old Refusal) bool {
		return old.Code == r.Code && old.Reason == r.Reason && r.Time.Sub(old.Time).Abs() < forgedEvery
	}
	if slices.ContainsFunc(h.Refused, known) {
		return false
	}
	h.remember(r)
	return true
}

// remember adds a refusal. What came late goes first where there are too many: it must not hide what was forged.
func (h *HostJobs) remember(r Refusal) {
	h.Refused = slices.Insert(h.Refused, 0, r)
	for len(h.Refused) > maxRefused {
		oldest := len(h.Refused) - 1
		for i := oldest; i >= 0; i-- {
			if h.Refused[i].Code == events.Stale {
				oldest = i
				break
			}
		}
		h.Refused = slices.Delete(h.Refused, oldest, oldest+1)
	}
}

func reason(text string) string {
	if text == "" {
		return ""
	}
	return ": " + clip(text)
}

// clip bounds what somebody else wrote.
func clip(text string) string {
	const limit = 500
	if r := []rune(text); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return text
}

// News reports whether the end of a job says something that the document does not have: if not, nothing needs to be
// proven, and nothing is done.
func (h *HostJobs) News(e *events.JobFinished) bool {
	sj := h.kind(e.Kind)[e.Source]
	if sj == nil || e.Kind == events.Restore {
		return false
	}
	if sj.Open != nil && sj.Open.hasID(e.Job) {
		return e.Result != events.Failed || sj.Open.ID == e.Job && sj.Open.Retry.IsZero()
	}
	if e.Kind == events.Verify {
		return false // what others verify, receipts show
	}
	if sj.Last == nil || sj.Last.Job != e.Job {
		return sj.Last == nil || e.Finished.After(sj.Last.Finished)
	}
	return sj.Last.Result != e.Result && e.Result != events.Failed // given up, and it went well after all
}

// TakeFinished takes the end of a job. arrived is when the manifest of its snapshot arrived by the store's clock; the zero
// time says that there is no such manifest, and then an event that tells of success is not believed: events are hints,
// objects are evidence.
//
// It is for backups; verifications are taken by [HostJobs.TakeVerified].
func (h *HostJobs) TakeFinished(e *events.JobFinished, arrived time.Time, l Limits, when time.Time) (changed bool, closed []string) {
	changed = h.sign(when)
	if e.Kind != events.Backup || !h.News(e) {
		return changed, nil
	}
	sj := h.Sources[e.Source]
	if e.Result == events.Failed {
		news, closed := sj.failed(e, l, when)
		return news || changed, closed
	}
	if arrived.IsZero() {
		return changed, nil
	}
	// What a run settles is what was due when its capture began. The agent's clock is believed as far as it agrees with
	// the arrival of the manifest.
	through, typ := earlier(e.Started, arrived), snapshot.SnapshotType(e.Type)
	if !e.Due.IsZero() {
		through = earlier(e.Due, arrived)
	}
	if j := sj.Open; j != nil {
		own := j.hasID(e.Job)
		if own && arrived.Before(j.Due) {
			return changed, nil // the manifest is that of an earlier run
		}
		if own || !through.Before(j.Due) && rank(typ) >= rank(snapshot.SnapshotType(j.Type)) {
			sj.Done = sj.Done.Settle(snapshot.SnapshotType(j.Type), j.Due)
			sj.Open, closed = nil, []string{j.First}
		}
	}
	sj.Done = sj.Done.Settle(typ, through)
	sj.Last, sj.Failures = ended(e), 0
	if sj.Open == nil {
		sj.enter(StateOK, "", when)
	} else {
		sj.enter(StateRunning, sj.Open.Error, when)
	}
	return true, closed
}

// failed takes the end of a job that went wrong.
func (s *SourceJobs) failed(e *events.JobFinished, l Limits, when time.Time) (changed bool, closed []string) {
	j := s.Open
	if j == nil || j.ID != e.Job {
		// An attempt of the agent's own: it changes nothing but what there is to say of a source that fails anyway.
		if j != nil || s.Failures == 0 {
			return false, nil
		}
		s.Last = ended(e)
		s.enter(StateFailing, clip(e.Error), when)
		return true, nil
	}
	j.Error = clip(e.Error)
	retry := when.UTC().Add(backoff(j.Attempt))
	if j.Attempt+1 >= l.attempts() || retry.After(j.NotAfter) {
		s.giveUp(j.Error, when)
		s.Last, s.Open = ended(e), nil
		return true, []string{j.First}
	}
	j.Retry = retry
	s.enter(StateLate, j.Error, when)
	return true, nil
}

// takeRestore notes that the agent is at a restore.
func (h *HostJobs) takeRestore(e *events.Heartbeat, when time.Time) bool {
	r := e.Running
	if r == nil || r.Kind != events.Restore || !events.IsID(r.Job) {
		return false
	}
	if old := h.Restoring; old != nil && old.Job == r.Job && when.Sub(old.Seen) < SeenEvery && old.Seen.Sub(when) < SeenEvery {
		return false
	}
	h.Restoring = &Restoring{Job: r.Job, Started: r.Started.UTC(), Bytes: r.Bytes, Seen: when.UTC()}
	return true
}

func ended(e *events.JobFinished) *Ended {
	return &Ended{
		Job: e.Job, Type: e.Type, Due: e.Due.UTC(), Result: e.Result, Error: clip(e.Error), Snapshot: e.Snapshot,
		Started: e.Started.UTC(), Finished: e.Finished.UTC(), Added: e.BytesAdded,
	}
}

// see notes that a heartbeat names the open job.
func (s *SourceJobs) see(e *events.Heartbeat, l Limits, when time.Time) (changed bool) {
	j := s.Open
	if j == nil || !j.Retry.IsZero() {
		return false
	}
	if (e.Running == nil || e.Running.Job != j.ID) && !slices.Contains(e.Queued, j.ID) {
		return false
	}
	if j.Accepted.IsZero() {
		j.Accepted, changed = when.UTC(), true
	}
	// As often as is needed to tell that the job is not lost.
	if d := when.Sub(j.Seen); d >= l.lost()/4 || d < -skew {
		j.Seen, changed = when.UTC(), true
	}
	return changed
}

// TakeHeartbeat takes a [events.Heartbeat]. It returns the ends of jobs that it repeats and that may be news; the caller
// takes them by [HostJobs.TakeFinished].
func (h *HostJobs) TakeHeartbeat(e *events.Heartbeat, l Limits, when time.Time) (changed bool, ends []*events.JobFinished) {
	changed = h.sign(when)
	if version := clip(e.Agent); version != h.Agent {
		h.Agent, changed = version, true
	}
	for _, all := range []map[string]*SourceJobs{h.Sources, h.Verify} {
		for _, sj := range all {
			changed = sj.see(e, l, when) || changed
		}
	}
	changed = h.takeRestore(e, when) || changed
	changed = h.takePresent(e, when) || changed
	// What is free changes all the time: it is written with what else is, and every now and then.
	if len(e.Free) > 0 && (changed || when.Sub(h.FreeAt) >= SeenEvery || h.FreeAt.After(when.Add(skew))) {
		h.Free, h.FreeAt, changed = e.Free, when.UTC(), true
	}
	for name, r := range e.Sources {
		f := &events.JobFinished{
			Job: r.Job, Host: e.Host, Source: name, Kind: r.Kind, Type: r.Type, Due: r.Due, Result: r.Result, Error: r.Error,
			Snapshot: r.Snapshot, Started: r.Started, Finished: r.Finished,
		}
		if f.Kind == "" {
			f.Kind = events.Backup
		}
		if h.News(f) {
			ends = append(ends, f)
		}
	}
	slices.SortFunc(ends, func(a, b *events.JobFinished) int { return a.Finished.Compare(b.Finished) })
	return changed, ends
}

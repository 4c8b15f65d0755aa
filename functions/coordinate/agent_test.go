package main

import (
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// agent is a host's agent: a journal that survives, and one job at a time.
type agent struct {
	*world
	host    string
	online  bool
	journal map[string]*entry // by id of the job
	order   []*entry
	running *entry
	until   time.Time
	fails   bool // the next jobs fail
}

type entry struct {
	job     *events.Job
	started time.Time
	result  *events.JobFinished
}

func (a *agent) say(detailType string, detail any) { a.publish(a.event(detailType, detail)) }

// publish puts an event on the bus, which may lose, repeat and delay it.
func (w *world) publish(body []byte) {
	if w.r == nil {
		w.bus = append(w.bus, delivery{w.clock, body})
		return
	}
	for w.r.IntN(20) != 0 { // one in twenty is lost, one in ten comes again
		at := w.clock.Add(time.Duration(w.r.IntN(90)) * time.Second)
		if w.r.IntN(15) == 0 {
			at = w.clock.Add(time.Duration(w.r.IntN(150)) * time.Minute)
		}
		w.bus = append(w.bus, delivery{at, body})
		if w.r.IntN(10) != 0 {
			return
		}
	}
}

// minute is what the agent does in one.
func (a *agent) minute(beat bool) {
	if !a.online {
		return
	}
	a.receive()
	if a.running != nil && !a.clock.Before(a.until) {
		a.finish()
	}
	if a.running == nil {
		for _, e := range a.order {
			if e.result == nil {
				a.running, e.started = e, a.clock
				a.until = a.clock.Add(time.Duration(1+a.r.IntN(12)) * time.Minute)
				break
			}
		}
	}
	if beat {
		a.heartbeat()
	}
}

func (a *agent) receive() {
	var rest []*queued
	for _, q := range a.queue[a.host] {
		if a.clock.Before(q.after) || a.r.IntN(4) == 0 {
			rest = append(rest, q)
			continue
		}
		if a.r.IntN(20) == 0 { // delivered twice
			rest = append(rest, &queued{body: q.body, after: a.clock.Add(time.Duration(a.r.IntN(600)) * time.Second)})
		}
		a.take(q.body)
	}
	a.queue[a.host] = rest
}

func (a *agent) take(body []byte) {
	j, err := events.DecodeJob(body)
	if err != nil || j.Host != a.host {
		a.t.Errorf("host %s got %s: %v", a.host, body, err)
		return
	}
	refuse := func(code events.RefuseCode) {
		a.say(events.TypeJobRefused, events.JobRefused{Version: 1, Job: j.ID, Host: a.host, Source: j.Source, Kind: j.Kind, Code: code, Time: a.clock})
	}
	if e := a.journal[j.ID]; e != nil {
		refuse(events.Duplicate)
		if e.result != nil {
			a.say(events.TypeJobFinished, e.result)
		}
		return
	}
	if a.clock.After(j.NotAfter) {
		refuse(events.Stale)
		return
	}
	e := &entry{job: j}
	a.journal[j.ID] = e
	a.order = append(a.order, e)
	a.say(events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: j.ID, Host: a.host, Source: j.Source, Kind: j.Kind, Time: a.clock})
}

func (a *agent) finish() {
	e := a.running
	a.running = nil
	f := &events.JobFinished{
		Version: 1, Job: e.job.ID, Host: a.host, Source: e.job.Source, Kind: e.job.Kind, Type: e.job.Type, Due: e.job.Due,
		Result: events.OK, Started: e.started, Finished: a.clock,
	}
	switch {
	case a.fails || !a.calm && a.r.IntN(15) == 0:
		f.Result, f.Error = events.Failed, "no space left"
	case e.job.Kind == events.Verify:
		a.verify(e)
	default:
		f.Snapshot = a.store(e)
	}
	e.result = f
	a.say(events.TypeJobFinished, f)
}

// verify puts the receipt of a verification into the repository.
func (a *agent) verify(e *entry) {
	src := a.host + "/" + e.job.Source
	p := a.proofs[src]
	// One that is due in times to come, by a clock that is wrong, has no receipt after that: it is asked for again.
	if !p.Since(e.job.Type, e.job.Due) && !e.job.Due.After(a.clock) {
		if a.seen[src] == nil {
			a.seen[src] = runs{}
		}
		a.seen[src]["verify "+e.job.Type+" "+e.job.Due.Format(time.RFC3339)]++
	}
	*p.Of(e.job.Type) = schedule.Proof{At: a.clock}
	a.proofs[src] = p
}

// store puts the snapshot of a run into the repository.
func (a *agent) store(e *entry) uint64 {
	src := a.host + "/" + e.job.Source
	a.stored[src] = append(a.stored[src], manifest{snapshot.SnapshotType(e.job.Type), e.started, a.clock})
	if a.seen[src] == nil {
		a.seen[src] = runs{}
	}
	name := e.job.Due.Format(time.RFC3339)
	if a.lossy {
		// Where it was forgotten what was done, or what time it is, another type may be made for the same time.
		name += " " + e.job.Type
	}
	a.seen[src][name]++
	return uint64(len(a.stored[src]))
}

func (a *agent) heartbeat() {
	h := events.Heartbeat{Version: 1, Host: a.host, Agent: "1.0", Time: a.clock, Sources: map[string]events.LastRun{}}
	for _, e := range a.order {
		switch {
		case e == a.running:
			h.Running = &events.RunningJob{Job: e.job.ID, Source: e.job.Source, Kind: e.job.Kind, Started: e.started}
		case e.result == nil:
			h.Queued = append(h.Queued, e.job.ID)
		case e.job.Kind == events.Verify: // the agent tells only of backups
		default:
			f := e.result
			h.Sources[e.job.Source] = events.LastRun{
				Job: f.Job, Kind: f.Kind, Type: f.Type, Due: f.Due, Result: f.Result, Error: f.Error, Snapshot: f.Snapshot,
				Started: f.Started, Finished: f.Finished,
			}
		}
	}
	a.say(events.TypeHeartbeat, h)
}

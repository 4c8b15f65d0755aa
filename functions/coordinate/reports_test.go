package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestLost lets an accepted job fall silent. It is asked for again under its id, a few times.
func TestLost(t *testing.T) {
	w := calm(t, strings.Replace(hourly, "0 * * * *", "0 0 * * *", 1))
	w.clock = w.clock.Add(12 * time.Hour)
	w.must(w.tick())
	first := w.one("web-1")
	for n := range 4 {
		w.tell(w.accepted(first))
		w.run(25 * time.Minute)
		jobs := w.take("web-1")
		if n < 3 {
			if len(jobs) == 0 || slices.ContainsFunc(jobs, func(j *events.Job) bool { return j.ID != first.ID }) {
				t.Fatalf("loss %d: %d jobs", n, len(jobs))
			}
			w.wantState("web-1/etc", control.StateLate)
		} else if len(jobs) != 0 {
			t.Errorf("%d jobs after it was given up", len(jobs))
		}
	}
	w.wantState("web-1/etc", control.StateFailing)

	// It was made after all, and the news came late.
	n := w.put("web-1/etc", snapshot.Incremental, w.clock)
	w.clock = w.clock.Add(time.Minute)
	w.tell(w.finished(first, events.OK, n))
	w.wantState("web-1/etc", control.StateOK)
}

// TestHeartbeats keep a long job alive, tell of a lost acceptance and of a lost end.
func TestHeartbeats(t *testing.T) {
	w := calm(t, hourly)
	w.must(w.tick())
	j := w.one("web-1")
	beat := func(running bool, last map[string]events.LastRun) {
		h := events.Heartbeat{Version: 1, Host: "web-1", Agent: "2.0", Time: w.clock, Sources: last}
		if running {
			h.Running = &events.RunningJob{Job: j.ID, Source: j.Source, Kind: j.Kind, Started: w.clock}
		} else {
			h.Queued = []string{j.ID}
		}
		w.tell(w.event(events.TypeHeartbeat, h))
	}
	for i := range 30 {
		beat(i > 3, nil)
		w.run(5 * time.Minute)
	}
	if jobs := w.take("web-1"); len(jobs) > 1 || len(jobs) == 1 && jobs[0].ID != j.ID {
		t.Errorf("%d other jobs while one runs", len(jobs))
	}
	w.wantState("web-1/etc", control.StateRunning)
	if h := w.doc("web-1"); h.Agent != "2.0" || w.clock.Sub(h.Seen) > control.SeenEvery+5*time.Minute {
		t.Errorf("agent %q seen %s ago", h.Agent, w.clock.Sub(h.Seen))
	}
	n := w.put("web-1/etc", snapshot.Incremental, w.clock.Add(-150*time.Minute))
	w.stored["web-1/etc"][n-1].arrived = w.clock
	beat(true, map[string]events.LastRun{"etc": {
		Job: j.ID, Kind: events.Backup, Type: "incremental", Due: j.Due, Result: events.OK, Snapshot: n,
		Started: w.clock.Add(-150 * time.Minute), Finished: w.clock,
	}})
	if s := w.source("web-1/etc"); s.State != control.StateOK || s.Open != nil || s.Last.Snapshot != n {
		t.Errorf("%+v", s)
	}
	w.run(6 * time.Minute)
	if next := w.one("web-1"); !next.Due.Equal(j.Due.Add(2 * time.Hour)) {
		t.Errorf("what was due while it ran: %+v", next)
	}
}

// TestFailures asks again for what failed, under other ids and at growing distances.
func TestFailures(t *testing.T) {
	w := calm(t, strings.Replace(hourly, "0 * * * *", "0 0 * * *", 1))
	w.clock = w.clock.Add(12 * time.Hour)
	w.must(w.tick())
	first := w.one("web-1")
	ids := map[string]bool{first.ID: true}
	j := first
	for attempt, wait := range []time.Duration{5 * time.Minute, 30 * time.Minute, 180 * time.Minute} {
		w.tell(w.accepted(j), w.finished(j, events.Failed, 0))
		w.wantState("web-1/etc", control.StateLate)
		w.run(wait - time.Minute)
		if jobs := w.take("web-1"); len(jobs) != 0 {
			t.Errorf("attempt %d after less than %s", attempt+1, wait)
		}
		w.run(6 * time.Minute)
		jobs := w.take("web-1")
		if len(jobs) == 0 || ids[jobs[0].ID] || jobs[0].Attempt != attempt+1 || jobs[0].ID != events.RetryID(first.ID, attempt+1) {
			t.Fatalf("attempt %d: %d jobs", attempt+1, len(jobs))
		}
		j = jobs[0]
		ids[j.ID] = true
		w.tell(w.finished(first, events.Failed, 0)) // an old event again
	}
	w.tell(w.accepted(j), w.finished(j, events.Failed, 0))
	w.wantState("web-1/etc", control.StateFailing)
	w.run(first.Due.Add(24*time.Hour + time.Minute).Sub(w.clock))
	if next := w.one("web-1"); !next.Due.Equal(first.Due.Add(24 * time.Hour)) {
		t.Errorf("the next day: %+v", next)
	}
	w.wantState("web-1/etc", control.StateFailing) // until one goes well
}

func TestRefusals(t *testing.T) {
	w := calm(t, hourly)
	w.must(w.tick())
	j := w.one("web-1")
	refused := func(id string, code events.RefuseCode) []byte {
		return w.event(events.TypeJobRefused, events.JobRefused{Version: 1, Job: id, Host: "web-1", Source: "etc", Code: code, Reason: "no", Time: w.clock})
	}
	w.tell(refused(j.ID, events.Duplicate))
	if s := w.source("web-1/etc"); s.Open == nil || s.Open.Accepted.IsZero() {
		t.Errorf("what the journal has is not accepted: %+v", s)
	}
	forged := refused("", events.Forged)
	w.tell(forged, forged, refused("ffffffffffffffffffffffffffffffff", events.UnknownSource))
	w.wantState("web-1/etc", control.StateRunning)
	w.tell(refused(j.ID, events.NotAllowed))
	w.wantState("web-1/etc", control.StateFailing)
	if s := w.source("web-1/etc"); s.Open != nil || !strings.Contains(s.Error, "not_allowed: no") {
		t.Errorf("%+v", s)
	}
	if h := w.doc("web-1"); len(h.Refused) != 3 || h.Refused[0].Code != events.NotAllowed || h.Refused[2].Code != events.Forged {
		t.Errorf("refusals %+v", h.Refused)
	}
	w.clock = w.clock.Add(time.Minute)
	for range 50 {
		w.clock = w.clock.Add(time.Second)
		w.tell(refused("", events.Malformed))
	}
	if h := w.doc("web-1"); len(h.Refused) > 20 {
		t.Errorf("%d refusals are remembered", len(h.Refused))
	}
}

// TestEvidence believes objects, not events.
func TestEvidence(t *testing.T) {
	w := calm(t, hourly)
	w.must(w.tick())
	j := w.one("web-1")
	w.clock = w.clock.Add(time.Minute)
	w.tell(w.finished(j, events.OK, 99)) // no such snapshot
	w.wantState("web-1/etc", control.StateRunning)
	w.tell(w.finished(j, events.OK, 1)) // there, and older than the job
	w.wantState("web-1/etc", control.StateRunning)
	w.tell(w.finished(j, events.OK, 0))
	w.wantState("web-1/etc", control.StateRunning)
	if s := w.source("web-1/etc"); s.Done.Incremental.After(w.clock.Add(-time.Hour + time.Minute)) {
		t.Errorf("settled through %s", s.Done.Incremental)
	}
	// Nothing is heard of the job any more, and its snapshot is there.
	w.tell(w.accepted(j))
	w.put("web-1/etc", snapshot.Incremental, w.clock)
	w.run(30 * time.Minute)
	if s := w.source("web-1/etc"); s.State != control.StateOK || s.Last.Snapshot != 2 || len(w.take("web-1")) != 0 {
		t.Errorf("%+v", s)
	}
	// The control plane was away, and the agent backed up by its own schedule.
	w.clock = w.clock.Add(5*time.Hour + 10*time.Minute)
	w.put("web-1/etc", snapshot.Incremental, w.clock.Add(-20*time.Minute))
	w.must(w.tick())
	if jobs := w.take("web-1"); len(jobs) != 0 {
		t.Errorf("asked for what is there: %+v", jobs[0])
	}
}

const three = `
version: 1
repository: {primary: "s3://bucket?region=eu-central-1"}
limits: {concurrent: 1}
hosts:
  a: {sources: {s: {files: {roots: [/etc]}, schedule: {incremental: "0 * * * *", jitter: 0s}, objectives: {tier: low}}}}
  b: {sources: {s: {files: {roots: [/etc]}, schedule: {incremental: "0 * * * *", jitter: 0s}}}}
  c: {sources: {s: {files: {roots: [/etc]}, schedule: {incremental: "0 * * * *", jitter: 0s}, objectives: {tier: critical}}}}
`

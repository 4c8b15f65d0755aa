package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const hourly = `
version: 1
repository: {primary: "s3://bucket?region=eu-central-1"}
hosts:
  web-1:
    sources:
      etc: {files: {roots: [/etc]}, schedule: {incremental: "0 * * * *", jitter: 0s}}
`

// calm is a world in which nothing happens by chance, an hour after the last snapshot of each source.
func calm(t testing.TB, text string) *world {
	t.Helper()
	w := newWorld(t, 1, text)
	w.r = nil
	w.clock = time.Date(2026, 3, 6, 12, 0, 20, 0, time.UTC)
	w.p.Each(func(host, name string, _ *policy.Source) {
		w.put(host+"/"+name, snapshot.Full, w.clock.Add(-time.Hour))
	})
	return w
}

// put puts a snapshot into the repository.
func (w *world) put(src string, typ snapshot.SnapshotType, started time.Time) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored[src] = append(w.stored[src], manifest{typ, started, started.Add(time.Minute)})
	return uint64(len(w.stored[src]))
}

// run lets time pass, with a tick each minute.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	for end := w.clock.Add(d); w.clock.Before(end); {
		w.clock = w.clock.Add(time.Minute)
		w.must(w.tick())
	}
}

func (w *world) must(result any, err error) *Summary {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	s, _ := result.(*Summary)
	return s
}

// take returns the jobs in a host's queue and empties it.
func (w *world) take(host string) []*events.Job {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var jobs []*events.Job
	for _, q := range w.queue[host] {
		j, err := events.DecodeJob(q.body)
		if err != nil {
			w.t.Fatal(err)
		}
		jobs = append(jobs, j)
	}
	w.queue[host] = nil
	return jobs
}

// one returns the only job in a host's queue; it may be there several times.
func (w *world) one(host string) *events.Job {
	w.t.Helper()
	jobs := w.take(host)
	if len(jobs) == 0 || slices.ContainsFunc(jobs, func(j *events.Job) bool { return j.ID != jobs[0].ID }) {
		w.t.Fatalf("%s: %d jobs in the queue of %s", w.clock, len(jobs), host)
	}
	return jobs[0]
}

// tell hands events to the function and expects that all are taken.
func (w *world) tell(bodies ...[]byte) {
	w.t.Helper()
	result, err := w.invoke(batch(bodies...))
	if err != nil {
		w.t.Fatal(err)
	}
	if text, _ := json.Marshal(result); string(text) != `{"batchItemFailures":[]}` {
		w.t.Fatalf("%s", text)
	}
}

func (w *world) accepted(j *events.Job) []byte {
	return w.event(events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: j.ID, Host: j.Host, Source: j.Source, Kind: j.Kind, Time: w.clock})
}

func (w *world) finished(j *events.Job, result events.Result, n uint64) []byte {
	f := events.JobFinished{
		Version: 1, Job: j.ID, Host: j.Host, Source: j.Source, Kind: j.Kind, Type: j.Type, Due: j.Due, Result: result, Snapshot: n,
		Started: w.clock.Add(-time.Minute), Finished: w.clock,
	}
	if result == events.Failed {
		f.Error = "no space left"
	}
	return w.event(events.TypeJobFinished, f)
}

// state returns what is known of a source.
func (w *world) source(src string) *control.SourceJobs {
	w.t.Helper()
	host, name, _ := strings.Cut(src, "/")
	s := w.doc(host).Sources[name]
	if s == nil {
		w.t.Fatalf("nothing is known of %s", src)
	}
	return s
}

func (w *world) wantState(src string, want control.State) {
	w.t.Helper()
	if s := w.source(src); s.State != want {
		w.t.Errorf("%s: %s is %s (%s), want %s", w.clock, src, s.State, s.Error, want)
	}
}

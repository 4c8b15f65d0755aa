package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
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

// TestDay follows one source through its hours.
func TestDay(t *testing.T) {
	w := calm(t, hourly)
	if s := w.must(w.tick()); s.Asked != 1 {
		t.Fatalf("%+v", s)
	}
	for hour := range 5 {
		w.wantState("web-1/etc", control.StateRunning)
		j := w.one("web-1")
		if j.Type != "incremental" || !j.Due.Equal(w.clock.Truncate(time.Hour)) || !j.NotAfter.Equal(j.Due.Add(time.Hour)) {
			t.Errorf("job %+v", j)
		}
		// Ticks that come again, and one that comes an hour late.
		for _, at := range []time.Time{w.clock, w.clock, w.clock.Add(-time.Hour), {}} {
			w.must(w.invoke(events.Tick{Time: at}))
		}
		// The document is lost: the same run is asked for under the same id, and the journal drops the second.
		w.forget("web-1")
		w.run(3 * time.Minute)
		if again := w.one("web-1"); again.ID != j.ID {
			t.Errorf("hour %d: another id for the same run", hour)
		}
		w.tell(w.accepted(j))
		w.run(3 * time.Minute)
		n := w.put("web-1/etc", snapshot.Incremental, w.clock)
		w.clock = w.clock.Add(time.Minute)
		done := w.finished(j, events.OK, n)
		w.tell(done)
		w.tell(done, w.accepted(j), done)
		w.wantState("web-1/etc", control.StateOK)
		w.run(53 * time.Minute)
	}
	if n := w.state.Count(memstate.Put); n > 60 {
		t.Errorf("%d writes for 5 jobs", n)
	}
}

// TestQuiet looks what a minute costs in which nothing is due.
func TestQuiet(t *testing.T) {
	w := calm(t, hourly)
	w.clock = w.clock.Add(-30 * time.Minute)
	w.must(w.tick())
	gets, puts, looked := w.state.Count(memstate.Get), w.state.Count(memstate.Put), w.looked
	w.run(20 * time.Minute)
	if g, p := w.state.Count(memstate.Get)-gets, w.state.Count(memstate.Put)-puts; g != 20 || p != 0 || w.looked != looked {
		t.Errorf("%d reads, %d writes, %d requests to the repository in 20 quiet minutes", g, p, w.looked-looked)
	}
}

func TestNoQueue(t *testing.T) {
	w := calm(t, hourly)
	w.missing["web-1"] = true
	w.must(w.tick()) // no error
	w.run(12 * time.Minute)
	h := w.doc("web-1")
	if !strings.Contains(h.Problem, "holdfast host add web-1") || !h.Since.Equal(time.Date(2026, 3, 6, 12, 0, 20, 0, time.UTC)) {
		t.Errorf("problem %q since %s", h.Problem, h.Since)
	}
	w.missing["web-1"] = false
	w.run(6 * time.Minute)
	w.one("web-1")
	if h := w.doc("web-1"); h.Problem != "" || !h.Since.IsZero() {
		t.Errorf("problem %q since %s", h.Problem, h.Since)
	}
}

// TestNoName has a host whose name no queue can have.
func TestNoName(t *testing.T) {
	w := calm(t, strings.Replace(hourly, "web-1", "web.example", 1))
	w.missing["web.example"] = true
	w.must(w.tick())
	if h := w.doc("web.example"); !strings.Contains(h.Problem, "another name") {
		t.Errorf("problem %q", h.Problem)
	}
}

// TestSilentHost lets a host be off: the job is sent again at growing distances, then given up for the next run.
func TestSilentHost(t *testing.T) {
	w := calm(t, hourly)
	w.must(w.tick())
	first := w.one("web-1")
	w.run(59 * time.Minute)
	again := w.take("web-1")
	if len(again) != 2 || again[0].ID != first.ID || again[1].ID != first.ID {
		t.Errorf("%d messages sent again", len(again))
	}
	w.wantState("web-1/etc", control.StateLate)
	w.run(2 * time.Minute)
	if next := w.one("web-1"); next.ID == first.ID || !next.Due.Equal(first.Due.Add(time.Hour)) {
		t.Errorf("next job %+v", next)
	}
	w.wantState("web-1/etc", control.StateFailing)
	if s := w.source("web-1/etc"); s.Failures != 1 || !strings.Contains(s.Error, "did not take the job in time") {
		t.Errorf("%+v", s)
	}
}

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

// TestLimit lets one backup run at once over three hosts, the most important first.
func TestLimit(t *testing.T) {
	w := calm(t, three)
	for _, host := range []string{"c", "b", "a"} {
		s := w.must(w.tick())
		if s.Asked != 1 {
			t.Fatalf("%+v", s)
		}
		w.run(4 * time.Minute)
		jobs := w.take(host)
		if len(jobs) == 0 || len(w.sent) != map[string]int{"c": 1, "b": 2, "a": 3}[host] {
			t.Fatalf("not the turn of %s: %v", host, w.sent)
		}
		if host == "c" {
			w.wantState("a/s", control.StateWaiting)
			w.wantState("b/s", control.StateWaiting)
		}
		n := w.put(host+"/s", snapshot.Incremental, w.clock)
		w.clock = w.clock.Add(time.Minute)
		w.tell(w.finished(jobs[0], events.OK, n))
	}
	// The limit is lifted while all are due.
	w.clock = w.clock.Truncate(time.Hour).Add(61 * time.Minute)
	w.use(strings.Replace(three, "limits: {concurrent: 1}\n", "", 1))
	w.tag = "2"
	if s := w.must(w.tick()); s.Asked != 3 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// TestShards leaves the work to one invocation for each part of the hosts.
func TestShards(t *testing.T) {
	w := calm(t, strings.Replace(three, "concurrent: 1", "concurrent: 2", 1))
	w.fn.shardHosts = 1
	if s := w.must(w.tick()); s.Shards != 3 || len(w.own) != 3 {
		t.Fatalf("%+v, %v", s, w.own)
	}
	var bodies [][]byte
	for i, tick := range w.own {
		if tick.Shard != i || tick.Shards != 3 {
			t.Errorf("tick %+v", tick)
		}
		body, _ := json.Marshal(tick)
		bodies = append(bodies, body, body) // twice
	}
	w.tell(bodies...)
	total := 0
	for _, n := range w.sent {
		total += n
	}
	if total != 2 {
		t.Errorf("%d jobs with a limit of 2: %v", total, w.sent)
	}
	// Old ones are dropped: a newer one follows.
	w.clock = w.clock.Add(10 * time.Minute)
	gets := w.state.Count(memstate.Get)
	w.tell(bodies...)
	if n := w.state.Count(memstate.Get); n != gets {
		t.Errorf("%d reads for ticks that are over", n-gets)
	}
}

// TestPoison looks that messages that mean nothing fail, again and again, and the others of their batch do not.
func TestPoison(t *testing.T) {
	w := calm(t, hourly)
	w.must(w.tick())
	j := w.one("web-1")
	envelope := func(source, detailType, detail string) []byte {
		return fmt.Appendf(nil, `{"detail-type":%q,"source":%q,"time":"2026-03-06T12:00:00Z","detail":%s}`, detailType, source, detail)
	}
	result, err := w.invoke(batch(
		[]byte("not JSON"),
		[]byte(`{"time":"2026-03-06T12:00:00Z"}`), // a tick for all does not come by the queue
		[]byte(`{"time":"2026-03-06T12:00:00Z","shard":3,"shards":2}`),
		envelope("someone.else", events.TypeHeartbeat, `{"host":"web-1"}`),
		envelope(events.SourceAgent, "Holdfast Something", `{"host":"web-1"}`),
		envelope(events.SourceAgent, events.TypeHeartbeat, `{"host":7}`),
		envelope(events.SourceAgent, events.TypeHeartbeat, `{"host":"unknown"}`), // dropped
		w.accepted(j),
	))
	text, _ := json.Marshal(result)
	want := `{"batchItemFailures":[{"itemIdentifier":"0"},{"itemIdentifier":"1"},{"itemIdentifier":"2"},{"itemIdentifier":"3"},{"itemIdentifier":"4"},{"itemIdentifier":"5"}]}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	if w.source("web-1/etc").Open.Accepted.IsZero() {
		t.Error("the good message was not taken")
	}
	if _, _, err := w.state.Get(context.Background(), control.JobsKey("unknown")); err == nil {
		t.Error("an unknown host got a document")
	}
	for _, payload := range []string{"", "[]", `{"shard":-1}`, `{"Records":[{"eventSource":"aws:sqs","body":1}]}`} {
		if _, err := w.fn.handle(context.Background(), json.RawMessage(payload)); err == nil {
			t.Errorf("payload %q passes", payload)
		}
	}
}

// TestTrouble looks that one host's trouble is not that of the others.
func TestTrouble(t *testing.T) {
	w := calm(t, strings.Replace(three, "limits: {concurrent: 1}\n", "", 1))
	if _, err := w.state.Put(context.Background(), control.JobsKey("a"), []byte("damaged"), ""); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	w.state.Before = func(_ memstate.Op, key string) error {
		if key == control.JobsKey("b") {
			return boom
		}
		return nil
	}
	result, err := w.tick()
	s, _ := result.(*Summary)
	if !errors.Is(err, boom) || s == nil || s.Asked != 2 || s.Errors != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	w.state.Before = nil
	if s := w.must(w.tick()); s.Asked != 1 {
		t.Errorf("what failed is not made up: %+v", s)
	}
	// No policy, no decisions.
	w.fn.policy = func(context.Context) (*policy.Policy, string, error) { return nil, "", boom }
	if _, err := w.tick(); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	result, err = w.invoke(batch(w.event(events.TypeHeartbeat, events.Heartbeat{Host: "a"})))
	if text, _ := json.Marshal(result); err != nil || string(text) != `{"batchItemFailures":[{"itemIdentifier":"0"}]}` {
		t.Errorf("%s, %v", text, err)
	}
}

// TestDamaged damages every document in turn, at once: all heals by itself.
func TestDamaged(t *testing.T) {
	w := calm(t, three)
	for _, key := range []string{control.SlotsKey, control.ShardKey(0, 1), control.JobsKey("a"), control.JobsKey("b"), control.JobsKey("c")} {
		if _, err := w.state.Put(context.Background(), key, []byte("{"), ""); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.must(w.tick()); s.Asked != 1 || s.Waiting != 2 {
		t.Errorf("%+v", s)
	}
}

// TestTimeIsUp looks that what was not reached is done by the next tick.
func TestTimeIsUp(t *testing.T) {
	w := calm(t, strings.Replace(three, "limits: {concurrent: 1}\n", "", 1))
	ctx, cancel := context.WithCancel(context.Background())
	w.state.After = func(op memstate.Op, key string) error { // of several hosts at once
		if op == memstate.Put && strings.HasPrefix(key, control.JobsPrefix) {
			cancel()
		}
		return nil
	}
	if _, err := w.fn.tick(ctx, &events.Tick{Time: w.clock}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	w.state.After = nil
	w.clock = w.clock.Add(3 * time.Minute)
	w.must(w.tick())
	for host, n := range map[string]int{"a": 1, "b": 1, "c": 1} {
		if w.sent[host] < n {
			t.Errorf("host %s got %d jobs", host, w.sent[host])
		}
	}
}

// TestPolicyChanges removes a host whose job is open and holds the only slot.
func TestPolicyChanges(t *testing.T) {
	w := calm(t, three)
	w.must(w.tick())
	if len(w.take("c")) != 1 {
		t.Fatal("not the turn of c")
	}
	w.use(three[:strings.Index(three, "  c: ")])
	w.tag = "2"
	w.run(10 * time.Minute)
	w.one("b")
	// A source that leaves is forgotten, and one that comes is backed up at once.
	w.use(strings.Replace(three, "  b: {sources: {s:", "  b: {sources: {other:", 1))
	w.tag = "3"
	w.run(2 * time.Minute)
	if h := w.doc("b"); h.Sources["s"] != nil || h.Sources["other"] == nil {
		t.Errorf("%+v", h.Sources)
	}
}

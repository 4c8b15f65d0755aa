package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// world is everything around the function: clock, state, queues, agents, bus and repository, each as unreliable as the
// test wants it.
type world struct {
	t      testing.TB
	r      *rand.Rand
	p      *policy.Policy
	tag    string
	clock  time.Time
	skew   time.Duration // of the function's clock
	calm   bool          // no job fails
	lossy  bool          // the state gets lost, or the function's clock is wrong
	state  *memstate.Store
	agents map[string]*agent
	bus    []delivery
	fn     *coordinator
	log    bytes.Buffer

	mu      sync.Mutex
	missing map[string]bool       // hosts without a queue
	sent    map[string]int        // messages by host; guarded by mu
	own     []events.Tick         // guarded by mu
	stored  map[string][]manifest // by source; guarded by mu
	looked  int                   // requests to the repository; guarded by mu
	crash   int                   // effects until the function dies; < 0: it does not; guarded by mu
	dead    bool                  // guarded by mu
	queue   map[string][]*queued  // by host; guarded by mu
	seen    map[string]runs       // by source
}

type manifest struct {
	typ              snapshot.SnapshotType
	started, arrived time.Time
}

type queued struct {
	body  []byte
	after time.Time
}

type delivery struct {
	at   time.Time
	body []byte
}

// runs counts how often a run was made, by what names it.
type runs map[string]int

var errCrash = errors.New("the function died")

func newWorld(t testing.TB, seed uint64, text string) *world {
	t.Helper()
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, 7)), state: memstate.New(), tag: "1", crash: -1, missing: map[string]bool{},
		clock: time.Date(2026, 3, 5, 0, 0, 30, 0, time.UTC), agents: map[string]*agent{}, sent: map[string]int{},
		stored: map[string][]manifest{}, queue: map[string][]*queued{}, seen: map[string]runs{},
	}
	w.use(text)
	w.state.Before = func(op memstate.Op, _ string) error { return w.effect(op == memstate.Put, true) }
	w.state.After = func(op memstate.Op, _ string) error { return w.effect(op == memstate.Put, false) }
	w.fn = &coordinator{
		state: w.state, queues: w, manifests: w, shardHosts: 500, now: func() time.Time { return w.clock.Add(w.skew) },
		policy: func(context.Context) (*policy.Policy, string, error) { return w.p, w.tag, w.effect(false, true) },
	}
	return w
}

// use puts another policy into force.
func (w *world) use(text string) {
	w.t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	w.p = p
	for host := range p.Hosts {
		if w.agents[host] == nil {
			w.agents[host] = &agent{world: w, host: host, online: true, journal: map[string]*entry{}}
		}
	}
}

// effect lets the function die before or after one of its effects; whoever is dead has no further effects.
func (w *world) effect(counts, before bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errCrash
	}
	if !counts || w.crash < 0 {
		return nil
	}
	if w.crash == 0 {
		w.dead = true
		return errCrash
	}
	w.crash--
	_ = before
	return nil
}

// Send implements [queues].
func (w *world) Send(_ context.Context, host string, jobs []*events.Job) error {
	if err := w.effect(true, true); err != nil {
		return err
	}
	if w.missing[host] {
		return errNoQueue
	}
	w.mu.Lock()
	for _, j := range jobs {
		body, err := events.EncodeJob(j)
		if err != nil {
			w.t.Error(err)
		}
		w.sent[host]++
		w.queue[host] = append(w.queue[host], &queued{body: body})
	}
	w.mu.Unlock()
	return w.effect(true, false)
}

// Fan implements [queues].
func (w *world) Fan(_ context.Context, ticks []events.Tick) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.own = append(w.own, ticks...)
	return nil
}

// Newest implements [manifests].
func (w *world) Newest(_ context.Context, _ *policy.Policy, src snapshot.Source) (control.Evidence, error) {
	if err := w.effect(false, true); err != nil {
		return control.Evidence{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked++
	list := w.stored[src.String()]
	if len(list) == 0 {
		return control.Evidence{}, nil
	}
	m := list[len(list)-1]
	e := control.Evidence{Sequence: uint64(len(list)), Type: m.typ, Started: m.started, Arrived: m.arrived}
	for _, m := range list {
		e.Settled = e.Settled.Settle(m.typ, m.started)
	}
	return e, nil
}

// Arrived implements [manifests].
func (w *world) Arrived(_ context.Context, _ *policy.Policy, id snapshot.ID) (time.Time, error) {
	if err := w.effect(false, true); err != nil {
		return time.Time{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked++
	list := w.stored[id.Source.String()]
	if id.Sequence > uint64(len(list)) {
		return time.Time{}, nil
	}
	return list[id.Sequence-1].arrived, nil
}

// invoke calls the function as Lambda does; the process may die on the way.
func (w *world) invoke(payload any) (any, error) {
	w.t.Helper()
	body, err := json.Marshal(payload)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx := invoke.WithLog(context.Background(), invoke.NewLog(&w.log, "debug"))
	result, err := w.fn.handle(ctx, body)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead, w.crash = false, -1
	return result, err
}

func (w *world) tick() (any, error) {
	w.t.Helper()
	return w.invoke(events.Tick{Version: 1, Time: w.clock.Truncate(time.Minute)})
}

// batch makes the payload of a queue's messages.
func batch(bodies ...[]byte) map[string]any {
	var records []map[string]any
	for i, body := range bodies {
		records = append(records, map[string]any{
			"messageId": fmt.Sprint(i), "eventSource": "aws:sqs", "body": string(body),
			"attributes": map[string]string{"ApproximateReceiveCount": "1"},
		})
	}
	return map[string]any{"Records": records}
}

// doc returns a host's document.
func (w *world) doc(host string) *control.HostJobs {
	w.t.Helper()
	body, _, err := w.state.Get(context.Background(), control.JobsKey(host))
	if err != nil {
		w.t.Fatal(err)
	}
	h := &control.HostJobs{}
	if err := json.Unmarshal(body, h); err != nil {
		w.t.Fatal(err)
	}
	return h
}

// event makes what EventBridge delivers.
func (w *world) event(detailType string, detail any) []byte {
	body, err := json.Marshal(detail)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err = json.Marshal(events.Envelope{
		ID: "x", DetailType: detailType, Source: events.SourceAgent, Time: w.clock.Truncate(time.Second), Detail: body,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return body
}

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
	if a.fails || !a.calm && a.r.IntN(15) == 0 {
		f.Result, f.Error = events.Failed, "no space left"
	} else {
		f.Snapshot = a.store(e)
	}
	e.result = f
	a.say(events.TypeJobFinished, f)
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

// deliver hands the events that have arrived to the function, in batches; those that fail come again.
func (w *world) deliver() {
	var due [][]byte
	w.bus = slices.DeleteFunc(w.bus, func(d delivery) bool {
		if d.at.After(w.clock) {
			return false
		}
		due = append(due, d.body)
		return true
	})
	w.r.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	for part := range slices.Chunk(due, 10) {
		if w.r.IntN(10) == 0 {
			w.crash = w.r.IntN(6)
		}
		result, err := w.invoke(batch(part...))
		text, _ := json.Marshal(result)
		for i, body := range part {
			if err != nil || bytes.Contains(text, fmt.Appendf(nil, `{"itemIdentifier":"%d"}`, i)) {
				w.bus = append(w.bus, delivery{w.clock.Add(time.Minute), body})
			}
		}
	}
}

// forget loses a host's document.
func (w *world) forget(host string) {
	_, tag, err := w.state.Get(context.Background(), control.JobsKey(host))
	if err == nil {
		_ = w.state.Delete(context.Background(), control.JobsKey(host), tag)
	}
}

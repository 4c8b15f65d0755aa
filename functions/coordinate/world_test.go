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
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
	"github.com/btcdecoded/holdfast/test/granted"
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
	missing map[string]bool            // hosts without a queue
	sent    map[string]int             // messages by host; guarded by mu
	own     []events.Tick              // guarded by mu
	stored  map[string][]manifest      // by source; guarded by mu
	proofs  map[string]schedule.Proofs // likewise: receipts of the agents
	looked  int                        // requests to the repository; guarded by mu
	crash   int                        // effects until the function dies; < 0: it does not; guarded by mu
	dead    bool                       // guarded by mu
	queue   map[string][]*queued       // by host; guarded by mu
	seen    map[string]runs            // by source
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
		stored: map[string][]manifest{}, proofs: map[string]schedule.Proofs{}, queue: map[string][]*queued{}, seen: map[string]runs{},
	}
	w.use(text)
	w.state.Before = func(op memstate.Op, _ string) error { return w.effect(op == memstate.Put, true) }
	w.state.After = func(op memstate.Op, _ string) error { return w.effect(op == memstate.Put, false) }
	w.fn = &coordinator{
		state: granted.Of(t, "coordinate", false).State(w.state), queues: w, manifests: w, shardHosts: 500, now: func() time.Time { return w.clock.Add(w.skew) },
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

// Proofs implements [manifests].
func (w *world) Proofs(_ context.Context, _ *policy.Policy, src snapshot.Source) (schedule.Proofs, error) {
	if err := w.effect(false, true); err != nil {
		return schedule.Proofs{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked++
	return w.proofs[src.String()], nil
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
	var named struct{ Host string }
	if err := json.Unmarshal(body, &named); err != nil {
		w.t.Fatal(err)
	}
	body, err = json.Marshal(events.Envelope{
		ID: "x", DetailType: detailType, Source: events.AgentSource(named.Host), Time: w.clock.Truncate(time.Second), Detail: body,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return body
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

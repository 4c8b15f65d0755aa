package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

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
		envelope("holdfast.agent.web-1", "Holdfast Something", `{"host":"web-1"}`),
		envelope("holdfast.agent.web-1", events.TypeHeartbeat, `{"host":7}`),
		envelope("holdfast.agent.unknown", events.TypeHeartbeat, `{"host":"unknown"}`), // dropped
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
	var first atomic.Bool // of several hosts at once; the others do not write before the time is up
	w.state.Before = func(op memstate.Op, key string) error {
		if op == memstate.Put && strings.HasPrefix(key, control.JobsPrefix) && !first.CompareAndSwap(false, true) {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	w.state.After = func(op memstate.Op, key string) error {
		if op == memstate.Put && strings.HasPrefix(key, control.JobsPrefix) {
			cancel()
		}
		return nil
	}
	if _, err := w.fn.tick(ctx, &events.Tick{Time: w.clock}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	w.state.Before, w.state.After = nil, nil
	w.clock = w.clock.Add(3 * time.Minute)
	w.must(w.tick())
	for host, n := range map[string]int{"a": 1, "b": 1, "c": 1} {
		if w.sent[host] < n {
			t.Errorf("host %s got %d jobs", host, w.sent[host])
		}
	}
}

// TestJobOfAWrongClock: the function's clock was a year ahead for one tick. What it asked for then is no run of now, and keeps
// none from being asked for; nor is any taken for settled when that job ends.
func TestJobOfAWrongClock(t *testing.T) {
	w := calm(t, hourly)
	w.skew = 400 * 24 * time.Hour
	w.must(w.tick())
	wrong := w.one("web-1")
	w.skew = 0
	w.tell(w.accepted(wrong))
	w.run(2 * time.Minute)
	right := w.take("web-1")
	if len(right) == 0 || right[0].Due.After(w.clock) {
		t.Fatalf("%s: asked for %+v", w.clock, right)
	}
	w.tell(w.accepted(right[0]), w.finished(right[0], events.OK, w.put("web-1/etc", snapshot.Incremental, w.clock)))
	w.tell(w.finished(wrong, events.Failed, 0))
	w.run(time.Hour)
	if next := w.one("web-1"); !next.Due.After(right[0].Due) || next.Due.After(w.clock) {
		t.Errorf("%s: %+v after %+v", w.clock, next, right[0])
	}
	w.wantState("web-1/etc", control.StateRunning)
}

package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

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

// TestSlotsOfTheDead: a host that takes no job, and one whose attempts fail, keep no other from being backed up: the limit is
// for backups that run.
func TestSlotsOfTheDead(t *testing.T) {
	w := calm(t, three)
	w.must(w.tick())
	if w.sent["c"] != 1 {
		t.Fatalf("not the turn of c: %v", w.sent)
	}
	w.run(20 * time.Minute) // c does not take it
	job := w.one("b")
	w.tell(w.accepted(job), w.finished(job, events.Failed, 0))
	// b is asked again in five minutes, and in half an hour, whoever is at work by then.
	w.run(8 * time.Minute)
	if job = w.one("b"); job.Attempt != 1 {
		t.Fatalf("b is not asked again: %+v", job)
	}
	w.tell(w.accepted(job), w.finished(job, events.Failed, 0))
	w.run(8 * time.Minute)
	w.tell(w.accepted(w.one("a")))
	w.run(23 * time.Minute)
	if job = w.one("b"); job.Attempt != 2 {
		t.Errorf("b is not asked again: %+v", job)
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

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

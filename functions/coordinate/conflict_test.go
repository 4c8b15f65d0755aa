package main

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// TestConflicts lets another tick or an event come between reading and writing a document.
func TestConflicts(t *testing.T) {
	between := func(w *world, do func()) {
		var done atomic.Bool
		w.state.Before = func(op memstate.Op, key string) error {
			if op == memstate.Put && key == control.JobsKey("web-1") && done.CompareAndSwap(false, true) {
				do()
			}
			return nil
		}
	}
	t.Run("two ticks", func(t *testing.T) {
		w := calm(t, strings.Replace(hourly, "hosts:", "limits: {concurrent: 1}\nhosts:", 1))
		between(w, func() { w.must(w.tick()) })
		w.must(w.tick())
		if jobs := w.take("web-1"); len(jobs) != 1 {
			t.Errorf("%d messages", len(jobs))
		}
	})
	t.Run("an event", func(t *testing.T) {
		w := calm(t, hourly)
		w.clock = w.clock.Add(-30 * time.Minute)
		w.must(w.tick())
		w.clock = w.clock.Add(30 * time.Minute)
		between(w, func() { w.tell(w.event(events.TypeHeartbeat, events.Heartbeat{Version: 1, Host: "web-1", Agent: "9"})) })
		if s := w.must(w.tick()); s.Asked != 1 {
			t.Errorf("%+v", s)
		}
		if h := w.doc("web-1"); h.Agent != "9" || h.Sources["etc"].Open == nil {
			t.Errorf("one of the two is lost: %+v", h)
		}
	})
	t.Run("a tick between an event", func(t *testing.T) {
		w := calm(t, hourly)
		w.clock = w.clock.Add(-30 * time.Minute)
		w.must(w.tick())
		w.clock = w.clock.Add(30 * time.Minute)
		between(w, func() { w.must(w.tick()) })
		w.tell(w.event(events.TypeHeartbeat, events.Heartbeat{Version: 1, Host: "web-1", Agent: "9"}))
		if h := w.doc("web-1"); h.Agent != "9" || h.Sources["etc"].Open == nil {
			t.Errorf("one of the two is lost: %+v", h)
		}
	})
}

// TestAtOnce lets ticks and events run side by side.
func TestAtOnce(t *testing.T) {
	w := calm(t, fleet(20, 3))
	w.clock = w.clock.Add(10 * time.Minute)
	ctx := invoke.WithLog(context.Background(), invoke.NewLog(&discard{}, ""))
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			if i%2 == 0 {
				if _, err := w.fn.tick(ctx, &events.Tick{Time: w.clock}); err != nil {
					t.Error(err)
				}
				return
			}
			var bodies [][]byte
			for host := range w.p.Hosts {
				bodies = append(bodies, w.event(events.TypeHeartbeat, events.Heartbeat{Version: 1, Host: host, Agent: "9"}))
			}
			payload, _ := json.Marshal(batch(bodies...))
			if _, err := w.fn.handle(ctx, payload); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	w.clock = w.clock.Add(time.Minute)
	w.must(w.tick())
	for host := range w.p.Hosts {
		ids := map[string]bool{}
		for _, j := range w.take(host) {
			ids[j.ID] = true
		}
		if len(ids) != 3 || len(w.doc(host).Sources) != 3 {
			t.Errorf("%s: %d jobs", host, len(ids))
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// FuzzPayload hands in whatever comes: nothing panics, and what is no message of ours is refused.
func FuzzPayload(f *testing.F) {
	f.Add([]byte(`{"version":1,"time":"2026-03-06T12:00:00Z"}`))
	f.Add([]byte(`{"Records":[{"messageId":"1","eventSource":"aws:sqs","body":"{\"time\":\"2026-03-06T12:00:00Z\",\"shard\":0,\"shards\":2}"}]}`))
	for _, event := range []string{
		`{"detail-type":"Holdfast Heartbeat","source":"holdfast.agent.web-1","detail":{"host":"web-1","sources":{"etc":{"result":"ok","snapshot":1,"finished":"2027-01-01T00:00:00Z"}}}}`,
		`{"detail-type":"Holdfast Job Finished","source":"holdfast.agent.web-1","detail":{"host":"web-1","source":"etc","kind":"backup","result":"ok","snapshot":1,"job":"00000000000000000000000000000000"}}`,
		`{"detail-type":"Holdfast Job Refused","source":"holdfast.agent.web-1","detail":{"host":"web-1","source":"etc","code":"stale"}}`,
	} {
		body, _ := json.Marshal(batch([]byte(event)))
		f.Add(body)
	}
	w := calm(f, hourly)
	w.must(w.tick())
	f.Fuzz(func(_ *testing.T, payload []byte) {
		_, _ = w.fn.handle(context.Background(), payload) // an error is an answer
	})
}

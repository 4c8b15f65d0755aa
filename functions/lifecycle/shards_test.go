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

	"github.com/aws/aws-lambda-go/events"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// fakeQueue keeps what was put into the function's own queue.
type fakeQueue struct {
	bodies []string
	fail   error
}

func (q *fakeQueue) Put(_ context.Context, bodies []string) error {
	if q.fail != nil {
		return q.fail
	}
	q.bodies = append(q.bodies, bodies...)
	return nil
}

// deliver gives the messages to the function, as its queue does, and returns how many failed.
func (q *fakeQueue) deliver(t *testing.T, f *function) (failed int) {
	t.Helper()
	bodies := q.bodies
	q.bodies = nil
	for i, body := range bodies {
		payload, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{{MessageId: fmt.Sprint(i), Body: body, EventSource: "aws:sqs"}}})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := f.handle(t.Context(), payload)
		if err != nil {
			t.Fatal(err)
		}
		failed += len(answer.(events.SQSEventResponse).BatchItemFailures)
	}
	return failed
}

const shardHosts, shardEach = 20, 3

// many has sources of many hosts, and a queue of its own for ticks of seven sources each.
func many(t *testing.T) (*stage, *fakeQueue) {
	t.Helper()
	s := newStage(t, "{daily: 7}")
	var text strings.Builder
	text.WriteString("version: 1\nrepository: {primary: \"s3://b?region=r\"}\nhosts:\n")
	for h := range shardHosts {
		fmt.Fprintf(&text, "  h%d: {sources: {", h)
		for n := range shardEach {
			fmt.Fprintf(&text, "s%d: {files: {roots: [/srv]}}, ", n)
			s.Source = source(h, n)
			s.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(1, 100)})
		}
		text.WriteString("}}\n")
	}
	p, err := policy.Parse([]byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	q := &fakeQueue{}
	s.policy, s.f.queue, s.f.env.Shard = p, q, 7
	return s, q
}

func source(host, n int) snapshot.Source {
	return snapshot.Source{Host: fmt.Sprintf("h%d", host), Name: fmt.Sprintf("s%d", n)}
}

// passes counts the sources that had a pass now.
func (s *stage) passes() (n int) {
	for h := range shardHosts {
		for i := range shardEach {
			d, _, err := statestore.Read[control.LifecycleSource](s.t.Context(), s.state, control.LifecycleSourceKey(source(h, i)))
			if err == nil && d.Passed.Equal(s.Now.UTC()) {
				n++
			}
		}
	}
	return n
}

// fan sends the tick of now.
func (s *stage) fan() (any, error) {
	return s.f.handle(s.t.Context(), fmt.Appendf(nil, `{"version":1,"time":%q}`, s.Now.Format(time.RFC3339)))
}

// TestShards: each source has its pass in one of the shards, once.
func TestShards(t *testing.T) {
	s, q := many(t)
	q.fail = errors.New("no answer")
	if _, err := s.fan(); err == nil {
		t.Error("a queue that does not answer is no error")
	}
	q.fail = nil
	answer, err := s.fan()
	if err != nil || answer.(fanned).Shards != 9 || len(q.bodies) != 9 {
		t.Fatalf("%+v, %v, %d messages", answer, err, len(q.bodies))
	}
	if failed := q.deliver(t, s.f); failed != 0 || s.passes() != shardHosts*shardEach {
		t.Errorf("%d messages failed, %d sources had a pass", failed, s.passes())
	}
	// An hour later it is nobody's turn, and nobody lists the hosts.
	s.Now = s.Now.Add(time.Hour)
	if _, err := s.fan(); err != nil {
		t.Fatal(err)
	}
	lists := s.Store.Count(mem.List)
	if q.deliver(t, s.f); s.passes() != 0 || s.Store.Count(mem.List)-lists > 20 {
		t.Errorf("%d sources had a pass, %d listings", s.passes(), s.Store.Count(mem.List)-lists)
	}
	// A new source is found in time.
	s.Source = snapshot.Source{Host: "h3", Name: "new"}
	s.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(1, 100)})
	s.Now = s.Now.Add(6 * time.Hour)
	if _, err := s.fan(); err != nil {
		t.Fatal(err)
	}
	q.deliver(t, s.f)
	if d := s.doc(); !d.Passed.Equal(s.Now.UTC()) {
		t.Errorf("the new source had its pass at %s", d.Passed)
	}
}

// TestShardThatFails: what always fails in one shard fails with each beat, as a message of the queue. That is counted, and an
// alarm tells of it: by the time the message comes again it is too old, and never gets to the dead letters.
func TestShardThatFails(t *testing.T) {
	s, q := many(t)
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Lock && c.Key == layout.RepositoryKey {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	s.Now = s.Now.Add(2 * day) // the bucket's own retention is as long as that is patience
	for range 3 {
		if _, err := s.fan(); err != nil {
			t.Fatal(err)
		}
		bodies := slices.Clone(q.bodies)
		if failed := q.deliver(t, s.f); failed != 1 {
			t.Errorf("%d of %d messages failed", failed, len(bodies))
		}
		s.Now = s.Now.Add(90 * time.Minute) // as long as a message rests
		q.bodies = bodies
		if failed := q.deliver(t, s.f); failed != 0 {
			t.Errorf("%d old messages failed", failed)
		}
	}
}

// TestTicksOfShards has ticks that waited for too long, messages that are none, and a person's order.
func TestTicksOfShards(t *testing.T) {
	s, q := many(t)
	q.bodies = []string{fmt.Sprintf(`{"version":1,"time":%q,"shard":0,"shards":9}`, s.Now.Add(-2*time.Hour).Format(time.RFC3339))}
	if failed := q.deliver(t, s.f); failed != 0 || s.passes() != 0 {
		t.Errorf("%d failed, %d passes", failed, s.passes())
	}
	q.bodies = []string{"{", tick, `{"shards":2,"sources":["a/b"]}`}
	if failed := q.deliver(t, s.f); failed != 3 {
		t.Errorf("%d of 3 failed", failed)
	}
	if out := s.call(`{"sources":["h3/s0"]}`); out.Done != 1 {
		t.Errorf("%+v", out)
	}
	if _, err := s.f.handle(t.Context(), []byte(`{"sources":["h3/s0","h4/s0","h5/s0"]}`)); err == nil {
		t.Error("sources of several shards have no lease together")
	}
	err := statestore.Update(t.Context(), s.state, control.LifecycleShardKey(control.ShardOf("h3", 9), 9), func(c *control.LifecycleCursor) error {
		c.Busy = control.Lease{Owner: "other", Until: s.Now.Add(time.Minute)}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out := s.call(`{"sources":["h3/s0"]}`); !out.Busy {
		t.Errorf("%+v", out)
	}
}

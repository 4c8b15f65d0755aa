package queue_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/hostagent/queue"
	"github.com/btcdecoded/holdfast/hostagent/queue/queuetest"
)

// start starts a server and makes it the AWS of this process.
func start(t *testing.T) *queuetest.Server {
	t.Helper()
	s := queuetest.Start(t)
	for _, pair := range s.Environment() {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	return s
}

func TestReceive(t *testing.T) {
	s := start(t)
	for _, at := range []string{"holdfast-web-1", s.URL + "/000000000000/holdfast-web-1"} {
		s.Make("holdfast-web-1")
		s.Send("holdfast-web-1", "one")
		s.Send("holdfast-web-1", "two")
		q, bus, err := queue.Open(t.Context(), queue.Options{Queue: at})
		if err != nil || bus != nil {
			t.Fatal(bus, err)
		}
		list, err := q.Receive(t.Context(), time.Minute)
		if err != nil || len(list) != 2 || string(list[0].Body) != "one" || string(list[1].Body) != "two" {
			t.Fatalf("%q, %v", list, err)
		}
		if err := q.Delete(t.Context(), list[1].Handle); err != nil {
			t.Fatal(err)
		}
		if n := s.Left("holdfast-web-1"); n != 1 {
			t.Errorf("%d messages left", n)
		}
	}
	q, _, err := queue.Open(t.Context(), queue.Options{Queue: "holdfast-none"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Receive(t.Context(), 0); !errors.Is(err, queue.ErrNoQueue) {
		t.Errorf("a queue that is not there: %v", err)
	}
	// It is made meanwhile, and found without a new start.
	s.Make("holdfast-none")
	if list, err := q.Receive(t.Context(), 0); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestRegion(t *testing.T) {
	start(t)
	t.Setenv("AWS_REGION", "")
	if _, _, err := queue.Open(t.Context(), queue.Options{Queue: "holdfast-x"}); err == nil || !strings.Contains(err.Error(), "no AWS region") {
		t.Errorf("without a region: %v", err)
	}
	if _, _, err := queue.Open(t.Context(), queue.Options{Queue: "https://sqs.eu-central-1.amazonaws.com/1/holdfast-x"}); err != nil {
		t.Errorf("the region is in the URL: %v", err)
	}
}

func testEvents(n, size int) (out []queue.Event) {
	for i := range n {
		out = append(out, queue.Event{
			Type: fmt.Sprint("type ", i), Detail: `{"x":"` + strings.Repeat("x", size) + `"}`,
		})
	}
	return out
}

func TestPut(t *testing.T) {
	s := start(t)
	_, bus, err := queue.Open(t.Context(), queue.Options{Queue: "q", Bus: "holdfast", Host: "web-1"})
	if err != nil {
		t.Fatal(err)
	}
	// More than one request takes, in number and in size.
	for _, list := range [][]queue.Event{testEvents(25, 10), testEvents(9, 60_000)} {
		for i, err := range bus.Put(t.Context(), list) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		var want []queuetest.Event
		for _, e := range list {
			want = append(want, queuetest.Event{Bus: "holdfast", Source: "holdfast.agent.web-1", Type: e.Type, Detail: e.Detail})
		}
		if diff := cmp.Diff(want, s.Events()); diff != "" {
			t.Errorf("%.1000s", diff)
		}
		if n := len(s.Calls()); n != 3 {
			t.Errorf("%d requests", n)
		}
	}
	// Some do not arrive.
	s.FailEvent(func(kind string) string {
		return map[string]string{"type 1": "ThrottlingException", "type 2": "MalformedDetail"}[kind]
	})
	got := bus.Put(t.Context(), testEvents(4, 1))
	if got[0] != nil || got[1] == nil || errors.Is(got[1], queue.ErrNever) || !errors.Is(got[2], queue.ErrNever) || got[3] != nil {
		t.Errorf("%v", got)
	}
	s.FailEvent(nil)
	// The whole request fails.
	s.Fail(func(string) (int, string) { return http.StatusBadRequest, "ValidationException" })
	if got = bus.Put(t.Context(), testEvents(1, 1)); !errors.Is(got[0], queue.ErrNever) {
		t.Errorf("%v", got)
	}
	for i, err := range bus.Put(t.Context(), testEvents(12, 1)) {
		if err == nil || errors.Is(err, queue.ErrNever) {
			t.Errorf("%d: %v", i, err)
		}
	}
	s.Fail(func(string) (int, string) { return http.StatusServiceUnavailable, "ServiceUnavailable" })
	if got = bus.Put(t.Context(), testEvents(1, 1)); got[0] == nil || errors.Is(got[0], queue.ErrNever) {
		t.Errorf("%v", got)
	}
}

func TestHosts(t *testing.T) {
	s := start(t)
	hosts, err := queue.OpenHosts(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := hosts.Add(t.Context(), "web-1"); !errors.Is(err, queue.ErrNoDeadLetters) || len(s.Names()) != 0 {
		t.Errorf("without a deployment: %v", err)
	}
	s.Make("holdfast-jobs-dlq")
	for _, again := range []bool{false, true} {
		h, made, err := hosts.Add(t.Context(), "web-1")
		if err != nil || made == again || h.Queue != "holdfast-web-1" || h.URL == "" {
			t.Errorf("%+v, %v, %v", h, made, err)
		}
		want := map[string]string{
			"VisibilityTimeout": "60", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "20", "SqsManagedSseEnabled": "true",
			"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:000000000000:holdfast-jobs-dlq","maxReceiveCount":"5"}`,
		}
		s.Change("holdfast-web-1", func(q *queuetest.Queue) {
			if diff := cmp.Diff(want, q.Attributes); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(map[string]string{"holdfast-host": "web-1", "application": "holdfast"}, q.Tags); diff != "" {
				t.Error(diff)
			}
			// Somebody changes it; the same command puts it right.
			if !again {
				q.Attributes["RedrivePolicy"], q.Tags["holdfast-host"] = "", "web-2"
			}
		})
	}
	s.Send("holdfast-web-1", "a")
	s.Send("holdfast-web-1", "b")
	s.Make("holdfast-other") // somebody else's
	list, err := hosts.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "web-1" || list[0].Waiting != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	for _, want := range []bool{true, false} {
		if removed, err := hosts.Remove(t.Context(), "web-1"); err != nil || removed != want {
			t.Errorf("removed %v, %v", removed, err)
		}
	}
	for _, bad := range []string{"web.1", "jobs-dlq", ""} {
		if _, _, err := hosts.Add(t.Context(), bad); err == nil {
			t.Errorf("host %q is added", bad)
		}
		if _, err := hosts.Remove(t.Context(), bad); err == nil {
			t.Errorf("host %q is removed", bad)
		}
	}
}

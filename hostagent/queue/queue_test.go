package queue_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/hostagent/queue"
)

// server answers as SQS and EventBridge do, by their JSON protocols, from memory.
type server struct {
	*httptest.Server

	mu     sync.Mutex
	queues map[string]*fakeQueue // by name
	events []map[string]any
	calls  []string
	fail   func(call string, in map[string]any) (status int, code string)
	entry  func(detailType string) (code string)
}

type fakeQueue struct {
	attributes, tags map[string]string
	messages         []string
	gone             []string
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{queues: map[string]*fakeQueue{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": s.URL, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-west-1",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_PROFILE": "", "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
	return s
}

func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in map[string]any
	_ = json.NewDecoder(r.Body).Decode(&in)
	_, call, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	s.calls = append(s.calls, call)
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if s.fail != nil {
		if status, code := s.fail(call, in); code != "" {
			refuse(w, status, code)
			return
		}
	}
	if call == "PutEvents" {
		_ = json.NewEncoder(w).Encode(s.put(in))
		return
	}
	out, ok := s.sqs(call, in)
	if !ok {
		refuse(w, http.StatusBadRequest, "com.amazonaws.sqs#QueueDoesNotExist")
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"__type":%q,"message":"no"}`, code)
}

func (s *server) put(in map[string]any) any {
	var entries []map[string]any
	failed := 0
	for _, e := range in["Entries"].([]any) {
		event := e.(map[string]any)
		if s.entry != nil {
			if code := s.entry(event["DetailType"].(string)); code != "" {
				entries = append(entries, map[string]any{"ErrorCode": code, "ErrorMessage": "no"})
				failed++
				continue
			}
		}
		s.events = append(s.events, event)
		entries = append(entries, map[string]any{"EventId": "x"})
	}
	return map[string]any{"FailedEntryCount": failed, "Entries": entries}
}

func (s *server) sqs(call string, in map[string]any) (any, bool) {
	name, _ := in["QueueName"].(string)
	if at, ok := in["QueueUrl"].(string); ok {
		name = at[strings.LastIndex(at, "/")+1:]
	}
	q, there := s.queues[name]
	url := s.URL + "/000000000000/" + name
	switch call {
	case "CreateQueue":
		s.queues[name] = &fakeQueue{attributes: texts(in["Attributes"]), tags: texts(in["tags"])}
		return map[string]any{"QueueUrl": url}, true
	case "ListQueues":
		urls := []string{}
		for n := range s.queues {
			if strings.HasPrefix(n, in["QueueNamePrefix"].(string)) {
				urls = append(urls, s.URL+"/000000000000/"+n)
			}
		}
		return map[string]any{"QueueUrls": urls}, true
	}
	if !there {
		return nil, false
	}
	switch call {
	case "GetQueueUrl":
		return map[string]any{"QueueUrl": url}, true
	case "GetQueueAttributes":
		out := map[string]string{"QueueArn": "arn:aws:sqs:eu-west-1:000000000000:" + name, "ApproximateNumberOfMessages": fmt.Sprint(len(q.messages))}
		return map[string]any{"Attributes": out}, true
	case "SetQueueAttributes":
		for k, v := range texts(in["Attributes"]) {
			q.attributes[k] = v
		}
	case "TagQueue":
		for k, v := range texts(in["Tags"]) {
			q.tags[k] = v
		}
	case "ListQueueTags":
		return map[string]any{"Tags": q.tags}, true
	case "DeleteQueue":
		delete(s.queues, name)
	case "ReceiveMessage":
		var list []map[string]any
		for i, m := range q.messages {
			list = append(list, map[string]any{"MessageId": fmt.Sprint(i), "ReceiptHandle": fmt.Sprint("r", i), "Body": m})
		}
		return map[string]any{"Messages": list}, true
	case "DeleteMessage":
		q.gone = append(q.gone, in["ReceiptHandle"].(string))
	}
	return map[string]any{}, true
}

func texts(v any) map[string]string {
	out := map[string]string{}
	m, _ := v.(map[string]any)
	for k, t := range m {
		out[k], _ = t.(string)
	}
	return out
}

func TestReceive(t *testing.T) {
	s := start(t)
	for _, at := range []string{"holdfast-web-1", s.URL + "/000000000000/holdfast-web-1"} {
		s.queues = map[string]*fakeQueue{"holdfast-web-1": {messages: []string{"one", "two"}}}
		q, bus, err := queue.Open(t.Context(), queue.Options{Queue: at})
		if err != nil || bus != nil {
			t.Fatal(bus, err)
		}
		list, err := q.Receive(t.Context(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		want := []queue.Message{{Body: []byte("one"), Handle: "r0"}, {Body: []byte("two"), Handle: "r1"}}
		if diff := cmp.Diff(want, list); diff != "" {
			t.Error(diff)
		}
		if err := q.Delete(t.Context(), "r1"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"r1"}, s.queues["holdfast-web-1"].gone); diff != "" {
			t.Error(diff)
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
	s.mu.Lock()
	s.queues["holdfast-none"] = &fakeQueue{}
	s.mu.Unlock()
	if list, err := q.Receive(t.Context(), 0); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestRegion(t *testing.T) {
	s := start(t)
	t.Setenv("AWS_REGION", "")
	if _, _, err := queue.Open(t.Context(), queue.Options{Queue: "holdfast-x"}); err == nil || !strings.Contains(err.Error(), "no AWS region") {
		t.Errorf("without a region: %v", err)
	}
	if _, _, err := queue.Open(t.Context(), queue.Options{Queue: "https://sqs.eu-central-1.amazonaws.com/1/holdfast-x"}); err != nil {
		t.Errorf("the region is in the URL: %v", err)
	}
	_ = s
}

func testEvents(n, size int) (out []queue.Event) {
	for i := range n {
		out = append(out, queue.Event{
			Type: fmt.Sprint("type ", i), Time: time.Unix(1_700_000_000, 0).UTC(), Detail: `{"x":"` + strings.Repeat("x", size) + `"}`,
		})
	}
	return out
}

func TestPut(t *testing.T) {
	s := start(t)
	_, bus, err := queue.Open(t.Context(), queue.Options{Queue: "q", Bus: "holdfast"})
	if err != nil {
		t.Fatal(err)
	}
	// More than one request takes, in number and in size.
	for _, list := range [][]queue.Event{testEvents(25, 10), testEvents(9, 60_000)} {
		s.events, s.calls = nil, nil
		for i, err := range bus.Put(t.Context(), list) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		if len(s.events) != len(list) || len(s.calls) != 3 {
			t.Errorf("%d of %d events in %d requests", len(s.events), len(list), len(s.calls))
		}
		for i, e := range s.events {
			if e["DetailType"] != list[i].Type || e["Source"] != "holdfast.agent" || e["EventBusName"] != "holdfast" || e["Detail"] != list[i].Detail {
				t.Fatalf("%d: %v", i, e)
			}
		}
	}
	// Some do not arrive.
	s.entry = func(kind string) string {
		return map[string]string{"type 1": "ThrottlingException", "type 2": "MalformedDetail"}[kind]
	}
	got := bus.Put(t.Context(), testEvents(4, 1))
	if got[0] != nil || got[1] == nil || errors.Is(got[1], queue.ErrNever) || !errors.Is(got[2], queue.ErrNever) || got[3] != nil {
		t.Errorf("%v", got)
	}
	s.entry = nil
	// The whole request fails.
	s.fail = func(string, map[string]any) (int, string) { return http.StatusBadRequest, "ValidationException" }
	if got = bus.Put(t.Context(), testEvents(1, 1)); !errors.Is(got[0], queue.ErrNever) {
		t.Errorf("%v", got)
	}
	for i, err := range bus.Put(t.Context(), testEvents(12, 1)) {
		if err == nil || errors.Is(err, queue.ErrNever) {
			t.Errorf("%d: %v", i, err)
		}
	}
	s.fail = func(string, map[string]any) (int, string) {
		return http.StatusServiceUnavailable, "ServiceUnavailable"
	}
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
	if _, _, err := hosts.Add(t.Context(), "web-1"); !errors.Is(err, queue.ErrNoDeadLetters) || len(s.queues) != 0 {
		t.Errorf("without a deployment: %v", err)
	}
	s.queues["holdfast-jobs-dlq"] = &fakeQueue{}
	for _, again := range []bool{false, true} {
		h, made, err := hosts.Add(t.Context(), "web-1")
		if err != nil || made == again || h.Queue != "holdfast-web-1" || h.URL == "" {
			t.Errorf("%+v, %v, %v", h, made, err)
		}
		q := s.queues["holdfast-web-1"]
		want := map[string]string{
			"VisibilityTimeout": "60", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "20", "SqsManagedSseEnabled": "true",
			"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:000000000000:holdfast-jobs-dlq","maxReceiveCount":"5"}`,
		}
		if diff := cmp.Diff(want, q.attributes); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]string{"holdfast-host": "web-1", "application": "holdfast"}, q.tags); diff != "" {
			t.Error(diff)
		}
		// Somebody changes it; the same command puts it right.
		q.attributes["RedrivePolicy"], q.tags["holdfast-host"] = "", "web-2"
	}
	s.queues["holdfast-web-1"].messages = []string{"a", "b"}
	s.queues["holdfast-other"] = &fakeQueue{}
	list, err := hosts.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "web-2" && list[0].Name != "web-1" || list[0].Waiting != 2 {
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

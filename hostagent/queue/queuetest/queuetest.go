// Package queuetest has a server for tests that answers as SQS and EventBridge do, by their JSON protocols, from memory.
// Use [Start]. It knows what package queue asks for, and no more.
package queuetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const account = "000000000000"

// Server is an AWS with queues and one bus that takes everything.
type Server struct {
	*httptest.Server

	mu         sync.Mutex
	queues     map[string]*Queue // by name; guarded by mu, as all below
	events     []Event
	calls      []string
	fail       func(call string) (status int, code string)
	failEvent  func(detailType string) (code string)
	visibility time.Duration
	made       int
}

// Queue is what the server knows of one queue.
type Queue struct {
	Attributes, Tags map[string]string
	messages         []*message
}

type message struct {
	body, handle string
	visible      time.Time
}

// Event is one that has arrived.
type Event struct {
	Bus, Source, Type, Detail string

	Timed bool // it came with a time of its own
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{queues: map[string]*Queue{}, visibility: time.Minute}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.Close)
	return s
}

// Environment is what makes the server the AWS of a process.
func (s *Server) Environment() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + s.URL, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_REGION=eu-west-1",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_PROFILE=", "AWS_MAX_ATTEMPTS=1",
	}
}

// Make makes a queue.
func (s *Server) Make(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues[name] = &Queue{Attributes: map[string]string{}, Tags: map[string]string{}}
}

// Change changes what is known of a queue.
func (s *Server) Change(name string, change func(*Queue)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.queues[name])
}

// Send puts a message into a queue that is there.
func (s *Server) Send(name, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	s.queues[name].messages = append(s.queues[name].messages, &message{body: body, handle: fmt.Sprint("r", s.made)})
}

// Left is how many messages a queue has, those counted that somebody has taken and not deleted.
func (s *Server) Left(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queues[name].messages)
}

// Names returns the names of all queues.
func (s *Server) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.queues))
}

// Events returns the events that have arrived.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Calls returns the requests that came since it was last asked.
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls, s.events = nil, nil
	return calls
}

// Fail sets what answers a request with an error; a code of "" lets it pass.
func (s *Server) Fail(fail func(call string) (status int, code string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// FailEvent sets which events do not arrive, and why.
func (s *Server) FailEvent(fail func(detailType string) (code string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failEvent = fail
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in map[string]any
	_ = json.NewDecoder(r.Body).Decode(&in)
	_, call, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	s.calls = append(s.calls, call)
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if s.fail != nil {
		if status, code := s.fail(call); code != "" {
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
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": "no"})
}

func (s *Server) put(in map[string]any) any {
	list, _ := in["Entries"].([]any)
	entries, failed := []map[string]string{}, 0
	for _, one := range list {
		e := texts(one)
		code := ""
		if s.failEvent != nil {
			code = s.failEvent(e["DetailType"])
		}
		if code != "" {
			entries = append(entries, map[string]string{"ErrorCode": code, "ErrorMessage": "no"})
			failed++
			continue
		}
		entry, _ := one.(map[string]any)
		s.events = append(s.events, Event{
			Bus: e["EventBusName"], Source: e["Source"], Type: e["DetailType"], Detail: e["Detail"], Timed: entry["Time"] != nil,
		})
		entries = append(entries, map[string]string{"EventId": "x"})
	}
	return map[string]any{"FailedEntryCount": failed, "Entries": entries}
}

func (s *Server) at(name string) string { return s.URL + "/" + account + "/" + name }

func (s *Server) sqs(call string, in map[string]any) (out map[string]any, ok bool) {
	name := texts(in)["QueueName"]
	if at := texts(in)["QueueUrl"]; at != "" {
		name = at[strings.LastIndex(at, "/")+1:]
	}
	switch call {
	case "CreateQueue":
		s.queues[name] = &Queue{Attributes: texts(in["Attributes"]), Tags: texts(in["tags"])}
		return map[string]any{"QueueUrl": s.at(name)}, true
	case "ListQueues":
		urls := []string{}
		for _, n := range slices.Sorted(maps.Keys(s.queues)) {
			if strings.HasPrefix(n, texts(in)["QueueNamePrefix"]) {
				urls = append(urls, s.at(n))
			}
		}
		return map[string]any{"QueueUrls": urls}, true
	}
	q := s.queues[name]
	if q == nil {
		return nil, false
	}
	return s.ofQueue(call, name, q, in), true
}

func (s *Server) ofQueue(call, name string, q *Queue, in map[string]any) map[string]any {
	switch call {
	case "GetQueueUrl":
		return map[string]any{"QueueUrl": s.at(name)}
	case "GetQueueAttributes":
		return map[string]any{"Attributes": map[string]string{
			"QueueArn": "arn:aws:sqs:eu-west-1:" + account + ":" + name, "ApproximateNumberOfMessages": fmt.Sprint(len(q.messages)),
		}}
	case "SetQueueAttributes":
		maps.Copy(q.Attributes, texts(in["Attributes"]))
	case "TagQueue":
		maps.Copy(q.Tags, texts(in["Tags"]))
	case "ListQueueTags":
		return map[string]any{"Tags": q.Tags}
	case "DeleteQueue":
		delete(s.queues, name)
	case "ReceiveMessage":
		return map[string]any{"Messages": s.receive(q)}
	case "DeleteMessage":
		q.messages = slices.DeleteFunc(q.messages, func(m *message) bool { return m.handle == texts(in)["ReceiptHandle"] })
	}
	return map[string]any{}
}

// receive gives what is visible, and does not wait.
func (s *Server) receive(q *Queue) []map[string]string {
	list := []map[string]string{}
	for _, m := range q.messages {
		if now := time.Now(); !now.Before(m.visible) && len(list) < 10 {
			m.visible = now.Add(s.visibility)
			list = append(list, map[string]string{"MessageId": m.handle, "ReceiptHandle": m.handle, "Body": m.body})
		}
	}
	return list
}

// texts are the members of an object that are texts.
func texts(v any) map[string]string {
	out := map[string]string{}
	m, _ := v.(map[string]any)
	for k, t := range m {
		if text, ok := t.(string); ok {
			out[k] = text
		}
	}
	return out
}

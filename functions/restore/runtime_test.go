package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/scene"
)

// set has snapshots in a bucket, two approvers and the queue of the host.
func set(t *testing.T) (*scene.Scene, *lab) {
	t.Helper()
	l := newLab(t) // for its approvers
	s := scene.Start(t, bucket.Options{}, "{daily: 7}")
	for i := range 3 {
		s.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(uint64(i), 5000)})
	}
	s.Push(t)
	s.Policy(t, fmt.Sprintf(`version: 1
repository: {primary: %q}
approvers: [{name: ada, key: %q}, {name: bob, key: %q}]
hosts:
  governance-1:
    restore: {targets: [/srv/restore]}
    sources: {app: {files: {roots: [/srv]}}}
`, s.URL(), publicLine(l.keys["ada"]), publicLine(l.keys["bob"])))
	s.Queue("holdfast-governance-1")
	return s, l
}

// TestBinary plans, requests, approves and follows a restore with the real binary, a real S3 server and a queue.
func TestBinary(t *testing.T) {
	s, l := set(t)
	r := s.Function(t, ".", "restore", map[string]string{"HOLDFAST_SIGNER_PARAMETER": ""})
	took, err := r.Init()
	if err != nil {
		t.Fatal(err)
	}
	call := func(payload any) string {
		t.Helper()
		got := r.Invoke(payload)
		if got.Err != nil || got.Failure != nil {
			t.Fatalf("%v %+v", got.Err, got.Failure)
		}
		return string(got.Body)
	}
	if body := call([]byte(`{"action":"plan",` + wantedApp + `}`)); !strings.Contains(body, `"sequence":3`) {
		t.Errorf("plan: %s", body)
	}
	var asked control.Restore
	if err := json.Unmarshal([]byte(call([]byte(`{"action":"request",`+wantedApp+`}`))), &asked); err != nil {
		t.Fatal(err)
	}
	doc := scene.Document[control.Restore](t, s, control.RestoreKey(asked.ID))
	// What nobody understands is an error of its own, and the process goes on.
	for _, bad := range []string{`{"action":"nonsense"}`, `{"action":"approve","order":{"request":"AAAA"}}`, `[]`, `{"action":"status","id":"../x"}`} {
		if got := r.Invoke([]byte(bad)); got.Err != nil || got.Failure == nil {
			t.Errorf("%s: %v, %s", bad, got.Err, got.Body)
		}
	}
	call(l.signed(t, doc.Order, "ada", "bob"))
	sent := s.Sent("holdfast-governance-1")
	if len(sent) != 1 {
		t.Fatalf("%d messages in the queue", len(sent))
	}
	if job, err := events.DecodeJob([]byte(sent[0])); err != nil || job.ID != asked.ID {
		t.Errorf("%+v, %v", job, err)
	}
	if frozen, err := control.SourceFrozen(t.Context(), s.State, s.Source, time.Now()); err != nil || frozen == "" {
		t.Errorf("%q, %v", frozen, err)
	}
	if body := call(map[string]string{"action": "status", "id": asked.ID}); !strings.Contains(body, `"status":"sent"`) {
		t.Errorf("status: %s", body)
	}
	warm := r.Invoke([]byte(`{"action":"follow"}`))
	if warm.Failure != nil || string(warm.Body) != `{"restores":1,"failed":0}` {
		t.Errorf("follow: %+v %s", warm.Failure, warm.Body)
	}
	memory, err := r.Memory()
	if err != nil || memory > 128<<20 {
		t.Errorf("%d bytes of memory, %v", memory, err)
	}
	if out := r.Output(); strings.Contains(out, `"panic"`) {
		t.Errorf("log:\n%s", out)
	}
	t.Logf("ready after %s; warm %s, memory %d MiB", took, warm.Duration, memory>>20)
}

// TestBinaryStarts measures what the code adds to a cold start, and starts it without its environment.
func TestBinaryStarts(t *testing.T) {
	program := invoketest.Build(t, ".")
	invoketest.Ready(t, program, map[string]string{"HOLDFAST_STATE_BUCKET": "x", "HOLDFAST_TRUST_PARAMETER": "x"}, 40)
	bare := invoketest.Start(t, program, nil)
	if _, err := bare.Init(); err == nil || !bare.Said("HOLDFAST_STATE_BUCKET") {
		t.Errorf("started without its environment: %v", err)
	}
}

// TestBinaryDeadline: a bucket that does not answer ends an invocation before Lambda does, and the next one works.
func TestBinaryDeadline(t *testing.T) {
	s, _ := set(t)
	var silent atomic.Bool
	s.Between(t, func(r *http.Request) bucket.Trouble {
		if silent.Load() && strings.HasPrefix(r.URL.Path, "/"+s.Bucket) {
			return bucket.Mute
		}
		return bucket.Pass
	})
	r := s.Function(t, ".", "restore", map[string]string{"HOLDFAST_SIGNER_PARAMETER": ""})
	plan := []byte(`{"action":"plan",` + wantedApp + `}`)
	if got := r.Invoke(plan); got.Err != nil || got.Failure != nil {
		t.Fatalf("%v, %+v", got.Err, got.Failure)
	}
	silent.Store(true)
	r.Deadline = 3 * time.Second
	if got := r.Invoke(plan); got.Err != nil || got.Failure == nil || !strings.Contains(got.Failure.Message, "deadline exceeded") {
		t.Errorf("%v, %+v, %s", got.Err, got.Failure, got.Body)
	}
	silent.Store(false)
	r.Deadline = time.Minute
	if got := r.Invoke(plan); got.Err != nil || got.Failure != nil {
		t.Errorf("%v, %+v", got.Err, got.Failure)
	}
}

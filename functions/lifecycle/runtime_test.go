package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/scene"
)

// TestBinaryStarts measures what the code adds to a cold start, and starts it without its environment, and with half of
// what it needs to tend a replica.
func TestBinaryStarts(t *testing.T) {
	program := invoketest.Build(t, ".")
	env := map[string]string{"HOLDFAST_STATE_BUCKET": "x", "HOLDFAST_TRUST_PARAMETER": "x"}
	invoketest.Ready(t, program, env, 40)
	bare := invoketest.Start(t, program, nil)
	if _, err := bare.Init(); err == nil || !bare.Said("HOLDFAST_STATE_BUCKET") {
		t.Errorf("started without its environment: %v", err)
	}
	env["HOLDFAST_PRIMARY"] = "s3://b?region=r"
	half := invoketest.Start(t, program, env)
	if _, err := half.Init(); err == nil || !half.Said("HOLDFAST_PRIMARY_STATE_BUCKET") {
		t.Errorf("started with half of its environment: %v", err)
	}
}

// TestBinaryDeadline: a bucket that does not answer ends the pass over a source, not the invocation. The source stays
// first in line, and nothing keeps the next one from it.
func TestBinaryDeadline(t *testing.T) {
	invoketest.WithDeadlines(t, 4*time.Second, stopsInTime)
}

func stopsInTime(t *testing.T, deadline time.Duration) string {
	s := scene.Start(t, bucket.Options{}, "{keep_last: 2}")
	fill(t, s, 3)
	var silent atomic.Bool
	s.Between(t, func(r *http.Request) bucket.Trouble {
		if silent.Load() && strings.HasPrefix(r.URL.Query().Get("prefix"), "v1/"+s.Source.Host+"/"+s.Source.Name+"/") {
			return bucket.Mute
		}
		return bucket.Pass
	})
	f := s.Function(t, ".", "lifecycle", nil)
	silent.Store(true)
	f.Deadline = deadline
	got := f.Invoke([]byte(tick))
	if got.Err != nil {
		t.Error(got.Err)
	}
	if got.Failure != nil {
		return fmt.Sprintf("%+v", got.Failure)
	}
	if out := answer(t, got); out.Failed != 1 || out.Done != 0 {
		return fmt.Sprintf("%+v", out)
	}
	cursor, _, err := statestore.Read[control.LifecycleCursor](t.Context(), s.State, control.LifecycleShardKey(0, 0))
	if err != nil || cursor.Busy.Held("another", time.Now()) || !cursor.Passed[s.Source.String()].IsZero() {
		return fmt.Sprintf("%+v, %v", cursor, err)
	}
	d, _, err := statestore.Read[control.LifecycleSource](t.Context(), s.State, control.LifecycleSourceKey(s.Source))
	if err != nil || d.Error == "" {
		return fmt.Sprintf("%+v, %v", d, err)
	}
	silent.Store(false)
	f.Deadline = 2 * time.Minute
	if out := answer(t, f.Invoke([]byte(tick))); out.Done != 1 || out.Failed != 0 {
		t.Errorf("%+v", out)
	}
	return ""
}

// TestBinaryShards has more sources than one invocation takes: the tick goes through the queue, and each shard does its
// part. Poison fails alone, and the process goes on.
func TestBinaryShards(t *testing.T) {
	s := scene.Start(t, bucket.Options{}, "{keep_last: 2}")
	s.Signer(t, "lifecycle", "condemned", "expired", "receipts/cloud")
	var hosts strings.Builder
	const n = 12
	for i := range n {
		s.Source = snapshot.Source{Host: fmt.Sprintf("h%d", i), Name: "app"}
		s.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(uint64(i), 1000)})
		fmt.Fprintf(&hosts, "  h%d: {sources: {app: {files: {roots: [/srv]}, retention: {keep_last: 2}}}}\n", i)
	}
	s.Push(t)
	s.Policy(t, fmt.Sprintf("version: 1\nrepository: {primary: %q}\nhosts:\n%s", s.URL(), hosts.String()))
	url := s.Queue("holdfastcontrol-lifecycle")
	f := s.Function(t, ".", "lifecycle", map[string]string{"HOLDFAST_LIFECYCLE_QUEUE": url, "HOLDFAST_SHARD_SOURCES": "3"})
	now := time.Now().UTC().Format(time.RFC3339)
	if got := f.Invoke(fmt.Appendf(nil, `{"version":1,"time":%q}`, now)); string(got.Body) != `{"shards":4}` {
		t.Fatalf("%+v %s", got.Failure, got.Body)
	}
	var records []any
	for i, body := range append(s.Sent("holdfastcontrol-lifecycle"), "{") {
		records = append(records, map[string]any{"messageId": fmt.Sprint(i), "eventSource": "aws:sqs", "body": body})
	}
	got := f.Invoke(map[string]any{"Records": records})
	var answered struct {
		Failures []struct {
			ID string `json:"itemIdentifier"`
		} `json:"batchItemFailures"`
	}
	if err := json.Unmarshal(got.Body, &answered); err != nil || len(answered.Failures) != 1 || answered.Failures[0].ID != "4" {
		t.Fatalf("%+v %s", got.Failure, got.Body)
	}
	for i := range n {
		d := scene.Document[control.LifecycleSource](t, s, control.LifecycleSourceKey(snapshot.Source{Host: fmt.Sprintf("h%d", i), Name: "app"}))
		if d.Passed.IsZero() || d.Error != "" {
			t.Errorf("h%d: %+v", i, d)
		}
	}
	memory, err := f.Memory()
	if err != nil || memory > 128<<20 {
		t.Errorf("memory %d, %v", memory, err)
	}
	if out := f.Output(); strings.Contains(out, `"panic"`) || strings.Contains(out, "HOLDFAST-SIGNER") {
		t.Errorf("log:\n%s", out)
	}
	t.Logf("%d sources in 4 shards: %s, memory %d MiB", n, got.Duration, memory>>20)
}

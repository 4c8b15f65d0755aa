package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

const oneVerified = `
version: 1
repository: {primary: %q}
hosts:
  governance-1:
    sources:
      app: {files: {roots: [/opt/app]}, verification: {content: 30d}}
`

// TestBinaryVerifies: a snapshot in a real bucket, the function as it is deployed, the job in the host's queue, the
// verification as the agent makes it, its receipt in the bucket, and the job is closed; a second tick asks for nothing.
func TestBinaryVerifies(t *testing.T) {
	d := deploy(t, oneVerified)
	d.repo.Backup(t, snapshot.Full, repotest.Tree{repotest.Root + "/a": repotest.Noise(1, 100<<10)})
	d.upload(t)
	d.aws.Queue("holdfast-governance-1")
	r := invoketest.Start(t, invoketest.Build(t, "."), d.env)
	tick := map[string]any{"version": 1, "time": time.Now().UTC().Truncate(time.Minute)}
	if s := summary(t, r.Invoke(tick)); s.Asked != 1 || s.Errors != 0 {
		t.Fatalf("%+v", s)
	}
	bodies := d.aws.Take("holdfast-governance-1")
	if len(bodies) != 1 {
		t.Fatalf("%d messages", len(bodies))
	}
	j, err := events.DecodeJob([]byte(bodies[0]))
	if err != nil || j.Kind != events.Verify || j.Type != "content" || j.Source != "app" {
		t.Fatalf("%+v, %v", j, err)
	}
	of := func() *control.SourceJobs {
		t.Helper()
		h, _, err := statestore.Read[control.HostJobs](t.Context(), d.state, control.JobsKey("governance-1"))
		if err != nil || h.Verify["app"] == nil {
			t.Fatalf("%+v, %v", h, err)
		}
		return h.Verify["app"]
	}
	tell := func(detailType string, detail any) {
		t.Helper()
		body, err := json.Marshal(detail)
		if err != nil {
			t.Fatal(err)
		}
		body, err = json.Marshal(events.Envelope{DetailType: detailType, Source: events.AgentSource("governance-1"), Time: time.Now().UTC(), Detail: body})
		if err != nil {
			t.Fatal(err)
		}
		if result := r.Invoke(batch(body)); result.Err != nil || string(result.Body) != `{"batchItemFailures":[]}` {
			t.Fatalf("%v, %+v, %s", result.Err, result.Failure, result.Body)
		}
	}
	tell(events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: j.ID, Host: j.Host, Source: j.Source, Kind: j.Kind})
	if s := of(); s.Open == nil || s.Open.Accepted.IsZero() {
		t.Errorf("%+v", s)
	}
	repo, err := repository.Open(t.Context(), d.backup, d.repo.Identity)
	if err != nil {
		t.Fatal(err)
	}
	result, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Content, Sources: []snapshot.Source{d.repo.Source}, Record: true, Place: layout.ReceiptHost})
	if err != nil || !result.OK() || !result.Recorded {
		t.Fatalf("%+v, %v", result, err)
	}
	tell(events.TypeJobFinished, events.JobFinished{
		Version: 1, Job: j.ID, Host: j.Host, Source: j.Source, Kind: j.Kind, Type: j.Type, Due: j.Due, Result: events.OK, Started: time.Now(), Finished: time.Now(),
	})
	if s := of(); s.Open != nil || s.State != control.StateOK || s.Proofs.Content.At.IsZero() {
		t.Errorf("%+v", s)
	}
	summary(t, r.Invoke(tick))
	if more := d.aws.Take("holdfast-governance-1"); len(more) > 0 {
		t.Errorf("asked for again: %s", strings.Join(more, "\n"))
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/s3state"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// deployment is what the real binary runs in: an S3 server with state and repository, queues and parameters.
type deployment struct {
	env    map[string]string
	aws    *invoketest.AWS
	state  *s3state.Store
	backup objstore.Store
	repo   *repotest.Fixture
}

const ownQueue = "coordinate"

func deploy(t *testing.T, policy string) *deployment {
	t.Helper()
	server := bucket.StartS3(t)
	server.Make(t, "state", bucket.Options{})
	server.Make(t, "backup", bucket.Options{})
	options := server.Client.Options()
	d := &deployment{aws: invoketest.StartAWS(t), repo: repotest.New(t)}
	d.state = s3state.New(aws.Config{Region: options.Region, Credentials: options.Credentials}, s3state.Options{Bucket: "state", Endpoint: server.Endpoint})
	d.env = map[string]string{
		"HOLDFAST_STATE_BUCKET": "state", "HOLDFAST_TRUST_PARAMETER": "/holdfast/trust", "AWS_ENDPOINT_URL_S3": server.Endpoint,
		"HOLDFAST_COORDINATE_QUEUE": d.aws.Queue(ownQueue),
	}
	maps.Copy(d.env, d.aws.Env())
	for _, e := range server.Env() {
		name, value, _ := strings.Cut(e, "=")
		d.env[name] = value
	}
	signer, _ := d.repo.Identity.Signer()
	d.aws.Parameter("/holdfast/trust", "trust "+signer.Public().String()+" *")
	var err error
	if d.backup, err = open.Open(context.Background(), server.URL("backup", ""), open.Options{}); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(policy, server.URL("backup", ""))
	if _, err := d.state.Put(context.Background(), control.PolicyKey, []byte(text), ""); err != nil {
		t.Fatal(err)
	}
	return d
}

// upload puts what is new in the fixture's repository into the bucket.
func (d *deployment) upload(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	err := d.repo.Store.List(ctx, "", func(i objstore.Info) error {
		body, err := objstore.ReadAll(ctx, d.repo.Store, i.Key, objstore.MaxObject)
		if err != nil {
			return err
		}
		return d.backup.Put(ctx, i.Key, objstore.Bytes(body))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (d *deployment) source(t *testing.T, host, name string) *control.SourceJobs {
	t.Helper()
	h, _, err := statestore.Read[control.HostJobs](context.Background(), d.state, control.JobsKey(host))
	if err != nil || h.Sources[name] == nil {
		t.Fatalf("%+v, %v", h, err)
	}
	return h.Sources[name]
}

func summary(t *testing.T, r invoketest.Result) Summary {
	t.Helper()
	var s Summary
	if r.Err != nil || r.Failure != nil || json.Unmarshal(r.Body, &s) != nil {
		t.Fatalf("%v, %+v, %s", r.Err, r.Failure, r.Body)
	}
	return s
}

// twoSources are backed up once a day, twelve hours from now: what was backed up just now is not due whatever the hour.
var twoSources = strings.ReplaceAll(`
version: 1
repository: {primary: %q}
hosts:
  governance-1:
    sources:
      app: {files: {roots: [/opt/app]}, schedule: {incremental: "0 HOUR * * *"}}
      etc: {files: {roots: [/etc]}, schedule: {incremental: "0 HOUR * * *"}}
  nowhere:
    sources:
      etc: {files: {roots: [/etc]}, schedule: {incremental: "0 HOUR * * *"}}
`, "HOUR", fmt.Sprint((time.Now().UTC().Hour()+12)%24))

// TestBinary runs the function as it is deployed, on a repository with real snapshots.
func TestBinary(t *testing.T) {
	d := deploy(t, twoSources)
	d.repo.Backup(t, snapshot.Full, repotest.Tree{repotest.Root + "/a": []byte("x")}) // of governance-1/app
	d.upload(t)
	d.aws.Queue("holdfast-governance-1")
	bin := invoketest.Build(t, ".")
	r := invoketest.Start(t, bin, d.env)

	tick := map[string]any{"version": 1, "time": time.Now().UTC().Truncate(time.Minute)}
	if s := summary(t, r.Invoke(tick)); s.Hosts != 2 || s.Looked != 2 || s.Asked != 2 || s.Errors != 0 {
		t.Errorf("first tick: %+v", s)
	}
	if s := summary(t, r.Invoke(tick)); s.Looked != 0 || s.Asked != 0 {
		t.Errorf("second tick: %+v", s)
	}
	bodies := d.aws.Take("holdfast-governance-1")
	if len(bodies) != 1 {
		t.Fatalf("%d messages", len(bodies))
	}
	j, err := events.DecodeJob([]byte(bodies[0]))
	if err != nil || j.Source != "etc" || j.Host != "governance-1" {
		t.Fatalf("%+v, %v: what is in the repository need not be backed up", j, err)
	}
	h, _, err := statestore.Read[control.HostJobs](t.Context(), d.state, control.JobsKey("nowhere"))
	if err != nil || !strings.Contains(h.Problem, "holdfast host add nowhere") {
		t.Errorf("%+v, %v", h, err)
	}

	event := func(detailType string, detail any) string {
		body, err := json.Marshal(detail)
		if err != nil {
			t.Fatal(err)
		}
		body, err = json.Marshal(events.Envelope{DetailType: detailType, Source: events.AgentSource("governance-1"), Time: time.Now().UTC(), Detail: body})
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	end := events.JobFinished{
		Version: 1, Job: j.ID, Host: j.Host, Source: j.Source, Kind: j.Kind, Type: j.Type, Due: j.Due, Result: events.OK, Snapshot: 1,
		Started: time.Now(), Finished: time.Now(),
	}
	send := func(bodies ...string) {
		t.Helper()
		var raw [][]byte
		for _, b := range bodies {
			raw = append(raw, []byte(b))
		}
		result := r.Invoke(batch(raw...))
		if result.Err != nil || string(result.Body) != `{"batchItemFailures":[]}` {
			t.Fatalf("%v, %+v, %s", result.Err, result.Failure, result.Body)
		}
	}
	send(event(events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: j.ID, Host: j.Host, Source: j.Source, Kind: j.Kind}),
		event(events.TypeJobFinished, end))
	if s := d.source(t, "governance-1", "etc"); s.Open == nil || s.Open.Accepted.IsZero() {
		t.Errorf("without its snapshot, the job has ended: %+v", s)
	}
	d.repo.Source.Name = "etc"
	d.repo.Backup(t, snapshot.Full, repotest.Tree{repotest.Root + "/b": []byte("y")})
	d.upload(t)
	send(event(events.TypeJobFinished, end))
	if s := d.source(t, "governance-1", "etc"); s.State != control.StateOK || s.Open != nil || s.Last.Snapshot != 1 {
		t.Errorf("%+v", s)
	}
	memory, err := r.Memory()
	if err != nil || memory > 128<<20 {
		t.Errorf("memory %d, %v", memory, err)
	}
	warm := r.Invoke(tick)
	summary(t, warm)
	t.Logf("memory %d MiB, warm tick %s with its requests to S3", memory>>20, warm.Duration)
	if !r.Said(`"job":"`+j.ID+`"`) || strings.Contains(r.Output(), "panic") {
		t.Errorf("log:\n%s", r.Output())
	}
}

// TestColdStart measures what the code adds to a cold start.
func TestColdStart(t *testing.T) {
	env := map[string]string{"HOLDFAST_STATE_BUCKET": "x", "HOLDFAST_TRUST_PARAMETER": "x", "HOLDFAST_COORDINATE_QUEUE": "x"}
	invoketest.Ready(t, invoketest.Build(t, "."), env, 40)
}

// TestBinaryDeadline lets a service not answer: the function stops by itself before Lambda ends it, with what was
// decided written down.
func TestBinaryDeadline(t *testing.T) {
	bin := invoketest.Build(t, ".")
	invoketest.WithDeadlines(t, 4*time.Second, func(t *testing.T, deadline time.Duration) string { return stopsInTime(t, bin, deadline) })
}

func stopsInTime(t *testing.T, bin string, deadline time.Duration) string {
	d := deploy(t, twoSources)
	d.upload(t)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer silent.CloseClientConnections()
	d.env["AWS_ENDPOINT_URL_SQS"] = silent.URL
	d.env["HOLDFAST_QUEUE_URL_BASE"] = silent.URL + "/123456789012"
	r := invoketest.Start(t, bin, d.env)
	r.Deadline = deadline
	result := r.Invoke(map[string]any{"version": 1})
	if result.Err != nil {
		t.Error(result.Err)
	}
	if result.Failure == nil || !strings.Contains(result.Failure.Message, "deadline exceeded") {
		return fmt.Sprintf("%+v", result.Failure)
	}
	h, _, err := statestore.Read[control.HostJobs](t.Context(), d.state, control.JobsKey("governance-1"))
	if err != nil || h.Sources["etc"] == nil || h.Sources["etc"].Open == nil {
		return fmt.Sprintf("%+v, %v", h, err)
	}
	// The next one has a queue, and sends it all when nobody has taken it after two minutes: see TestRandomTrouble.
	return ""
}

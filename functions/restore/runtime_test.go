package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/s3state"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// TestBinary plans, requests, approves and follows a restore with the real binary, a real S3 server and a queue.
func TestBinary(t *testing.T) {
	l := newLab(t) // for its repository and its approvers
	server := bucket.StartS3(t)
	server.Make(t, "state", bucket.Options{})
	server.Make(t, "backup", bucket.Options{})
	store, err := open.Open(t.Context(), server.URL("backup", ""), open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range l.Store.Keys() {
		body, _ := l.Store.Object(key)
		if err := store.Put(t.Context(), key, objstore.Bytes(body)); err != nil {
			t.Fatal(err)
		}
	}
	services := invoketest.StartAWS(t)
	signer, _ := l.Identity.Signer()
	services.Parameter("/holdfast/trust", "trust "+signer.Public().String()+" *\n")
	services.Queue("holdfast-governance-1")
	options := server.Client.Options()
	state := s3state.New(aws.Config{Region: options.Region, Credentials: options.Credentials}, s3state.Options{Bucket: "state", Endpoint: server.Endpoint})
	policy := fmt.Sprintf(`version: 1
repository: {primary: %q}
approvers: [{name: ada, key: %q}, {name: bob, key: %q}]
hosts:
  governance-1:
    restore: {targets: [/srv/restore]}
    sources: {app: {files: {roots: [/srv]}}}
`, server.URL("backup", ""), publicLine(l.keys["ada"]), publicLine(l.keys["bob"]))
	if _, err := state.Put(t.Context(), control.PolicyKey, []byte(policy), ""); err != nil {
		t.Fatal(err)
	}
	env, err := environment.Map(environment.Restore{Cloud: environment.Cloud{State: "state", Trust: "/holdfast/trust"}})
	if err != nil {
		t.Fatal(err)
	}
	env["AWS_ENDPOINT_URL_S3"] = server.Endpoint
	maps.Copy(env, services.Env())
	for _, e := range server.Env() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	program := invoketest.Build(t, ".")
	r := invoketest.Start(t, program, env)
	call := func(payload any) string {
		t.Helper()
		got := r.Invoke(payload)
		if got.Err != nil || got.Failure != nil {
			t.Fatalf("%v %+v", got.Err, got.Failure)
		}
		return string(got.Body)
	}
	if body := call([]byte(`{"action":"plan",` + wanted + `}`)); !strings.Contains(body, `"sequence":3`) {
		t.Errorf("plan: %s", body)
	}
	call([]byte(`{"action":"request",` + wanted + `}`))
	var id string
	if err := state.List(t.Context(), control.RestoresPrefix, func(key string) error {
		id = strings.TrimSuffix(strings.TrimPrefix(key, control.RestoresPrefix), ".json")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	doc, _, err := statestore.Read[control.Restore](t.Context(), state, control.RestoreKey(id))
	if err != nil {
		t.Fatal(err)
	}
	call(l.signed(t, doc.Order, "ada", "bob"))
	sent := services.Take("holdfast-governance-1")
	if len(sent) != 1 {
		t.Fatalf("%d messages in the queue", len(sent))
	}
	if job, err := events.DecodeJob([]byte(sent[0])); err != nil || job.ID != id {
		t.Errorf("%+v, %v", job, err)
	}
	if frozen, err := control.SourceFrozen(t.Context(), state, snapshot.Source{Host: "governance-1", Name: "app"}, time.Now()); err != nil || frozen == "" {
		t.Errorf("%q, %v", frozen, err)
	}
	if body := call(map[string]string{"action": "status", "id": id}); !strings.Contains(body, `"status":"sent"`) {
		t.Errorf("status: %s", body)
	}
	t.Logf("ready after %s at best", invoketest.Quickest(t, program, env, 15*time.Millisecond, 20))
}

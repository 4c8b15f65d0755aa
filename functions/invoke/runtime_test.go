package invoke_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/statestore/s3state"
	"github.com/btcdecoded/holdfast/test/bucket"
)

const (
	trustParameter  = "/holdfast/trust"
	signerParameter = "/holdfast/signer"
)

// cloud is what a function needs, with a policy and a repository in it.
type cloud struct {
	env      map[string]string
	aws      *invoketest.AWS
	state    *s3state.Store
	identity *keyring.Identity
	repo     *repository.Repository
}

func startCloud(t *testing.T) *cloud {
	t.Helper()
	server := bucket.StartS3(t)
	server.Make(t, "state", bucket.Options{})
	server.Make(t, "backup", bucket.Options{})
	options := server.Client.Options()
	c := &cloud{
		env: map[string]string{
			"HOLDFAST_STATE_BUCKET": "state", "HOLDFAST_TRUST_PARAMETER": trustParameter, "AWS_ENDPOINT_URL_S3": server.Endpoint,
		},
		aws:   invoketest.StartAWS(t),
		state: s3state.New(aws.Config{Region: options.Region, Credentials: options.Credentials}, s3state.Options{Bucket: "state", Endpoint: server.Endpoint}),
	}
	maps.Copy(c.env, c.aws.Env())
	for _, e := range server.Env() {
		name, value, _ := strings.Cut(e, "=")
		c.env[name] = value
	}
	ctx := context.Background()
	store, err := open.Open(ctx, server.URL("backup", ""), open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.identity, err = keyring.NewIdentity(); err != nil {
		t.Fatal(err)
	}
	if c.repo, err = repository.Init(ctx, store, c.identity, c.identity.Recipients(), time.Now()); err != nil {
		t.Fatal(err)
	}
	signer, _ := c.identity.Signer()
	c.aws.Parameter(trustParameter, "trust "+signer.Public().String()+" *\n")
	policy := fmt.Sprintf("version: 1\nrepository: {primary: %q}\nhosts: {web-1: {sources: {etc: {files: {roots: [/etc]}}}}}\n", server.URL("backup", ""))
	if _, err := c.state.Put(ctx, control.PolicyKey, []byte(policy), ""); err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(t *testing.T, r invoketest.Result) string {
	t.Helper()
	if r.Err != nil || r.Failure != nil {
		t.Fatalf("%v, %+v", r.Err, r.Failure)
	}
	return string(r.Body)
}

// TestRuntime runs a real binary against the Runtime API.
func TestRuntime(t *testing.T) {
	c := startCloud(t)
	bin := invoketest.Build(t, "./internal/probe")
	r := invoketest.Start(t, bin, c.env)
	took, err := r.Init()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %s", took)

	if got := answer(t, r.Invoke(map[string]string{"do": "nothing"})); got != `"nothing"` {
		t.Errorf("answer %s", got)
	}
	if !r.Said(`"function":"probe","request":"00000000-0000-0000-0000-000000000001"`) {
		t.Error("the log does not tell function and request")
	}
	warm := time.Hour
	for n := 0; n < 20 || warm > 100*time.Millisecond && n < 200; n++ { // what else the machine does makes it longer
		result := r.Invoke(map[string]string{"do": "nothing"})
		answer(t, result)
		warm = min(warm, result.Duration)
	}
	if warm > 100*time.Millisecond {
		t.Errorf("a warm invocation takes %s", warm)
	}
	failed := r.Invoke(map[string]string{"do": "fail"})
	if failed.Failure == nil || failed.Failure.Message != "on purpose" {
		t.Errorf("%+v", failed)
	}
	panicked := r.Invoke(map[string]string{"do": "panic"})
	if panicked.Failure == nil || panicked.Failure.Message != "panic: on purpose" || !r.Said(`"stack":"goroutine`) {
		t.Errorf("%+v", panicked)
	}
	// The process lives on.
	answer(t, r.Invoke(map[string]string{"do": "nothing"}))

	var policy struct {
		Hosts int
		Tag   string
	}
	for range 2 {
		if err := json.Unmarshal([]byte(answer(t, r.Invoke(map[string]string{"do": "policy"}))), &policy); err != nil || policy.Hosts != 1 || policy.Tag == "" {
			t.Errorf("%+v, %v", policy, err)
		}
	}
	if !r.Said(`"msg":"policy"`) || strings.Count(r.Output(), `"msg":"policy"`) != 1 {
		n := strings.Count(r.Output(), `"msg":"policy"`)
		t.Errorf("the policy was parsed %d times", n)
	}
	for range 2 {
		if got := answer(t, r.Invoke(map[string]string{"do": "repository"})); got != fmt.Sprintf(`{"id":%q,"signs":false}`, c.repo.ID()) {
			t.Errorf("repository %s", got)
		}
	}
	if n := c.aws.Requests("AmazonSSM.GetParameters"); n != 1 {
		t.Errorf("%d requests for parameters", n)
	}
	memory, err := r.Memory()
	if err != nil || memory > 100<<20 {
		t.Errorf("memory %d, %v", memory, err)
	}
	t.Logf("warm invocation %s, memory %d MiB", warm, memory>>20)
}

// TestDeadline looks that a function is told to stop before Lambda ends it. How long before: TestMargin.
func TestDeadline(t *testing.T) {
	c := startCloud(t)
	r := invoketest.Start(t, invoketest.Build(t, "./internal/probe"), c.env)
	r.Deadline = 2 * time.Second
	result := r.Invoke(map[string]string{"do": "wait"})
	if got := answer(t, result); got != "true" || result.Duration < 1500*time.Millisecond {
		t.Errorf("%s after %s", got, result.Duration)
	}
}

// TestMessages hands in a batch of which some messages fail.
func TestMessages(t *testing.T) {
	c := startCloud(t)
	r := invoketest.Start(t, invoketest.Build(t, "./internal/probe"), c.env)
	var records []map[string]any
	for i, body := range []string{`{"do":"nothing"}`, `{"do":"fail"}`, `not JSON`, `{"do":"panic"}`, `{"do":"something"}`} {
		records = append(records, map[string]any{
			"messageId": fmt.Sprintf("m%d", i), "eventSource": "aws:sqs", "body": body, "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:q",
			"attributes": map[string]string{"ApproximateReceiveCount": "2"},
		})
	}
	got := answer(t, r.Invoke(map[string]any{"Records": records}))
	want := `{"batchItemFailures":[{"itemIdentifier":"m1"},{"itemIdentifier":"m2"},{"itemIdentifier":"m3"}]}`
	if got != want {
		t.Errorf("answer %s, want %s", got, want)
	}
	for _, part := range []string{`"job":"job-of-m0"`, `"job":"job-of-m4"`, `"message":"m3"`, `"receives":"2"`} {
		if !r.Said(part) {
			t.Errorf("the log has no %s", part)
		}
	}
	// That some failed is an error nowhere else: the metric tells.
	if !r.Said(`"FailedMessages":3`) || !r.Said(`"function":"probe"`) {
		t.Error("nobody is told that three messages failed")
	}
	answer(t, r.Invoke(map[string]any{"Records": records[:1]}))
	if n := strings.Count(r.Output(), `"FailedMessages"`); n != 2 { // in a line it stands twice: as a name and with its value
		t.Errorf("messages that went well are told as failed: %d", n)
	}
}

// TestParameters looks what comes of parameters that are wrong, and that none is ever written anywhere.
func TestParameters(t *testing.T) {
	c := startCloud(t)
	bin := invoketest.Build(t, "./internal/probe")
	identity := t.TempDir() + "/identity"
	if err := c.identity.WriteFile(identity); err != nil {
		t.Fatal(err)
	}
	secret := signerLine(t, identity)
	c.env["HOLDFAST_SIGNER_PARAMETER"] = signerParameter

	r := invoketest.Start(t, bin, c.env)
	absent := r.Invoke(map[string]string{"do": "repository"})
	if absent.Failure == nil || !strings.Contains(absent.Failure.Message, "not there: "+signerParameter) {
		t.Errorf("no parameter: %+v", absent)
	}
	last := "q"
	if strings.HasSuffix(secret, last) {
		last = "p"
	}
	c.aws.Parameter(signerParameter, secret[:len(secret)-1]+last)
	damaged := r.Invoke(map[string]string{"do": "repository"})
	if damaged.Failure == nil || !strings.Contains(damaged.Failure.Message, "not an identity") {
		t.Errorf("damaged parameter: %+v", damaged)
	}
	c.aws.Parameter(signerParameter, secret+"\n")
	if got := answer(t, r.Invoke(map[string]string{"do": "repository"})); got != fmt.Sprintf(`{"id":%q,"signs":true}`, c.repo.ID()) {
		t.Errorf("repository %s", got)
	}
	if strings.Contains(r.Output()+damaged.Failure.Message, secret[:40]) {
		t.Error("the log or an error has the signer's secret")
	}
}

// TestStart looks what Lambda is told when a function can't start.
func TestStart(t *testing.T) {
	r := invoketest.Start(t, invoketest.Build(t, "./internal/probe"), nil)
	if _, err := r.Init(); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("started without its environment: %v", err)
	}
	for _, name := range []string{"HOLDFAST_STATE_BUCKET", "HOLDFAST_TRUST_PARAMETER"} {
		if !r.Said(name) {
			t.Errorf("the log does not name %s", name)
		}
	}
}

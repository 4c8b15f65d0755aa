package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/test/cloud"
	"github.com/btcdecoded/holdfast/test/cluster"
	"github.com/btcdecoded/holdfast/test/program"
)

const (
	region = "eu-central-1"
	second = "eu-west-1"
	bucket = "holdfast-e2e"
	state  = "holdfast-state-" + cloud.Account + "-" + region
	host   = "web-1"
)

// What an agent counts as silent after, and how long something is away before that is told: see [silent].
const silentAfter, settleAfter = "HOLDFAST_SILENT_AFTER", "HOLDFAST_SETTLE_AFTER"

// patience is how long anything is waited for: on a machine that does a lot else, what takes a second may take a minute. A
// message that a connection took along that is gone comes again after a minute, and coordinate asks again after two.
const patience = 5 * time.Minute

// world is a deployment with one host.
type world struct {
	*cloud.Deployed
	t        *testing.T
	dir      string
	holdfast string // the binary
	policy   string // the policy file of host and control plane
	s3       *s3.Client
	sqs      *sqs.Client
	lambda   *lambda.Client
	events   *eventbridge.Client
	sns      *sns.Client
	ssm      *ssm.Client
	ssm2     *ssm.Client // of the second region
	told     string      // URL of a queue that gets what the agent reports
	alerts   string      // URL of a queue that gets the alerts
	agent    *exec.Cmd
	started  bool
	root     string // of the host's files
	people   map[string]*approver
	server   *cluster.Server // PostgreSQL on the host
	clusters string          // where its clusters may be restored: a directory that its user can enter
	trust    string          // text of the parameter
	heard    []event         // all that the bus carried so far, each once
	known    map[string]bool // the same, to know what comes again
	mail     []mail          // all alerts so far
}

// newWorld deploys, makes the repository and its signers, uploads the policy and adds the host.
func newWorld(t *testing.T, policyText string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), known: map[string]bool{}}
	w.policy = w.write("policy.yaml", policyText)
	var err error
	w.holdfast, err = program.Holdfast(w.dir)
	w.must(err)
	e := cloud.Start(t)
	w.Deployed = e.Deploy(t, w.policy, region, map[string]map[string]string{
		settings.FunctionName(settings.Monitor):   {settleAfter: "1s"},
		settings.FunctionName(settings.Lifecycle): {"HOLDFAST_LOCK_MODE": ""}, // the emulator's buckets have no Object Lock
	}, "email=operator@example.org")
	cfg := e.Config(region)
	w.s3 = s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	w.sqs, w.lambda, w.events = sqs.NewFromConfig(cfg), lambda.NewFromConfig(cfg), eventbridge.NewFromConfig(cfg)
	w.sns, w.ssm, w.ssm2 = sns.NewFromConfig(cfg), ssm.NewFromConfig(cfg), ssm.NewFromConfig(e.Config(second))
	w.keys()
	w.upload()
	w.listen()
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) string {
	w.t.Helper()
	at := w.path(name)
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return at
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// as is the environment of a command of one identity.
func (w *world) as(who string) []string {
	return append(w.Env(region), "HOLDFAST_POLICY="+w.policy, "HOLDFAST_IDENTITY="+w.path(who+".identity"), "HOLDFAST_STATE="+w.path("state-"+who),
		"HOLDFAST_HOST="+host, "PGSERVICEFILE="+w.path("pg_service.conf"))
}

func (w *world) run(who string, args ...string) string {
	w.t.Helper()
	return cloud.Run(w.t, w.dir, w.as(who), w.holdfast, args...)
}

// keys makes the repository, an identity for the host and one for each function that signs, as docs/deploy.md says.
func (w *world) keys() {
	w.t.Helper()
	w.run("admin", "init")
	trust := strings.TrimSpace(w.run("admin", "key", "show", "--only", "trust"))
	w.trust = trust + "\n"
	for _, at := range []*ssm.Client{w.ssm, w.ssm2} {
		w.parameter(at, settings.TrustParameter, w.trust, false)
	}
	for _, f := range []struct {
		at                *ssm.Client
		label, verb, only string
	}{
		{w.ssm, settings.Verify, settings.Verify, "receipts/cloud,damaged"},
		{w.ssm, settings.Lifecycle, settings.Lifecycle, "condemned,expired,receipts/cloud"},
		{w.ssm2, "verify-replica", settings.Verify, "receipts/cloud,damaged"},
		{w.ssm2, "lifecycle-replica", settings.Lifecycle, "condemned,expired,receipts/cloud"},
	} {
		w.run("admin", "key", "new", w.path(f.label+".identity"))
		signer := strings.TrimSpace(w.run(f.label, "key", "show", "--only", "signer"))
		w.run("admin", "key", "add", "--signer", signer, "--for-host", "*", "--only", f.only, "--label", f.label)
		w.parameter(f.at, settings.SignerParameter+f.verb, w.secretLine(f.label), true)
	}
	w.run("admin", "key", "new", w.path("host.identity"))
	f, err := os.OpenFile(w.path("host.identity"), os.O_APPEND|os.O_WRONLY, 0)
	w.must(err)
	_, err = f.WriteString(trust + "\n")
	w.must(errors.Join(err, f.Close()))
	signer := strings.TrimSpace(w.run("host", "key", "show", "--only", "signer"))
	w.run("admin", "host", "add", host, "--signer", signer)
	// This host may restore by itself: what it backs up is sealed for it too.
	w.run("admin", "key", "add", strings.TrimSpace(w.run("host", "key", "show", "--only", "recipient")), "--label", host)
}

// secretLine is the line of an identity file that signs, without the one that opens.
func (w *world) secretLine(who string) string {
	w.t.Helper()
	text, err := os.ReadFile(w.path(who + ".identity"))
	w.must(err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "HOLDFAST-SIGNER-") {
			return line
		}
	}
	w.t.Fatalf("the identity of %s has no signer", who)
	return ""
}

func (w *world) parameter(at *ssm.Client, name, value string, secret bool) {
	w.t.Helper()
	kind := ssmtypes.ParameterTypeString
	if secret {
		kind = ssmtypes.ParameterTypeSecureString
	}
	_, err := at.PutParameter(w.t.Context(), &ssm.PutParameterInput{Name: &name, Value: &value, Type: kind, Overwrite: aws.Bool(true)})
	w.must(err)
}

// upload puts the policy where the control plane reads it; no deployment is needed for a change.
func (w *world) upload() {
	w.t.Helper()
	text, err := os.ReadFile(w.policy)
	w.must(err)
	for _, at := range []string{region, second} {
		client := s3.NewFromConfig(w.Config(at), func(o *s3.Options) { o.UsePathStyle = true })
		bucket := "holdfast-state-" + cloud.Account + "-" + at
		_, err = client.PutObject(w.t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("config/policy.yaml"), Body: bytes.NewReader(text)})
		w.must(err)
	}
}

// listen makes queues for what the bus and the topic carry, so that the test hears it.
func (w *world) listen() {
	w.t.Helper()
	// What the test takes from its queues, and deletes late, does not come again meanwhile.
	hidden := map[string]string{"VisibilityTimeout": "43200"}
	queue := func(name string) (url, arn string) {
		out, err := w.sqs.CreateQueue(w.t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: hidden})
		w.must(err)
		return *out.QueueUrl, fmt.Sprintf("arn:aws:sqs:%s:%s:%s", region, cloud.Account, name)
	}
	url, arn := queue("test-told")
	w.told = url
	_, err := w.events.PutRule(w.t.Context(), &eventbridge.PutRuleInput{
		Name: aws.String("test-told"), EventBusName: aws.String("holdfast"), EventPattern: aws.String(`{"source":[{"prefix":"holdfast.agent"},"holdfast.control"]}`),
	})
	w.must(err)
	_, err = w.events.PutTargets(w.t.Context(), &eventbridge.PutTargetsInput{
		Rule: aws.String("test-told"), EventBusName: aws.String("holdfast"), Targets: []ebtypes.Target{{Id: aws.String("q"), Arn: &arn}},
	})
	w.must(err)
	url, arn = queue("test-alerts")
	w.alerts = url
	_, err = w.sns.Subscribe(w.t.Context(), &sns.SubscribeInput{
		TopicArn: aws.String("arn:aws:sns:" + region + ":" + cloud.Account + ":" + settings.TopicName), Protocol: aws.String("sqs"), Endpoint: &arn,
	})
	w.must(err)
}

// start starts the agent; stop ends it as systemd would.
func (w *world) start() {
	w.t.Helper()
	log, err := os.OpenFile(w.path("agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.must(err)
	defer func() { _ = log.Close() }()
	w.agent = exec.Command(w.holdfast, "agent", "--queue", "holdfast-"+host, "--heartbeat", "2s", "--grace", "5s") //nolint:gosec // the test's own
	w.agent.Env, w.agent.Dir = w.as("host"), w.dir
	w.agent.Stdout, w.agent.Stderr = log, log
	w.agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.must(w.agent.Start())
	if w.started {
		return
	}
	w.started = true
	w.t.Cleanup(func() {
		w.stop()
		if w.t.Failed() {
			text, _ := os.ReadFile(w.path("agent.log"))
			w.t.Logf("the agent said:\n%s", text[max(0, len(text)-4000):])
		}
	})
}

func (w *world) stop() {
	if w.agent == nil {
		return
	}
	_ = w.agent.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func(cmd *exec.Cmd) { _ = cmd.Wait(); close(done) }(w.agent)
	select {
	case <-done:
	case <-time.After(patience):
		w.t.Errorf("the agent does not end within %v", patience)
		_ = w.agent.Process.Kill()
		<-done
	}
	w.agent = nil
}

// invoke calls a function and decodes its answer; an error of the function ends the test.
func (w *world) invoke(verb string, payload any) map[string]any {
	w.t.Helper()
	return w.invokeBy(w.lambda, verb, payload)
}

func (w *world) invokeBy(client *lambda.Client, verb string, payload any) map[string]any {
	w.t.Helper()
	text, err := json.Marshal(payload)
	w.must(err)
	out, err := client.Invoke(w.t.Context(), &lambda.InvokeInput{FunctionName: aws.String(settings.FunctionName(verb)), Payload: text})
	w.must(err)
	if out.FunctionError != nil {
		w.t.Fatalf("%s %s: %s", verb, text, out.Payload)
	}
	var answer map[string]any
	_ = json.Unmarshal(out.Payload, &answer)
	return answer
}

// tick is one beat of a schedule.
func (w *world) tick(verb string, at time.Time) map[string]any {
	w.t.Helper()
	return w.invoke(verb, map[string]any{"version": 1, "time": at.UTC().Format(time.RFC3339)})
}

// until waits until a condition holds; what it last said is in the failure.
func (w *world) until(what string, holds func() (ok bool, said string)) {
	w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		late := time.Now().After(end) // before the look: it may take long
		ok, said := holds()
		if ok {
			return
		}
		if late {
			w.t.Fatalf("%s: not within %v: %s", what, patience, said)
		}
	}
}

// listed lists the objects of a bucket below a prefix.
func (w *world) listed(bucket, prefix string) (list []types.Object) {
	w.t.Helper()
	pages := s3.NewListObjectsV2Paginator(w.s3, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(w.t.Context())
		w.must(err)
		list = append(list, page.Contents...)
	}
	return list
}

// objects lists the keys of a bucket below a prefix.
func (w *world) objects(bucket, prefix string) (keys []string) {
	w.t.Helper()
	for _, o := range w.listed(bucket, prefix) {
		keys = append(keys, *o.Key)
	}
	return keys
}

// object reads an object.
func (w *world) object(bucket, key string) []byte {
	w.t.Helper()
	out, err := w.s3.GetObject(w.t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	w.must(err)
	body, err := io.ReadAll(out.Body)
	w.must(errors.Join(err, out.Body.Close()))
	return body
}

// messages takes what is in a queue.
func (w *world) messages(url string) []string {
	w.t.Helper()
	var out []string
	for {
		got, err := w.sqs.ReceiveMessage(w.t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10})
		w.must(err)
		if len(got.Messages) == 0 {
			return out
		}
		for _, m := range got.Messages {
			out = append(out, *m.Body)
			_, err := w.sqs.DeleteMessage(w.t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
			w.must(err)
		}
	}
}

// send puts a message into the host's queue.
func (w *world) send(body string) {
	w.t.Helper()
	url, err := w.sqs.GetQueueUrl(context.Background(), &sqs.GetQueueUrlInput{QueueName: aws.String("holdfast-" + host)})
	w.must(err)
	_, err = w.sqs.SendMessage(context.Background(), &sqs.SendMessageInput{QueueUrl: url.QueueUrl, MessageBody: &body})
	w.must(err)
}

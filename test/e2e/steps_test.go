package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/test/alarm"
	"github.com/btcdecoded/holdfast/test/cloud"
	"github.com/btcdecoded/holdfast/test/iam"
)

const snapshots = "v1/" + host + "/app/snapshots/"

// scheduled waits for the scheduler's own beat: coordinate finds the run due, the agent takes the job, its manifest
// arrives, verify writes the receipt.
func scheduled(w *world) {
	w.within(100*time.Second, "a job and its snapshot", func() (bool, string) {
		return len(w.objects(bucket, snapshots)) > 0, strings.Join(w.objects(state, ""), " ")
	})
	w.within(30*time.Second, "a receipt of the cloud", func() (bool, string) {
		return len(w.objects(bucket, "v1/"+host+"/app/receipts/cloud/")) > 0, strings.Join(w.objects(bucket, "v1/"), " ")
	})
	for _, want := range []string{events.TypeJobAccepted, events.TypeJobFinished, events.TypeHeartbeat} {
		w.within(30*time.Second, "the event "+want, func() (bool, string) {
			n := len(w.reports(want, func(e event) string { return e.Detail.Job }))
			return n > 0, fmt.Sprint(n)
		})
	}
}

// replayed sends the beat of a minute several times, beside that of the scheduler. What comes of it is seen at the end:
// whoever asks, a run has one id and is done once; see once.
func replayed(w *world) {
	for range 3 {
		w.tick(settings.Coordinate, time.Now())
	}
}

// once compares snapshots with reports: each job was done once, and each snapshot is that of a job. A job may have found
// the one of another, which had ended since it was due.
func once(w *world) {
	w.within(90*time.Second, "another snapshot", func() (bool, string) {
		w.tick(settings.Coordinate, time.Now())
		n := len(w.objects(bucket, snapshots))
		return n >= 2, fmt.Sprint(n)
	})
	w.stop()
	var done map[string]int
	var told map[uint64]bool
	w.within(30*time.Second, "reports of all snapshots", func() (bool, string) {
		made := len(w.objects(bucket, snapshots))
		done, told = map[string]int{}, map[uint64]bool{}
		w.listenNow()
		for _, e := range w.heard {
			if e.Type == events.TypeJobFinished && e.Detail.Kind == string(events.Backup) && e.Detail.Source == "app" && e.Detail.Result == "ok" {
				done[e.Detail.Job]++
				told[e.Detail.Snapshot] = true
			}
		}
		return len(told) == made, fmt.Sprintf("%d snapshots, %v told of %v", made, done, told)
	})
	for job, n := range done {
		if n != 1 {
			w.t.Errorf("job %s was done %d times", job, n)
		}
	}
}

// refused sends what the agent must not do.
func refused(w *world) {
	now := time.Now().UTC().Truncate(time.Second)
	id := func(n int) string { return fmt.Sprintf("%032x", n) }
	job := events.Job{Version: events.Version, Host: host, Source: "app", Kind: events.Backup, Type: "incremental", Due: now, NotAfter: now.Add(time.Hour)}
	text := func(n int, change func(j *events.Job)) string {
		j := job
		j.ID = id(n)
		change(&j)
		body, err := json.Marshal(j)
		w.must(err)
		return string(body)
	}
	before := w.reports(events.TypeJobFinished, func(e event) string { return e.Detail.Job })
	// Two signatures, of which the second was made with the first one's key.
	asked := &approval.Request{
		Version: approval.Version, ID: approval.NewID(), Host: host, Source: host + "/app", Snapshot: 1, Target: filepath.Join(w.root, "restored", "forged"),
		Reason: "forged", Created: now, Expires: now.Add(time.Hour),
	}
	order := &events.RestoreOrder{}
	var err error
	order.Request, err = approval.Encode(asked)
	w.must(err)
	for _, name := range []string{"operator", "security"} {
		signature, err := approval.Sign(order.Request, name, w.people["operator"].key)
		w.must(err)
		order.Signatures = append(order.Signatures, signature)
	}
	w.send(text(1, func(j *events.Job) { j.Due, j.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour) }))
	w.send(text(2, func(j *events.Job) { j.Host = "web-2" }))
	w.send(text(3, func(j *events.Job) { j.Source = "nothing" }))
	w.send(strings.Replace(text(4, func(*events.Job) {}), `{"version"`, `{"hook":["rm","-rf","/"],"version"`, 1))
	w.send(text(5, func(j *events.Job) {
		j.ID, j.Kind, j.Type, j.Source, j.Restore = asked.ID, events.Restore, "", "", order
	}))
	w.send("no job at all")
	// The same again is told no second time.
	w.send(text(2, func(j *events.Job) { j.Host = "web-2" }))
	want := map[string]int{"stale": 1, "foreign": 1, "unknown_source": 1, "malformed": 2, "forged": 1}
	var got map[string]int
	w.within(40*time.Second, "refusals", func() (bool, string) {
		got = w.reports(events.TypeJobRefused, func(e event) string { return e.Detail.Code })
		total := 0
		for code, n := range want {
			total += min(n, got[code])
		}
		return total == 6, fmt.Sprint(got)
	})
	if !maps.Equal(got, want) {
		w.t.Errorf("refusals are not told once each: %v, want %v", got, want)
	}
	if _, err := os.Stat(asked.Target); err == nil {
		w.t.Error("a forged restore wrote files")
	}
	for job := range w.reports(events.TypeJobFinished, func(e event) string { return e.Detail.Job }) {
		if _, known := before[job]; !known && strings.HasPrefix(job, strings.Repeat("0", 31)) {
			w.t.Errorf("job %s was refused and done", job)
		}
	}
}

// never lets monitor judge what has no snapshot.
func never(w *world) {
	w.tellsBy(30*time.Second, "opened", "never", host+"/idle")
}

// oversized lets monitor judge what is there.
func oversized(w *world) {
	w.tellsBy(60*time.Second, "opened", "oversized", host+"/app")
}

// silent stops the agent. What counts as silence is short in this deployment.
func silent(w *world) {
	w.listenNow()
	before := len(w.mail)
	w.stop()
	w.tellsAfter(before, 90*time.Second, "opened", "host_silent", host)
	w.t.Logf("told of the silence at %v", time.Now().Format(time.TimeOnly))
	before = len(w.mail)
	w.start()
	w.tellsAfter(before, 90*time.Second, "closed", "host_silent", host)
}

// damaged flips a byte of a pack, which the emulator lets anybody do, and lets verify read everything.
func damaged(w *world) {
	packs := w.objects(bucket, "v1/"+host+"/app/packs/")
	if len(packs) == 0 {
		w.t.Fatal("no packs")
	}
	key := packs[0]
	out, err := w.s3.GetObject(w.t.Context(), &s3.GetObjectInput{Bucket: aws.String(bucket), Key: &key})
	w.must(err)
	good, err := io.ReadAll(out.Body)
	w.must(err)
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	put := func(body []byte) {
		_, err := w.s3.PutObject(w.t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: &key, Body: bytes.NewReader(body)})
		w.must(err)
	}
	put(bad)
	w.within(60*time.Second, "a record of the damage", func() (bool, string) {
		w.tick(settings.Verify, time.Now())
		found := w.objects(bucket, "v1/"+host+"/app/damaged/")
		return len(found) > 0, strings.Join(w.objects(state, "verify/"), " ")
	})
	w.tellsBy(30*time.Second, "opened", "damaged", host+"/app")
	put(good)
}

// judged evaluates the alarms of the templates over the metrics that the functions wrote.
func judged(w *world) {
	w.tick(settings.Monitor, time.Now())
	w.invokeBy(lambda.NewFromConfig(w.Config(second)), settings.Watchdog, map[string]any{})
	account, err := iam.Load(w.Assembly, cloud.Account)
	w.must(err)
	rules, err := alarm.Rules(account)
	w.must(err)
	points, err := alarm.Parse(w.Output(w.t))
	w.must(err)
	known := map[string][]string{}
	for _, m := range environment.Metrics() {
		known[m.Name] = m.Dimensions
	}
	for _, p := range points {
		if dimensions, ok := known[p.Name]; !ok || !slices.Equal(slices.Sorted(maps.Keys(p.Dimensions)), slices.Sorted(slices.Values(dimensions))) {
			w.t.Errorf("%s with %v is emitted and not listed", p.Name, p.Dimensions)
		}
	}
	now := time.Now().Add(time.Second)
	for name, want := range map[string][2]alarm.State{ // with the metrics, and without any
		"holdfast-breach-critical":  {alarm.Alarm, alarm.OK},
		"holdfast-breach-low":       {alarm.Alarm, alarm.OK},
		"holdfast-breach-high":      {alarm.OK, alarm.OK},
		"holdfast-damaged-critical": {alarm.Alarm, alarm.OK},
		"holdfast-damaged-low":      {alarm.OK, alarm.OK},
		"holdfast-monitor-pass":     {alarm.OK, alarm.Alarm},
		"holdfast-unconfirmed":      {alarm.OK, alarm.OK},
		"holdfast-source-web-1/app": {alarm.Alarm, alarm.OK},
		"holdfast-watchdog-pass":    {alarm.OK, alarm.Alarm},
		"holdfast-primary-silent":   {alarm.OK, alarm.Alarm},
	} {
		rule, ok := rules[name]
		if !ok {
			w.t.Errorf("no alarm %s", name)
			continue
		}
		if got := [2]alarm.State{rule.Evaluate(points, now), rule.Evaluate(nil, now)}; got != want {
			w.t.Errorf("alarm %s: with metrics and without %v, want %v", name, got, want)
		}
	}
}

// poison puts what is no event into a function's queue. How long it rests between two attempts is shortened.
func poison(w *world) {
	url := func(name string) *string {
		out, err := w.sqs.GetQueueUrl(w.t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
		w.must(err)
		return out.QueueUrl
	}
	queue := url(settings.QueuePrefix + settings.Verify)
	_, err := w.sqs.SetQueueAttributes(w.t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: queue, Attributes: map[string]string{"VisibilityTimeout": "1"}})
	w.must(err)
	_, err = w.sqs.SendMessage(w.t.Context(), &sqs.SendMessageInput{QueueUrl: queue, MessageBody: aws.String("poison")})
	w.must(err)
	dead := *url(settings.QueuePrefix + settings.Verify + "-dlq")
	w.within(60*time.Second, "poison among the dead letters", func() (bool, string) {
		got := w.messages(dead)
		return slices.Contains(got, "poison"), fmt.Sprint(got)
	})
}

// restored asks for a restore by invocation, lets two people sign, and compares the files.
func restored(w *world) {
	target := filepath.Join(w.root, "restored", "app")
	w.must(os.MkdirAll(filepath.Dir(target), 0o700))
	w.approved(host+"/app", target)
	w.same(filepath.Join(w.root, "app"), target)
	if frozen := w.objects(state, "freeze/"); len(frozen) == 0 {
		w.t.Error("nothing keeps lifecycle from removing what is restored")
	}
}

// approved restores the newest state of a source over the queue: planned and requested by invocation, signed by two people.
func (w *world) approved(source, target string) {
	w.t.Helper()
	plan := w.invoke(settings.Restore, map[string]any{"action": "plan", "source": source})
	if len(plan) == 0 {
		w.t.Error("the plan is empty")
	}
	asked := w.invoke(settings.Restore, map[string]any{"action": "request", "source": source, "target": target, "reason": "e2e"})
	id, _ := asked["id"].(string)
	order, err := json.Marshal(asked["order"])
	w.must(err)
	file := w.write("restore.json", string(order))
	for _, name := range []string{"operator", "security"} {
		w.run("host", "approve", "sign", file, "--as", name, "--key", w.write(name+".key", w.people[name].private))
	}
	signed, err := os.ReadFile(file) //nolint:gosec // the test's own
	w.must(err)
	w.invoke(settings.Restore, map[string]any{"action": "approve", "order": json.RawMessage(signed)})
	w.within(90*time.Second, "the end of the restore", func() (bool, string) {
		doc := w.invoke(settings.Restore, map[string]any{"action": "status", "id": id})
		text, _ := json.Marshal(doc)
		if doc["status"] == "failed" || doc["status"] == "refused" {
			w.t.Fatalf("%s", text)
		}
		return doc["status"] == "done", string(text)
	})
}

// alarmTest proves the way of alerts as a person does after a deployment.
func alarmTest(w *world) {
	if said := w.Make(w.t, "alarm-test"); !strings.Contains(said, "sent: ") {
		w.t.Errorf("make alarm-test: %s", said)
	}
	w.within(30*time.Second, "the message of the test", func() (bool, string) {
		_, ok := w.letter(0, "test", "", "test of the alarms")
		return ok, fmt.Sprint(w.mail)
	})
}

// unchanged asks what a deployment would change right after one: nothing.
func unchanged(w *world) {
	if said := w.Diff(w.t); !strings.Contains(said, "Number of stacks with differences: 0") {
		w.t.Errorf("make diff after make deploy: %s", said)
	}
}

// again destroys what works, then the stacks of the storage too, and deploys once more as docs/deploy.md says: buckets, their
// policies and the keys have stayed, and the new stacks take them over by their names.
func again(w *world) {
	before := w.objects(bucket, "v1/")
	stayed := func(after string) {
		w.t.Helper()
		if n := len(w.objects(bucket, "v1/")); n < len(before) {
			w.t.Fatalf("%d objects were there before, %d are after %s", len(before), n, after)
		}
	}
	w.Destroy(w.t)
	if _, err := w.lambda.GetFunction(w.t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String(settings.FunctionName(settings.Monitor))}); err == nil {
		w.t.Error("monitor is still there")
	}
	stayed("make destroy")
	w.DestroyAll(w.t, map[string]string{"holdfast-storage": region, "holdfast-replica-storage": second})
	stayed("make destroy stacks=--all")
	key := func(at string) string {
		out, err := kms.NewFromConfig(w.Config(at)).DescribeKey(w.t.Context(), &kms.DescribeKeyInput{KeyId: aws.String(settings.KeyAlias)})
		w.must(err)
		return *out.KeyMetadata.Arn
	}
	w.Synthesize(w.t, "-c key="+key(region)+" -c replica-key="+key(second))
	for _, one := range []struct {
		stack, region string
		want          []string
	}{
		{"holdfast-replica-storage", second, []string{"AccessLogs", "KeyAlias", "Repository", "State"}},
		{"holdfast-storage", region, []string{"AccessLogs", "KeyAlias", "Replicate", "Repository", "State"}},
	} {
		got := w.Adopt(w.t, one.stack, one.region)
		if slices.Sort(got); !slices.Equal(got, one.want) {
			w.t.Errorf("%s takes over %q, want %q", one.stack, got, one.want)
		}
	}
	w.Again(w.t)
	w.tick(settings.Monitor, time.Now())
	stayed("make deploy")
}

// files writes some files.
func (w *world) files(dir string, n int) {
	w.t.Helper()
	w.must(os.MkdirAll(dir, 0o700))
	for i := range n {
		w.must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%02d", i)), bytes.Repeat([]byte{byte(i)}, 1000*(i+1)), 0o600))
	}
}

// same compares the files of a directory with what was restored somewhere below another.
func (w *world) same(dir, restored string) {
	w.t.Helper()
	found := map[string]string{}
	w.must(filepath.Walk(restored, func(p string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			found[filepath.Base(p)] = p
		}
		return err
	}))
	want, err := os.ReadDir(dir)
	w.must(err)
	for _, e := range want {
		a, err := os.ReadFile(filepath.Join(dir, e.Name())) //nolint:gosec // the test's own
		w.must(err)
		b, err := os.ReadFile(found[e.Name()])
		if err != nil || !bytes.Equal(a, b) {
			w.t.Errorf("%s did not come back as it was: %v", e.Name(), err)
		}
	}
	if len(want) != len(found) {
		w.t.Errorf("%d files, %d restored", len(want), len(found))
	}
}

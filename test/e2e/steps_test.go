package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

const snapshots = "v1/" + host + "/app/snapshots/"

// scheduled waits for the scheduler's own beat: coordinate finds the run due, the agent takes the job, its manifest
// arrives, verify writes the receipt.
func scheduled(w *world) {
	w.until("a job and its snapshot", func() (bool, string) {
		return len(w.objects(bucket, snapshots)) > 0, strings.Join(w.objects(state, ""), " ")
	})
	w.until("a receipt of the cloud", func() (bool, string) {
		return len(w.objects(bucket, "v1/"+host+"/app/receipts/cloud/")) > 0, strings.Join(w.objects(bucket, "v1/"), " ")
	})
	for _, want := range []string{events.TypeJobAccepted, events.TypeJobFinished, events.TypeHeartbeat} {
		w.until("the event "+want, func() (bool, string) {
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

// made are the numbers of the snapshots that there are of the source app.
func (w *world) made() map[uint64]bool {
	w.t.Helper()
	out := map[uint64]bool{}
	for _, key := range w.objects(bucket, snapshots) {
		n, err := layout.ParseNumbered(snapshots, key)
		w.must(err)
		out[n] = true
	}
	return out
}

// once compares snapshots with reports: each job was done once, and each snapshot is that of a job. A job may have found
// the one of another, which had ended since it was due. The agent is at work meanwhile: what it had no time to tell when it
// was stopped it tells when it is started again.
func once(w *world) {
	w.until("another snapshot", func() (bool, string) {
		w.tick(settings.Coordinate, time.Now())
		n := len(w.made())
		return n >= 2, fmt.Sprint(n)
	})
	made := w.made()
	var done map[string]int
	var told map[uint64]bool
	w.until("reports of all snapshots", func() (bool, string) {
		done, told = map[string]int{}, map[uint64]bool{}
		w.listenNow()
		for _, e := range w.heard {
			if e.Type == events.TypeJobFinished && e.Detail.Kind == string(events.Backup) && e.Detail.Source == "app" && e.Detail.Result == string(events.OK) {
				done[e.Detail.Job]++
				told[e.Detail.Snapshot] = true
			}
		}
		all := true
		for n := range made {
			all = all && told[n]
		}
		return all, fmt.Sprintf("snapshots %v, %v told of %v", made, done, told)
	})
	w.stop()
	for job, n := range done {
		if n != 1 {
			w.t.Errorf("job %s was done %d times", job, n)
		}
	}
	made = w.made()
	for n := range told {
		if !made[n] {
			w.t.Errorf("snapshot %d is told of, and there are %v", n, made)
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
	// What is none at all has no id. What else the agent may refuse meanwhile, such as what it got too late, is not at issue.
	want := map[string]int{"stale " + id(1): 1, "foreign " + id(2): 1, "unknown_source " + id(3): 1, "malformed ": 2, "forged " + asked.ID: 1}
	var got map[string]int
	w.until("refusals", func() (bool, string) {
		got = w.reports(events.TypeJobRefused, func(e event) string { return e.Detail.Code + " " + e.Detail.Job })
		maps.DeleteFunc(got, func(what string, _ int) bool {
			_, job, _ := strings.Cut(what, " ")
			return job != "" && job != asked.ID && !strings.HasPrefix(job, strings.Repeat("0", 24))
		})
		total := 0
		for what, n := range want {
			total += min(n, got[what])
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
	w.tells("opened", "never", host+"/idle")
}

// oversized lets monitor judge what is there.
func oversized(w *world) {
	w.tells("opened", "oversized", host+"/app")
}

// silent stops the agent. As long as it is at work it is never called silent; then what counts as silence is made short.
// Signs of life are written down with the jobs, once a minute here, so that an agent at work would soon be called silent
// too: before that is over again, monitor must have heard it anew, and then silence is as long as it is elsewhere.
func silent(w *world) {
	if kind := w.newest("host_silent", host); kind != "" {
		w.t.Errorf("silence was %s while the agent was at work", kind)
	}
	w.stop()
	stopped := time.Now()
	w.environment(settings.Monitor, map[string]string{settleAfter: "1s", silentAfter: "1s"})
	w.tells("opened", "host_silent", host)
	w.start()
	key := observe.ShardKey(observe.ShardOf(host))
	w.until("a sign of life", func() (bool, string) {
		w.tick(settings.Monitor, time.Now())
		var memory observe.Shard
		w.must(json.Unmarshal(w.object(state, key), &memory))
		h := memory.Hosts[host]
		return h != nil && h.Heard.After(stopped), fmt.Sprintf("stopped at %s: %+v", stopped.UTC(), h)
	})
	w.environment(settings.Monitor, map[string]string{settleAfter: "1s"})
	w.tells("closed", "host_silent", host)
}

// environment changes these two variables of a function; what is not given is as in a deployment of anybody.
func (w *world) environment(verb string, variables map[string]string) {
	w.t.Helper()
	name := aws.String(settings.FunctionName(verb))
	now, err := w.lambda.GetFunctionConfiguration(w.t.Context(), &lambda.GetFunctionConfigurationInput{FunctionName: name})
	w.must(err)
	all := maps.Clone(now.Environment.Variables)
	delete(all, silentAfter)
	delete(all, settleAfter)
	maps.Copy(all, variables)
	_, err = w.lambda.UpdateFunctionConfiguration(w.t.Context(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: name, Environment: &lambdatypes.Environment{Variables: all},
	})
	w.must(err)
	w.must(lambda.NewFunctionUpdatedV2Waiter(w.lambda).Wait(w.t.Context(), &lambda.GetFunctionInput{FunctionName: name}, patience))
}

// damaged flips a byte of a pack, which the emulator lets anybody do, and lets verify read everything.
//
// It is the oldest pack, which is that of a snapshot: another one may be that of a backup that is being made, which nobody
// reads before the backup is there.
func damaged(w *world) {
	packs := w.listed(bucket, "v1/"+host+"/app/packs/")
	if len(packs) == 0 {
		w.t.Fatal("no packs")
	}
	key := *slices.MinFunc(packs, func(a, b types.Object) int { return a.LastModified.Compare(*b.LastModified) }).Key
	good := w.object(bucket, key)
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	put := func(body []byte) {
		_, err := w.s3.PutObject(w.t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: &key, Body: bytes.NewReader(body)})
		w.must(err)
	}
	put(bad)
	w.until("a record of the damage", func() (bool, string) {
		w.tick(settings.Verify, time.Now())
		found := w.objects(bucket, "v1/"+host+"/app/damaged/")
		return len(found) > 0, strings.Join(w.objects(state, "verify/"), " ")
	})
	w.tells("opened", "damaged", host+"/app")
	put(good)
}

// poison puts what is no event into a function's queue. How long it rests between two attempts is shortened meanwhile: a
// function that takes longer than that would get again what it is at.
func poison(w *world) {
	url := func(name string) *string {
		out, err := w.sqs.GetQueueUrl(w.t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
		w.must(err)
		return out.QueueUrl
	}
	queue := url(settings.QueuePrefix + settings.Verify)
	rest := "VisibilityTimeout"
	before, err := w.sqs.GetQueueAttributes(w.t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: queue, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeName(rest)}})
	w.must(err)
	set := func(value string) {
		w.t.Helper()
		_, err := w.sqs.SetQueueAttributes(w.t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: queue, Attributes: map[string]string{rest: value}})
		w.must(err)
	}
	set("1")
	_, err = w.sqs.SendMessage(w.t.Context(), &sqs.SendMessageInput{QueueUrl: queue, MessageBody: aws.String("poison")})
	w.must(err)
	dead := *url(settings.QueuePrefix + settings.Verify + "-dlq")
	w.until("poison among the dead letters", func() (bool, string) {
		got := w.messages(dead)
		return slices.Contains(got, "poison"), fmt.Sprint(got)
	})
	set(before.Attributes[rest])
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
	w.until("the end of the restore", func() (bool, string) {
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
	w.until("the message of the test", func() (bool, string) {
		return w.newest("", "test of the alarms") == "test", fmt.Sprint(w.mail)
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

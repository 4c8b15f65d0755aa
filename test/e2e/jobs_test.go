package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/btcdecoded/holdfast/events"
)

// old is a source without a schedule: its backups are made by the jobs of these steps and by nothing else.
const old = host + "/old"

// backupOf makes the text of a job for a full backup of the source old.
func (w *world) backupOf(number int) (id, body string) {
	w.t.Helper()
	return w.backupJob("old", number)
}

// backupJob makes the text of a job for a full backup of a source of the host.
func (w *world) backupJob(source string, number int) (id, body string) {
	w.t.Helper()
	// Not rounded: a backup that was made earlier in the same second would count as this one.
	now := time.Now().UTC()
	j := events.Job{
		Version: events.Version, ID: events.JobID("e2e", fmt.Sprintf("%s/%s %d", host, source, number), now, string(events.Backup), "full"),
		Host: host, Source: source, Kind: events.Backup, Type: "full", Due: now, NotAfter: now.Add(time.Hour),
	}
	text, err := json.Marshal(j)
	w.must(err)
	return j.ID, string(text)
}

// content is what the source old has in its file when a backup is made.
func content(number int) string {
	return strings.Repeat(fmt.Sprintf("what is there at backup %d\n", number), 2000)
}

// finished waits for the end of a job and returns the snapshots that it told of, one for each end that was told.
func (w *world) finished(id string) (told []uint64) {
	w.t.Helper()
	w.until("the end of job "+id, func() (bool, string) {
		w.listenNow()
		told = nil
		for _, e := range w.heard {
			if e.Type == events.TypeJobFinished && e.Detail.Job == id {
				if e.Detail.Result != string(events.OK) {
					w.t.Fatalf("job %s: %+v", id, e.Detail)
				}
				told = append(told, e.Detail.Snapshot)
			}
		}
		return len(told) > 0, fmt.Sprintf("%d events", len(w.heard))
	})
	return told
}

// taken waits until the agent has taken all that is in its queue.
func (w *world) taken() {
	w.t.Helper()
	url, err := w.sqs.GetQueueUrl(w.t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("holdfast-" + host)})
	w.must(err)
	w.until("an empty queue", func() (bool, string) {
		out, err := w.sqs.GetQueueAttributes(w.t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: url.QueueUrl, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
		w.must(err)
		waiting, hidden := out.Attributes["ApproximateNumberOfMessages"], out.Attributes["ApproximateNumberOfMessagesNotVisible"]
		return waiting == "0" && hidden == "0", fmt.Sprintf("%s waiting, %s taken", waiting, hidden)
	})
}

// duplicate has one job delivered three times, once after its end: it runs once, and that it came again is told once.
func duplicate(w *world) {
	w.must(os.MkdirAll(filepath.Join(w.root, "old"), 0o700))
	w.must(os.WriteFile(filepath.Join(w.root, "old", "file"), []byte(content(1)), 0o600))
	id, body := w.backupOf(1)
	w.send(body)
	w.send(body)
	w.finished(id)
	w.send(body)
	refusals := func() int {
		return w.reports(events.TypeJobRefused, func(e event) string { return e.Detail.Code + " " + e.Detail.Job })["duplicate "+id]
	}
	w.until("the refusal", func() (bool, string) { n := refusals(); return n > 0, fmt.Sprint(n) })
	w.taken()
	// The answer to what came after the end is the same end once more, since its event may have been lost.
	if told := w.finished(id); len(told) != 1 || told[0] != 1 {
		w.t.Errorf("it ended with the snapshots %d", told)
	}
	if n := refusals(); n != 1 {
		w.t.Errorf("it was refused %d times", n)
	}
	if made := w.objects(bucket, "v1/"+old+"/snapshots/"); len(made) != 1 {
		w.t.Errorf("snapshots %q", made)
	}
}

// more makes another backup of the source old, and returns the packs that came with it.
func (w *world) more(number int) (added []string) {
	w.t.Helper()
	before := w.objects(bucket, "v1/"+old+"/packs/")
	w.must(os.WriteFile(filepath.Join(w.root, "old", "file"), []byte(content(number)), 0o600))
	id, body := w.backupOf(number)
	w.send(body)
	w.finished(id)
	for _, key := range w.objects(bucket, "v1/"+old+"/packs/") {
		if !slices.Contains(before, key) {
			added = append(added, key)
		}
	}
	if len(added) == 0 {
		w.t.Fatalf("backup %d has no packs of its own", number)
	}
	return added
}

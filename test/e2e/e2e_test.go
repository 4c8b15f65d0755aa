package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const policyText = `version: 1
repository:
  primary: s3://holdfast-e2e?region=eu-central-1&path_style=true
  copies: ["s3://holdfast-e2e-replica?region=eu-west-1&path_style=true"]
hosts:
  web-1:
    sources:
      app:
        files: {roots: [ROOT/app]}
        schedule: {full: "0 3 1 1 *", incremental: "* * * * *"}
        objectives: {tier: critical, rpo: 1h, max_size: 500GiB, copies: 1}
        metrics: true
`

// TestControlPlane is one story: the parts of it need each other, and a deployment takes half a minute.
func TestControlPlane(t *testing.T) {
	started := time.Now()
	root := t.TempDir()
	w := newWorld(t, strings.ReplaceAll(policyText, "ROOT", root))
	w.files(root+"/app", 20)
	t.Logf("deployed in %v", time.Since(started).Round(time.Second))
	w.start()
	for _, step := range []struct {
		name string
		run  func(w *world)
	}{
		{"a schedule makes a checked snapshot", scheduled},
	} {
		begun := time.Now()
		if !t.Run(step.name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			step.run(w)
		}) {
			break
		}
		t.Logf("%s: %v", step.name, time.Since(begun).Round(100*time.Millisecond))
	}
}

// scheduled waits for the scheduler's own beat: coordinate finds the run due, the agent takes the job, its manifest
// arrives, verify writes the receipt.
func scheduled(w *world) {
	w.within(100*time.Second, "a job and its snapshot", func() (bool, string) {
		keys := w.objects(bucket, "v1/"+host+"/app/snapshots/")
		return len(keys) > 0, strings.Join(w.objects(state, ""), " ")
	})
	w.within(30*time.Second, "a receipt of the cloud", func() (bool, string) {
		keys := w.objects(bucket, "v1/"+host+"/app/receipts/cloud/")
		return len(keys) > 0, strings.Join(w.objects(bucket, "v1/"), " ")
	})
	kinds := w.told1()
	for _, want := range []string{"Holdfast Job Accepted", "Holdfast Job Finished", "Holdfast Heartbeat"} {
		if kinds[want] == 0 {
			w.t.Errorf("nobody heard %s: %v", want, kinds)
		}
	}
}

// told1 counts what the bus has carried since the last call, by detail-type.
func (w *world) told1() map[string]int {
	w.t.Helper()
	out := map[string]int{}
	for _, m := range w.messages(w.told) {
		var e struct {
			DetailType string `json:"detail-type"`
		}
		w.must(json.Unmarshal([]byte(m), &e))
		out[e.DetailType]++
	}
	return out
}

// files writes some files.
func (w *world) files(dir string, n int) {
	w.t.Helper()
	w.must(os.MkdirAll(dir, 0o700))
	for i := range n {
		w.must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%02d", i)), bytes.Repeat([]byte{byte(i)}, 1000*(i+1)), 0o600))
	}
}

package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/cli"
	"github.com/btcdecoded/holdfast/hostagent/queue/queuetest"
)

// TestHostCommands adds, lists and removes hosts of a control plane.
func TestHostCommands(t *testing.T) {
	aws := queuetest.Start(t)
	dir := t.TempDir()
	for _, pair := range append(aws.Environment(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOLDFAST_REPOSITORY="+dir+"/repo",
		"HOLDFAST_STATE="+dir+"/state", "HOLDFAST_HOST=admin", "HOLDFAST_POLICY="+dir+"/policy.yaml", "HOLDFAST_IDENTITY="+dir+"/identity") {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	policy := "version: 1\nhosts: {web-1: {sources: {etc: {files: {roots: [/etc]}}}}}\n"
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := cli.Main(t.Context(), args, cli.Stdio{In: strings.NewReader(""), Out: &out, Err: &errs}, "test"); code != want {
			t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, &out, &errs)
		}
		return out.String() + errs.String()
	}
	says := func(text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	run(0, "init", "-q")
	says(run(1, "host", "add", "web-1"), "no queue for dead letters", "docs/deploy.md")
	aws.Make("holdfast-jobs-dlq")

	run(0, "key", "new", dir+"/web-1")
	signer := strings.TrimSpace(run(0, "key", "show", "--only", "signer", "--identity", dir+"/web-1"))
	says(run(0, "host", "add", "web-1", "--signer", signer), "queue holdfast-web-1: made", "speaks for the host from now on",
		"the tag holdfast-host=web-1", "common name web-1", "HOLDFAST_QUEUE=holdfast-web-1")
	says(run(0, "key", "list"), "host web-1")
	// The same again changes nothing.
	text := run(0, "host", "add", "web-1", "--signer", signer)
	says(text, "queue holdfast-web-1: was there", "spoke for the host before")
	if strings.Count(run(0, "key", "list"), "host web-1, only damaged, keys, log, receipts/host, snapshots") != 1 {
		t.Error("the signer is there twice")
	}
	// A host without a signer, and not in the policy.
	says(run(0, "host", "add", "web-2"), "put host web-2 with its sources into the policy", "register its signer: holdfast host add web-2")
	says(run(0, "host", "list"), "web-1", "holdfast-web-2")
	says(run(0, "host", "list", "-r", dir+"/nothing"), "web-1", "up to date is not known")
	says(run(0, "host", "list", "--json"), `"name":"web-1","queue":"holdfast-web-1"`)
	// One that was registered before there were logs is told of, with what helps; and then it is over.
	run(0, "key", "new", dir+"/web-4")
	older := strings.TrimSpace(run(0, "key", "show", "--only", "signer", "--identity", dir+"/web-4"))
	run(0, "key", "add", "--signer", older, "--for-host", "web-2", "--only", "damaged,keys,receipts/host,snapshots")
	remedy := "holdfast host add web-2 --signer " + older
	listed := run(0, "host", "list")
	says(listed, "may not sign log: "+remedy)
	if strings.Contains(listed, "host add web-1") {
		t.Errorf("a signer that has all is told of:\n%s", listed)
	}
	says(run(0, "host", "list", "--json"), `"lacks":["log"]`)
	run(0, strings.Fields(remedy)[1:]...)
	if listed = run(0, "host", "list"); strings.Contains(listed, "may not") {
		t.Errorf("it still lacks something:\n%s", listed)
	}
	says(run(0, "host", "remove", "web-2"), "is deleted; its snapshots and its signer stay")
	says(run(0, "host", "remove", "web-2"), "has no queue")
	// Nothing is made where something is wrong.
	before := len(aws.Names())
	run(2, "host", "add", "web-3", "--signer", "nonsense")
	says(run(2, "host", "add", "web.3", "--signer", signer), "can have no dot", "such as web-3,")
	run(2, "host", "add", "../x")
	run(12, "host", "add", "web-3", "--signer", signer, "--identity", dir+"/none")
	if n := len(aws.Names()); n != before {
		t.Errorf("%d queues, %d before", n, before)
	}
}

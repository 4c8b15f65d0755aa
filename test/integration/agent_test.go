package integration

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
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

	"golang.org/x/crypto/ssh"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/queue/queuetest"
	"github.com/btcdecoded/holdfast/shared/approval"
)

// agentHost is a host with a policy for its agent; hooks of the source wait for a file, so that a test knows when a job
// is in its midst.
func agentHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t, "")
	for i := range 20 {
		write(t, h.path(fmt.Sprintf("tree/%d", i)), strings.Repeat(fmt.Sprint(i), 1000))
	}
	h.policy("")
	h.env = append(h.env, "HOLDFAST_POLICY="+h.path("policy.yaml"))
	h.run("init", "-q")
	return h
}

// policy writes a policy whose source runs a command before it is captured.
func (h *host) policy(before string) {
	h.t.Helper()
	hooks := ""
	if before != "" {
		hooks = fmt.Sprintf("before: [{command: %q}], ", before)
	}
	write(h.t, h.path("policy.yaml.new"), fmt.Sprintf(`version: 1
hosts:
  test:
    sources:
      tree:
        files: {roots: [%s]}
        schedule: {full: "0 0 1 1 *", jitter: 0s}
        hooks: {%safter: [{command: %q}]}
`, h.path("tree"), hooks, "echo after >> "+h.path("hooks.log")))
	// In one step, as editors and deployments do it.
	if err := os.Rename(h.path("policy.yaml.new"), h.path("policy.yaml")); err != nil {
		h.t.Fatal(err)
	}
}

// midst is a command that says that it runs and goes on until the test has ended, whoever is killed meanwhile.
func (h *host) midst() string {
	h.t.Helper()
	write(h.t, h.path("hold"), "")
	return "echo in the midst; while [ -e " + h.path("hold") + " ]; do sleep 0.1; done"
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// agent is a running agent.
type agent struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	log   []string
}

func (h *host) agent(args ...string) *agent {
	h.t.Helper()
	a := &agent{t: h.t, cmd: h.command(append([]string{"agent"}, args...)...)}
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	a.cmd.Stdout, a.cmd.Stderr = w, w
	if err := a.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	_ = w.Close()
	h.t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
		_ = r.Close()
	})
	// A test that waits for a line that never comes ends with what came.
	_ = r.SetReadDeadline(time.Now().Add(5 * time.Minute))
	a.lines = bufio.NewScanner(r)
	return a
}

// until reads the log up to a line with the text.
func (a *agent) until(text string) {
	a.t.Helper()
	for a.lines.Scan() {
		a.log = append(a.log, a.lines.Text())
		if strings.Contains(a.lines.Text(), text) {
			return
		}
	}
	a.t.Fatalf("the log has no %q:\n%s", text, strings.Join(a.log, "\n"))
}

// wait reads the rest of the log and returns how the agent ended.
func (a *agent) wait() error {
	for a.lines.Scan() {
		a.log = append(a.log, a.lines.Text())
	}
	if err := a.lines.Err(); err != nil && !errors.Is(err, io.EOF) {
		a.t.Fatalf("%v\n%s", err, strings.Join(a.log, "\n"))
	}
	return a.cmd.Wait()
}

func (a *agent) signal(s syscall.Signal) {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		a.t.Fatal(err)
	}
}

// agentStatus is what `agent status --json` says.
type agentStatus struct {
	Alive   bool
	Running *struct{ Attempts int }
	Waiting []struct{ Attempts int }
	Sources map[string]struct {
		Result   string
		Error    string
		Snapshot uint64
	}
}

func (h *host) agentStatus() agentStatus {
	h.t.Helper()
	var s agentStatus
	if err := json.Unmarshal([]byte(h.run("agent", "status", "--json")), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) snapshots(want int) {
	h.t.Helper()
	var list []any
	out := h.run("snapshots", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		h.t.Fatal(err)
	}
	if len(list) != want {
		h.t.Errorf("%d snapshots, want %d\n%s", len(list), want, out)
	}
}

// TestAgentIsKilled kills the agent in the midst of a job: the next one does it, once.
func TestAgentIsKilled(t *testing.T) {
	h := agentHost(t)
	h.policy(h.midst())
	a := h.agent()
	a.until("in the midst")
	if s := h.agentStatus(); !s.Alive || s.Running == nil {
		t.Errorf("%+v", s)
	}
	// One agent at a time.
	h.want(1, []string{"agent", "--once"}, "another agent uses this journal")
	a.signal(syscall.SIGKILL)
	_ = a.wait()
	if s := h.agentStatus(); s.Alive || s.Running != nil || len(s.Waiting) != 1 || s.Waiting[0].Attempts != 1 {
		t.Errorf("after the kill: %+v", s)
	}
	h.policy("")
	a = h.agent()
	a.until("job left by the last run")
	a.until("job finished")
	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
	h.snapshots(1)
	if s := h.agentStatus(); len(s.Waiting) != 0 || s.Sources["tree"].Result != "ok" || s.Sources["tree"].Snapshot != 1 {
		t.Errorf("%+v", s)
	}
	h.want(0, []string{"agent", "--once"}, "nothing was due")
	h.snapshots(1)
	h.run("verify", "--level", "content")
}

// TestAgentIsKilledAgainAndAgain: a job in which the agent dies each time is reported failed in the end, and not begun
// any more.
func TestAgentIsKilledAgainAndAgain(t *testing.T) {
	h := agentHost(t)
	h.policy(h.midst())
	for range 3 {
		a := h.agent()
		a.until("in the midst")
		a.signal(syscall.SIGKILL)
		_ = a.wait()
	}
	a := h.agent()
	a.until("the agent ended 3 times while this job ran")
	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Error(err)
	}
	if s := h.agentStatus(); len(s.Waiting) != 0 || s.Sources["tree"].Result != "failed" {
		t.Errorf("%+v", s)
	}
	// What the hook before may have stopped is started again.
	if text, err := os.ReadFile(h.path("hooks.log")); err != nil || string(text) != "after\n" {
		t.Errorf("the hook after: %q, %v", text, err)
	}
	h.snapshots(0)
}

// TestAgentIsStopped ends the agent in the midst of a job: after its grace the job is cut off, the hook after it runs,
// and the next agent takes it up.
func TestAgentIsStopped(t *testing.T) {
	h := agentHost(t)
	h.policy(h.midst())
	a := h.agent("--grace", "100ms")
	a.until("in the midst")
	began := time.Now()
	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(a.log, "\n"))
	}
	if spent := time.Since(began); spent > 4*time.Minute { // the command goes on for as long as the test
		t.Errorf("the end took %s", spent)
	}
	if text, err := os.ReadFile(h.path("hooks.log")); err != nil || string(text) != "after\n" {
		t.Errorf("the hook after: %q, %v", text, err)
	}
	if s := h.agentStatus(); len(s.Waiting) != 1 || s.Waiting[0].Attempts != 0 {
		t.Errorf("%+v", s)
	}
	h.policy("")
	h.want(0, []string{"agent", "--once"}, "backup of tree: ok")
	h.snapshots(1)
}

// TestAgentReadsItsPolicyAgain on SIGHUP: a broken one is told, and the old one stays.
func TestAgentReadsItsPolicyAgain(t *testing.T) {
	h := agentHost(t)
	a := h.agent()
	a.until("job finished")
	write(t, h.path("policy.yaml"), "version: 1\nhosts: {test: {sources: {tree: {flies: {}}}}}\n")
	a.signal(syscall.SIGHUP)
	a.until("not in order")
	if last := a.log[len(a.log)-1]; !strings.Contains(last, "flies") || !strings.Contains(last, "line 2") {
		t.Errorf("%s", last)
	}
	h.policy("true")
	a.signal(syscall.SIGHUP)
	a.until("the policy has changed")
	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Error(err)
	}
}

// TestAgentWithoutAServer has a queue that nobody serves: the schedule of the policy goes on, and the agent ends in time.
func TestAgentWithoutAServer(t *testing.T) {
	h := agentHost(t)
	h.env = append(h.env, "AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1")
	code, out := h.try("agent", "--once", "--queue", "holdfast-test")
	if code != 1 || !strings.Contains(out, "backup of tree: ok") || !strings.Contains(out, "queue holdfast-test") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	h.snapshots(1)
	a := h.agent("--queue", "holdfast-test")
	a.until("no jobs from queue holdfast-test")
	a.signal(syscall.SIGTERM)
	if err := a.wait(); err != nil {
		t.Error(err)
	}
}

// TestAgentOfAQueue gives the agent jobs by a queue: a backup that runs once however often it comes, a restore that two
// people have signed with the command line, and what must not run.
func TestAgentOfAQueue(t *testing.T) {
	aws := queuetest.Start(t)
	const q = "holdfast-test"
	aws.Make(q)
	h := agentHost(t)
	h.env = append(h.env, aws.Environment()...)
	var approvers string
	for i, name := range []string{"one", "two"} {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize))
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		write(t, h.path(name), string(pem.EncodeToMemory(block)))
		public, err := ssh.NewPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		approvers += fmt.Sprintf("  - {name: %s, key: %s}\n", name, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))))
	}
	write(t, h.path("policy.yaml"), fmt.Sprintf("version: 1\napprovers:\n%shosts:\n  test:\n    restore: {targets: [%s]}\n    sources:\n      tree: {files: {roots: [%s]}}\n",
		approvers, h.path("out"), h.path("tree")))
	now := time.Now().UTC().Truncate(time.Second)
	send := func(job *events.Job) {
		t.Helper()
		body, err := events.EncodeJob(job)
		if err != nil {
			t.Fatal(err)
		}
		aws.Send(q, string(body))
	}
	backup := &events.Job{
		Version: 1, ID: events.JobID("x", "test/tree", now, "backup", "full"), Host: "test", Source: "tree", Kind: events.Backup,
		Type: "full", Due: now, NotAfter: now.Add(time.Hour),
	}
	foreign := *backup
	foreign.Host = "other"
	send(backup)
	send(&foreign)
	send(backup)
	aws.Send(q, `{"version":1,"command":"reboot"}`)
	h.run("agent", "--once", "--queue", q)
	h.snapshots(1)

	h.run("approve", "request", "test/tree@1", "--to", h.path("out/tree"), "--out", h.path("r.json"))
	h.run("approve", "sign", h.path("r.json"), "--as", "one", "--key", h.path("one"))
	order := func() (o events.RestoreOrder, r approval.Request) {
		text, err := os.ReadFile(h.path("r.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &o); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(o.Request, &r); err != nil {
			t.Fatal(err)
		}
		return o, r
	}
	single, r := order()
	restore := &events.Job{Version: 1, ID: r.ID, Host: "test", Kind: events.Restore, Due: r.Created, NotAfter: r.Expires, Restore: &single}
	send(restore)
	h.run("agent", "--once", "--queue", q)
	if _, err := os.Stat(h.path("out")); err == nil {
		t.Fatal("restored with one signature")
	}
	h.run("approve", "sign", h.path("r.json"), "--as", "two", "--key", h.path("two"))
	both, _ := order()
	restore.Restore = &both
	send(restore)
	send(restore)
	h.run("agent", "--once", "--queue", q)
	if text, err := os.ReadFile(h.path("out/tree/7")); err != nil || string(text) != strings.Repeat("7", 1000) {
		t.Errorf("%.20q, %v", text, err)
	}
	if n := aws.Left(q); n != 0 {
		t.Errorf("%d messages left", n)
	}
	told := map[string]int{}
	for _, e := range aws.Events() {
		told[e.Type]++
		if r, err := events.DecodeJobRefused([]byte(e.Detail)); err == nil {
			told[string(r.Code)]++
		}
		if f, err := events.DecodeJobFinished([]byte(e.Detail)); err == nil {
			told[string(f.Kind)+" "+string(f.Result)]++
		}
	}
	for what, want := range map[string]int{"foreign": 1, "duplicate": 2, "malformed": 1, "forged": 1, events.TypeHeartbeat: 3} {
		if told[what] != want {
			t.Errorf("%s: told %d times, want %d", what, told[what], want)
		}
	}
	if told["backup ok"] == 0 || told["restore ok"] == 0 {
		t.Errorf("%v", told)
	}
}

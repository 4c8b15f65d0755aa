package cli

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// workBench is a host whose agent's work is done without an agent.
type workBench struct {
	t      *testing.T
	dir    string
	log    bytes.Buffer
	work   *agentWork
	policy *policy.Policy
	env    map[string]string
}

func newWorkBench(t *testing.T) *workBench {
	t.Helper()
	b := &workBench{t: t, dir: t.TempDir()}
	b.env = map[string]string{
		"HOME": b.dir, "HOLDFAST_HOST": "h", "HOLDFAST_STATE": b.dir + "/state", "HOLDFAST_POLICY": b.dir + "/policy.yaml", "XDG_CONFIG_HOME": b.dir,
	}
	b.write("tree/a", "one")
	b.write("tree/b", "two")
	b.write("policy.yaml", fmt.Sprintf(`version: 1
repository: {primary: %[1]s/repo}
hosts:
  h:
    restore: {targets: [%[1]s/out]}
    sources:
      tree:
        files: {roots: [%[1]s/tree, %[1]s/more]}
        schedule: {full: "0 0 1 * *", incremental: "0 * * * *"}
        hooks:
          before: [{command: "echo from a hook; test ! -e %[1]s/refuse"}]
          after: [{command: "echo after >> %[1]s/hooks.log"}]
      db:
        postgres: {service: none, mode: logical}
`, b.dir))
	b.write("more/c", "three")
	a := &app{
		version: "test", now: time.Now, stdio: Stdio{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &b.log},
		env: func(name string) (string, bool) { v, ok := b.env[name]; return v, ok },
	}
	p, err := readPolicy(b.dir + "/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b.policy = p
	init := *a
	init.flags.quiet = true
	cmd := init.initCommand()
	cmd.SetArgs([]string{}) // nil: those of the test
	cmd.GroupID = ""
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.work = newAgentWork(a, "h", "", slog.New(slog.NewTextHandler(&b.log, nil)))
	return b
}

func (b *workBench) write(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *workBench) request(target string, paths ...string) *approval.Request {
	return &approval.Request{Version: 1, ID: approval.NewID(), Host: "h", Source: "h/tree", Snapshot: 1, Target: target, Paths: paths}
}

func TestAgentWork(t *testing.T) {
	b := newWorkBench(t)
	ctx := t.Context()
	h, err := b.work.History(ctx, b.policy, "tree")
	if err != nil || h.Sequence != 0 || !h.Settled.Full.IsZero() {
		t.Errorf("before the first backup: %+v, %v", h, err)
	}
	out, err := b.work.Backup(ctx, b.policy, "tree", snapshot.Incremental)
	if err != nil || out.Result != events.OK || out.Type != "full" || out.Snapshot != 1 || out.Added == 0 || out.Counts.Files != 3 {
		t.Errorf("%+v, %v", out, err)
	}
	if text := b.log.String(); !strings.Contains(text, "from a hook") {
		t.Errorf("what a hook says is not in the log:\n%s", text)
	}
	// What the file says by now does not matter: the agent has its policy.
	b.write("policy.yaml", "broken")
	// A root that is gone: the snapshot is partial.
	if err := os.RemoveAll(b.dir + "/more"); err != nil {
		t.Fatal(err)
	}
	out, err = b.work.Backup(ctx, b.policy, "tree", snapshot.Incremental)
	if err != nil || out.Result != events.Partial || out.Snapshot != 2 || !strings.Contains(out.Problem, "more") {
		t.Errorf("%+v, %v", out, err)
	}
	h, err = b.work.History(ctx, b.policy, "tree")
	if err != nil || h.Sequence != 2 || h.Settled.Full.IsZero() || !h.Settled.Incremental.After(h.Settled.Full) {
		t.Errorf("%+v, %v", h, err)
	}
	// By the store's clock too, which here is the same.
	if d := h.Stored.Incremental.Sub(h.Settled.Incremental).Abs(); h.Stored.Full.IsZero() || d > time.Minute {
		t.Errorf("the store's clock is %v off: %+v", d, h)
	}
	if again, err := b.work.History(ctx, b.policy, "tree"); err != nil || again != h {
		t.Errorf("a second look: %+v, %v", again, err)
	}
	if _, err := b.work.Backup(ctx, b.policy, "db", snapshot.Full); err == nil {
		t.Error("a database that is not there is backed up")
	}
	b.write("refuse", "")
	if _, err := b.work.Backup(ctx, b.policy, "tree", snapshot.Full); err == nil || !strings.Contains(err.Error(), "hook") {
		t.Errorf("a hook that fails: %v", err)
	}
	for _, level := range []string{"structure", "bytes", "content"} {
		if out, err := b.work.Verify(ctx, b.policy, "tree", level); err != nil || out.Result != events.OK {
			t.Errorf("%s: %+v, %v", level, out, err)
		}
	}
	if err := b.work.after(ctx, b.policy, "tree"); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(b.dir + "/hooks.log"); err != nil || strings.Count(string(text), "after") != 4 {
		t.Errorf("%q, %v", text, err)
	}
}

func TestAgentRestores(t *testing.T) {
	b := newWorkBench(t)
	ctx := t.Context()
	if _, err := b.work.Backup(ctx, b.policy, "tree", snapshot.Full); err != nil {
		t.Fatal(err)
	}
	out, err := b.work.Restore(ctx, b.policy, b.request(b.dir+"/out/all"))
	if err != nil || out.Result != events.OK || out.Snapshot != 1 || out.Counts.Files != 3 || out.Added == 0 {
		t.Errorf("%+v, %v", out, err)
	}
	if text, err := os.ReadFile(filepath.Join(b.dir, "out/all", b.dir, "tree/a")); err != nil || string(text) != "one" {
		t.Errorf("%q, %v", text, err)
	}
	out, err = b.work.Restore(ctx, b.policy, b.request(b.dir+"/out/part", b.dir+"/tree/b"))
	if err != nil || out.Counts.Files != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	// A link leads out of the root.
	if err := os.Symlink(b.dir+"/tree", b.dir+"/out/link"); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{b.dir + "/out/link", b.dir + "/out/link/deep", b.dir + "/elsewhere", b.dir + "/out"} {
		if _, err := b.work.Restore(ctx, b.policy, b.request(target)); err == nil {
			t.Errorf("restored to %s", target)
		}
	}
	missing := b.request(b.dir + "/out/none")
	missing.Snapshot = 7
	if _, err := b.work.Restore(ctx, b.policy, missing); err == nil {
		t.Error("a snapshot that is not there is restored")
	}
	// In place.
	b.write("tree/a", "changed")
	r := b.request("")
	r.InPlace = true
	if out, err := b.work.Restore(ctx, b.policy, r); err != nil || out.Result != events.OK {
		t.Errorf("%+v, %v", out, err)
	}
	if text, err := os.ReadFile(b.dir + "/tree/a"); err != nil || string(text) != "one" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestAgentWorkIsInterrupted(t *testing.T) {
	b := newWorkBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.work.Backup(ctx, b.policy, "tree", snapshot.Full); err == nil {
		t.Error("a backup that was stopped before it began is one")
	}
}

// TestHistoryPassesOver looks at what does not count: snapshots of a clock that is ahead.
func TestHistoryPassesOver(t *testing.T) {
	b := newWorkBench(t)
	ahead := b.work.app
	ahead.now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	if _, err := b.work.Backup(t.Context(), b.policy, "tree", snapshot.Full); err != nil {
		t.Fatal(err)
	}
	ahead.now = time.Now
	h, err := b.work.History(t.Context(), b.policy, "tree")
	if err != nil || !h.Settled.Full.IsZero() || h.Sequence != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := b.work.Backup(t.Context(), b.policy, "tree", snapshot.Full); err != nil {
		t.Fatal(err)
	}
	if h, err = b.work.History(t.Context(), b.policy, "tree"); err != nil || h.Settled.Full.IsZero() || h.Sequence != 2 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestReadAs(t *testing.T) {
	for address, want := range map[string]string{
		"s3://b/p?region=eu-west-1": "s3://b/p?profile=restorer&region=eu-west-1",
		"s3://b?profile=x":          "s3://b?profile=restorer",
		"/srv/repo":                 "/srv/repo",
	} {
		a := &app{env: func(string) (string, bool) { return "", false }}
		a.flags.repository = address
		if err := a.readAs("restorer"); err != nil || a.flags.repository != want {
			t.Errorf("%s: %s, %v", address, a.flags.repository, err)
		}
	}
}

func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	l := &logLines{log: slog.New(slog.NewTextHandler(&out, nil))}
	fmt.Fprint(l, "half of ")
	fmt.Fprint(l, "a line\n\n{\"warning\":\"careful\"}\nrest")
	fmt.Fprint(l, strings.Repeat("x", 100<<10))
	text := out.String()
	for _, want := range []string{`msg="half of a line"`, "level=WARN msg=careful", "msg=restxxx"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %.300s", want, text)
		}
	}
}

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestAgentVerifies verifies at both levels that need a key; receipts tell of it.
func TestAgentVerifies(t *testing.T) {
	b := newWorkBench(t)
	ctx := t.Context()
	if _, err := b.work.Verify(ctx, b.policy, "tree", schedule.Content); err == nil {
		t.Error("a source without a snapshot is verified")
	}
	if _, err := b.work.Backup(ctx, b.policy, "tree", snapshot.Full); err != nil {
		t.Fatal(err)
	}
	if shown, err := b.work.Proofs(ctx, b.policy, "tree"); err != nil || shown != (schedule.Proofs{}) {
		t.Errorf("%+v, %v", shown, err)
	}
	began := time.Now().Add(-2 * time.Second)
	// What a killed agent left of a restore does no harm.
	b.write("state/proof/tree/left/over", "x")
	for _, level := range []string{schedule.Content, schedule.Restore} {
		if out, err := b.work.Verify(ctx, b.policy, "tree", level); err != nil || out.Result != events.OK {
			t.Errorf("%s: %+v, %v", level, out, err)
		}
	}
	shown, err := b.work.Proofs(ctx, b.policy, "tree")
	if err != nil || !shown.Since(schedule.Content, began) || !shown.Since(schedule.Restore, began) || shown.Content.Failed || shown.Restore.Failed {
		t.Errorf("%+v, %v", shown, err)
	}
	if _, err := os.Stat(b.dir + "/state/proof/tree"); !os.IsNotExist(err) {
		t.Errorf("the restore is still there: %v", err)
	}
	// A pack is damaged: both say so, to people and in receipts.
	packs, err := filepath.Glob(b.dir + "/repo/v1/h/tree/packs/*/*")
	if err != nil || len(packs) == 0 {
		t.Fatalf("%v, %v", packs, err)
	}
	for _, pack := range packs {
		if err := os.Chmod(pack, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(pack, []byte("rot"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.work.app.now = func() time.Time { return time.Now().Add(time.Minute) } // receipts have whole seconds in their names
	if _, err := b.work.Verify(ctx, b.policy, "tree", schedule.Content); err == nil || !strings.Contains(err.Error(), "size differs") {
		t.Errorf("%v", err)
	}
	if _, err := b.work.Verify(ctx, b.policy, "tree", schedule.Restore); err == nil {
		t.Error("a damaged snapshot is restored")
	}
	if shown, err := b.work.Proofs(ctx, b.policy, "tree"); err != nil || !shown.Content.Failed {
		t.Errorf("%+v, %v", shown, err)
	}
}

// TestAgentGoesOnWithAVerification: one that was cut off left word of what it has opened. The next one opens the rest, and at
// its end nothing of that is left.
func TestAgentGoesOnWithAVerification(t *testing.T) {
	b := newWorkBench(t)
	if _, err := b.work.Backup(t.Context(), b.policy, "tree", snapshot.Full); err != nil {
		t.Fatal(err)
	}
	a := b.work.with(b.policy)
	repo, err := a.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	src := snapshot.Source{Host: "h", Name: "tree"}
	path := filepath.Join(a.followDir(repo.ID(), src), resumeFile)
	began := time.Now()
	left, err := verify.OpenResume(path, began, longestResume)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Content, Sources: []snapshot.Source{src}, Resume: left}); err != nil {
		t.Fatal(err)
	}
	if err := left.Close(false); err != nil {
		t.Fatal(err)
	}
	if out, err := b.work.Verify(t.Context(), b.policy, "tree", schedule.Content); err != nil || out.Result != events.OK {
		t.Errorf("%+v, %v", out, err)
	}
	if text := b.log.String(); !strings.Contains(text, "goes on with a verification that gave way") {
		t.Errorf("it is not told that it goes on:\n%s", text)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("what it noted is still there: %v", err)
	}
	if shown, err := b.work.Proofs(t.Context(), b.policy, "tree"); err != nil || shown.Content.At.IsZero() || shown.Content.Failed {
		t.Errorf("%+v, %v", shown, err)
	}
}

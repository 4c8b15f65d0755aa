package hook_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/hook"
	"github.com/btcdecoded/holdfast/shared/policy"
)

func hooks(timeout time.Duration, scripts ...string) []policy.Hook {
	var out []policy.Hook
	for _, s := range scripts {
		out = append(out, policy.Hook{Command: []string{"/bin/sh", "-c", s}, Timeout: policy.Duration(timeout)})
	}
	return out
}

func TestRunInOrderWithEnvironment(t *testing.T) {
	var out bytes.Buffer
	err := hook.Run(t.Context(), hooks(time.Minute, "echo one $HOLDFAST_SOURCE", "echo two >&2"), []string{"HOLDFAST_SOURCE=etc"}, &out)
	if err != nil || out.String() != "one etc\ntwo\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestRunStopsAtFailure(t *testing.T) {
	var out bytes.Buffer
	err := hook.Run(t.Context(), hooks(time.Minute, "exit 3", "echo never"), nil, &out)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || strings.Contains(err.Error(), "exit 3") || out.Len() > 0 {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := hook.Run(t.Context(), []policy.Hook{{Timeout: policy.Duration(time.Second)}}, nil, &out); err == nil {
		t.Error("a hook without a command ran")
	}
}

// TestLimitEndsTheWholeGroup checks that a child of the command does not outlive the limit: it would touch the file
// after the hook was given up.
func TestLimitEndsTheWholeGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alive")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err = hook.Run(t.Context(), hooks(100*time.Millisecond, "sleep 60 & wait"), nil, writer)
	if err == nil || !strings.Contains(err.Error(), "took longer than 100ms") {
		t.Error(err)
	}
	if spent := time.Since(start); spent > 30*time.Second {
		t.Errorf("waited %s", spent)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	// The child held the writing end as well; the end of the file means that it is gone.
	if n, err := pipe.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if err := hook.Run(ctx, hooks(time.Minute, "echo never"), nil, &out); err == nil || out.Len() > 0 {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestUntil asks again until the answer is good, or the time is over.
func TestUntil(t *testing.T) {
	file := filepath.Join(t.TempDir(), "well")
	var out bytes.Buffer
	later := "test -e " + file + " || { touch " + file + "; exit 1; }"
	if err := hook.Until(t.Context(), hooks(time.Minute, later, "echo done"), nil, &out); err != nil || out.String() != "done\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	// What it answered last is told, if it could answer at all within the time: a machine that is busy enough needs longer.
	var err error
	for limit := 200 * time.Millisecond; limit < 2*time.Minute; limit *= 2 {
		err = hook.Until(t.Context(), hooks(limit, "exit 3"), nil, &out)
		if err == nil || strings.Contains(err.Error(), "did not succeed within "+policy.Duration(limit).String()+": exit status 3") {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), ": exit status 3") {
		t.Error(err)
	}
	err = hook.Until(t.Context(), hooks(200*time.Millisecond, "sleep 60"), nil, &out)
	if err == nil || !strings.Contains(err.Error(), "did not succeed within 200ms") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hook.Until(ctx, hooks(time.Minute, "exit 3"), nil, &out); err == nil {
		t.Error("it went on after its end")
	}
}

package invoke_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke"
)

// signerLine returns the line of an identity file that has the signer.
func signerLine(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(bytes.NewReader(data))
	for s.Scan() {
		if strings.HasPrefix(s.Text(), "HOLDFAST-SIGNER-") {
			return s.Text()
		}
	}
	t.Fatal("the identity has no signer")
	return ""
}

func TestMargin(t *testing.T) {
	for remaining, want := range map[time.Duration]time.Duration{
		15 * time.Minute: time.Minute, 10 * time.Minute: time.Minute, time.Minute: 6 * time.Second, time.Second: 100 * time.Millisecond,
	} {
		if got := invoke.Margin(remaining); got != want {
			t.Errorf("%s: %s", remaining, got)
		}
	}
}

// TestWrap calls a wrapped handler outside of Lambda.
func TestWrap(t *testing.T) {
	var log bytes.Buffer
	end := time.Now().Add(time.Hour)
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	var inner time.Time
	h := invoke.Wrap(invoke.NewLog(&log, ""), func(ctx context.Context, payload json.RawMessage) (any, error) {
		inner, _ = ctx.Deadline()
		invoke.Log(ctx).Debug("not shown")
		return nil, errors.New(string(payload))
	})
	if _, err := h(ctx, json.RawMessage(`1`)); err == nil || err.Error() != "1" {
		t.Errorf("%v", err)
	}
	if d := end.Sub(inner); d < time.Minute-time.Second || d > time.Minute {
		t.Errorf("stops %s before the deadline", d)
	}
	if s := log.String(); !strings.Contains(s, `"error":"1"`) || strings.Contains(s, "not shown") {
		t.Errorf("log %s", s)
	}
}

func TestLog(t *testing.T) {
	var log bytes.Buffer
	ctx := invoke.WithJob(invoke.WithLog(context.Background(), invoke.NewLog(&log, "debug")), "x")
	invoke.Log(ctx).Debug("said")
	if s := log.String(); !strings.Contains(s, `"job":"x"`) || !strings.Contains(s, "said") {
		t.Errorf("log %s", s)
	}
	invoke.Log(context.Background()).Error("goes nowhere")
}

func TestIsMessages(t *testing.T) {
	for text, want := range map[string]bool{
		`{"Records":[{"eventSource":"aws:sqs"}]}`: true, `{"Records":[{"eventSource":"aws:s3"}]}`: false, `{"Records":[]}`: false,
		`{"time":"2026-03-06T12:00:00Z"}`: false, `[]`: false, ``: false,
	} {
		if got := invoke.IsMessages(json.RawMessage(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if _, err := invoke.Messages(context.Background(), json.RawMessage(`{"Records": 1}`), nil); err == nil {
		t.Error("a batch that can't be read passes")
	}
}

// TestMessagesEnd looks that what was not begun when the time is up comes again.
func TestMessagesEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := 0
	payload := `{"Records":[{"messageId":"a","body":"1"},{"messageId":"b","body":"2"},{"messageId":"c","body":"3"}]}`
	got, err := invoke.Messages(ctx, json.RawMessage(payload), func(context.Context, invoke.Message) error {
		done++
		cancel()
		return nil
	})
	text, _ := json.Marshal(got)
	if err != nil || done != 1 || string(text) != `{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"c"}]}` {
		t.Errorf("%d done, %s, %v", done, text, err)
	}
}

func TestConfig(t *testing.T) {
	env := map[string]string{"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_SQS": "http://sqs"}
	get := func(name string) string { return env[name] }
	cfg, err := invoke.Config(get)
	if err != nil || cfg.Region != "eu-central-1" || *cfg.BaseEndpoint != "http://all" {
		t.Errorf("%+v, %v", cfg, err)
	}
	if _, err := cfg.Credentials.Retrieve(context.Background()); err == nil {
		t.Error("no credentials pass")
	}
	if a, b := invoke.Endpoint(get, "SQS"), invoke.Endpoint(get, "S3"); a != "http://sqs" || b != "http://all" {
		t.Errorf("endpoints %q, %q", a, b)
	}
	if _, err := invoke.Config(func(string) string { return "" }); err == nil {
		t.Error("no region passes")
	}
}

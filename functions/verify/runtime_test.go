package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/scene"
)

// gate stands before the S3 server.
type gate struct {
	stall atomic.Bool  // packs are not answered
	packs atomic.Int64 // requests for packs
}

func (g *gate) start(t *testing.T, endpoint string) string {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is signed
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/packs/") {
			g.packs.Add(1)
			if g.stall.Load() {
				<-r.Context().Done()
				return
			}
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func tourOf(t *testing.T, r invoketest.Result) toured {
	t.Helper()
	var out toured
	if err := json.Unmarshal([]byte(answer(t, r)), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDeadline runs the real binary on a store that does not give packs: it ends before its deadline, says so, leaves its
// cursor to the next, which goes on; and it holds no more than a few packs in memory, however much it reads.
func TestDeadline(t *testing.T) {
	s := scene.Start(t, bucket.Options{}, "{daily: 7}")
	s.Signer(t, "verify", "receipts/cloud", "damaged")
	s.Now = time.Now().Add(-time.Hour)
	for n := range uint64(4) {
		s.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/" + strconv.FormatUint(n, 10): repotest.Noise(n, 24<<20)})
	}
	s.Push(t)
	g := &gate{}
	at := g.start(t, s.Server.Endpoint)
	env := map[string]string{"AWS_ENDPOINT_URL_S3": at, "HOLDFAST_REPOSITORY": bucket.S3URL(at, s.Bucket, "")}
	f := s.Function(t, ".", "verify", env)
	tick := map[string]any{"version": 1, "time": time.Now()}
	g.stall.Store(true)
	invoketest.WithDeadlines(t, 6*time.Second, func(t *testing.T, deadline time.Duration) string {
		if _, tag, err := s.State.Get(t.Context(), control.VerifyCursorKey); err == nil { // of a try that did not get so far
			if err := s.State.Delete(t.Context(), control.VerifyCursorKey, tag); err != nil {
				t.Fatal(err)
			}
		}
		f.Deadline = deadline
		got := f.Invoke(tick)
		if got.Err != nil {
			t.Fatal(got.Err)
		}
		if got.Failure != nil || got.Duration > f.Deadline {
			return fmt.Sprintf("%+v after %s", got.Failure, got.Duration)
		}
		if out := tourOf(t, got); out.Laps != 0 || len(s.Keys(t, "/receipts/")) > 0 {
			t.Errorf("%+v", out)
		}
		c, _, err := statestore.Read[control.VerifyCursor](t.Context(), s.State, control.VerifyCursorKey)
		if err != nil || c.Busy.Owner != "" {
			return fmt.Sprintf("%+v, %v: the lease is kept", c, err)
		}
		return ""
	})
	g.stall.Store(false)
	f.Deadline = 2 * time.Minute
	packs := len(s.Keys(t, "/packs/"))
	if out := tourOf(t, f.Invoke(tick)); out.Laps != 1 || out.Packs != packs || out.Bytes < 90<<20 {
		t.Errorf("%+v of %d packs", out, packs)
	}
	memory, err := f.Memory()
	if err != nil || memory > 80<<20 {
		t.Errorf("%d bytes of memory, %v", memory, err)
	}
	t.Logf("%d packs, memory %d MiB", packs, memory>>20)
	// An arrival whose packs are not answered needs none of them.
	g.stall.Store(true)
	before := g.packs.Load()
	message := map[string]any{"messageId": "1", "eventSource": "aws:sqs", "body": event(layout.ManifestKey(s.ID(4)))}
	if got := answer(t, f.Invoke(map[string]any{"Records": []any{message}})); got != `{"batchItemFailures":[]}` || g.packs.Load() != before {
		t.Errorf("%s, %d packs asked for", got, g.packs.Load()-before)
	}
	if strings.Contains(f.Output(), `"panic"`) {
		t.Error(f.Output())
	}
}

// TestRangesOfTheBinary: the real binary asks its queue for ranges, and reads them.
func TestRangesOfTheBinary(t *testing.T) {
	s := scene.Start(t, bucket.Options{}, "{daily: 7}")
	s.Signer(t, "verify", "receipts/cloud", "damaged")
	s.Now = time.Now().Add(-time.Hour)
	for n := range uint64(6) {
		s.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/a": repotest.Noise(n, 200<<10)})
	}
	s.Push(t)
	url := s.Queue("verify")
	f := s.Function(t, ".", "verify", map[string]string{
		"HOLDFAST_VERIFY_QUEUE": url, "HOLDFAST_VERIFY_RANGE_BYTES": "300000", "HOLDFAST_VERIFY_RUN_BYTES": "1", "HOLDFAST_VERIFY_WORKERS": "1",
	})
	tick := map[string]any{"version": 1, "time": time.Now()}
	tourOf(t, f.Invoke(tick))
	tourOf(t, f.Invoke(tick))
	bodies := s.Sent("verify")
	if len(bodies) < 2 {
		t.Fatalf("%d ranges", len(bodies))
	}
	var records []any
	for i, body := range append(bodies, "{") {
		records = append(records, map[string]any{"messageId": strconv.Itoa(i), "eventSource": "aws:sqs", "body": body})
	}
	if got := answer(t, f.Invoke(map[string]any{"Records": records})); got != `{"batchItemFailures":[{"itemIdentifier":"`+strconv.Itoa(len(bodies))+`"}]}` {
		t.Error(got)
	}
	if out := tourOf(t, f.Invoke(tick)); out.Laps != 1 || len(s.Keys(t, "-bytes-")) != 6 {
		t.Errorf("%+v, %d receipts", out, len(s.Keys(t, "-bytes-")))
	}
}

// TestInit: what the code adds to a cold start.
func TestInit(t *testing.T) {
	program := invoketest.Build(t, ".")
	invoketest.Ready(t, program, map[string]string{
		"HOLDFAST_STATE_BUCKET": "state", "HOLDFAST_TRUST_PARAMETER": "/holdfast/trust", "AWS_REGION": "eu-central-1",
		"HOLDFAST_VERIFY_QUEUE": "https://sqs.eu-central-1.amazonaws.com/123456789012/holdfastcontrol-verify",
	}, 20)
	bare := invoketest.Start(t, program, nil)
	if _, err := bare.Init(); err == nil || !bare.Said("HOLDFAST_STATE_BUCKET") {
		t.Errorf("started without its environment: %v", err)
	}
}

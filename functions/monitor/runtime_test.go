package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/emf"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/s3state"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// cloudServices are SNS, EventBridge and the service that is pinged, as far as monitor uses them.
type cloudServices struct {
	mu        sync.Mutex
	published []string // messages; guarded by mu
	events    int      // guarded by mu
	pings     int      // guarded by mu
}

func (c *cloudServices) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".PutEvents") {
		var in struct{ Entries []json.RawMessage }
		_ = json.Unmarshal(body, &in)
		c.events += len(in.Entries)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_, _ = fmt.Fprint(w, `{"FailedEntryCount":0,"Entries":[]}`)
		return
	}
	if r.URL.Path == "/ping" {
		c.pings++
		return
	}
	form, _ := url.ParseQuery(string(body))
	w.Header().Set("Content-Type", "text/xml")
	switch form.Get("Action") {
	case "Publish":
		c.published = append(c.published, form.Get("Subject")+"\n"+form.Get("Message"))
		_, _ = fmt.Fprint(w, `<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>`)
	case "ListSubscriptionsByTopic":
		_, _ = fmt.Fprint(w, `<ListSubscriptionsByTopicResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><ListSubscriptionsByTopicResult><Subscriptions>`+
			`<member><SubscriptionArn>arn:aws:sns:us-east-1:1:t:1</SubscriptionArn><Protocol>email</Protocol></member>`+
			`</Subscriptions></ListSubscriptionsByTopicResult></ListSubscriptionsByTopicResponse>`)
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

func (c *cloudServices) messages() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.published)
}

func (c *cloudServices) counts() (events, pings int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events, c.pings
}

// binary is the real function under the Runtime API, with a real S3 server.
type binary struct {
	env      map[string]string
	services *cloudServices
	state    *s3state.Store
	stall    *atomic.Bool  // listings of the host's objects get no answer
	requests *atomic.Int64 // to the repository
}

func startBinary(t *testing.T) *binary {
	t.Helper()
	server := bucket.StartS3(t)
	server.Make(t, "state", bucket.Options{})
	server.Make(t, "backup", bucket.Options{})
	services := &cloudServices{}
	web := httptest.NewServer(services)
	t.Cleanup(web.Close)
	parameters := invoketest.StartAWS(t)
	options := server.Client.Options()
	b := &binary{services: services, stall: &atomic.Bool{}, requests: &atomic.Int64{}, state: s3state.New(
		aws.Config{Region: options.Region, Credentials: options.Credentials}, s3state.Options{Bucket: "state", Endpoint: server.Endpoint},
	)}
	var err error
	b.env, err = environment.Map(environment.Monitor{
		Cloud: environment.Cloud{State: "state", Trust: "/holdfast/trust"}, Topic: "arn:aws:sns:us-east-1:1:t", Bus: "holdfast", Ping: "/holdfast/ping", DigestHour: 12,
	})
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(b.env, map[string]string{"AWS_ENDPOINT_URL_S3": b.proxy(t, server.Endpoint), "AWS_ENDPOINT_URL_SNS": web.URL, "AWS_ENDPOINT_URL_EVENTBRIDGE": web.URL})
	maps.Copy(b.env, parameters.Env())
	for _, e := range server.Env() {
		name, value, _ := strings.Cut(e, "=")
		b.env[name] = value
	}
	store, err := open.Open(t.Context(), server.URL("backup", ""), open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	identity, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repository.Init(t.Context(), store, identity, identity.Recipients(), time.Now()); err != nil {
		t.Fatal(err)
	}
	signer, _ := identity.Signer()
	parameters.Parameter("/holdfast/trust", "trust "+signer.Public().String()+" *\n")
	parameters.Parameter("/holdfast/ping", web.URL+"/ping")
	address := bucket.S3URL(b.env["AWS_ENDPOINT_URL_S3"], "backup", "")
	policy := fmt.Sprintf("version: 1\nrepository: {primary: %q}\nhosts: {web-1: {sources: {etc: {files: {roots: [/etc]}, objectives: {tier: critical, rpo: 1h}}}}}\n", address)
	if _, err := b.state.Put(t.Context(), control.PolicyKey, []byte(policy), ""); err != nil {
		t.Fatal(err)
	}
	// The function's clock is the real one. Today's digest is sent already, whatever the hour.
	if err := statestore.Update(t.Context(), b.state, control.AlertsKey, func(book *alert.Book) error {
		book.Digest = time.Now().Add(12 * time.Hour)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

// proxy stands before the S3 server.
func (b *binary) proxy(t *testing.T, endpoint string) string {
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
		if b.stall.Load() && strings.HasPrefix(r.URL.Path, "/backup") && strings.HasPrefix(r.URL.Query().Get("prefix"), "v1/web-1/") {
			<-r.Context().Done()
			return
		}
		if strings.HasPrefix(r.URL.Path, "/backup") {
			b.requests.Add(1)
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// due makes the source due for a look.
func (b *binary) due(t *testing.T) {
	t.Helper()
	err := statestore.Update(t.Context(), b.state, observe.ShardKey(observe.ShardOf("web-1")), func(s *observe.Shard) error {
		s.Sources["web-1/etc"].Looked = time.Now().Add(-30 * time.Minute)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDeadline: a store that does not answer ends the looks, not the pass. What is known is told, and what was not reached
// is said.
func TestDeadline(t *testing.T) {
	program := invoketest.Build(t, ".")
	invoketest.WithDeadlines(t, 5*time.Second, func(t *testing.T, deadline time.Duration) string { return endsInTime(t, program, deadline) })
}

func endsInTime(t *testing.T, program string, deadline time.Duration) string {
	b := startBinary(t)
	r := invoketest.Start(t, program, b.env)
	b.stall.Store(true)
	r.Deadline = deadline
	got := r.Invoke([]byte(`{}`))
	if got.Err != nil {
		t.Error(got.Err)
	}
	late := `"sources":1,"breached":0,"looks":0,"audits":0,"late":1`
	if got.Failure != nil || !strings.Contains(string(got.Body), late) {
		return fmt.Sprintf("%+v %s", got, got.Body)
	}
	if !r.Said(`"MonitorPass":1`) {
		t.Error("no metrics")
	}
	b.stall.Store(false)
	r.Deadline = time.Minute
	got = r.Invoke([]byte(`{}`))
	if got.Err != nil || got.Failure != nil || !strings.Contains(string(got.Body), `"looks":1`) {
		t.Errorf("%+v %s", got, got.Body)
	}
	// What a look costs on the wire is what the function says: a listing; beside it the repository's own document, which
	// tells a copy from an original.
	b.due(t)
	before := b.requests.Load()
	got = r.Invoke([]byte(`{}`))
	if n := b.requests.Load() - before; n != 2 || !strings.Contains(string(got.Body), `"looks":1,"audits":0,"late":0,"requests":1`) {
		t.Errorf("%d requests: %+v %s", n, got, got.Body)
	}
	// Now only the look is late.
	b.stall.Store(true)
	r.Deadline = deadline
	b.due(t)
	got = r.Invoke([]byte(`{}`))
	if got.Err != nil {
		t.Error(got.Err)
	}
	if got.Failure != nil || !strings.Contains(string(got.Body), `"looks":0,"audits":0,"late":1`) {
		return fmt.Sprintf("%+v %s", got, got.Body)
	}
	return ""
}

// TestWatchdogBinary runs the binary in the other region's mode.
func TestWatchdogBinary(t *testing.T) {
	b := startBinary(t)
	env, err := environment.Map(environment.Watchdog{
		Cloud: environment.Cloud{State: "state", Repository: bucket.S3URL(b.env["AWS_ENDPOINT_URL_S3"], "backup", ""), Trust: "/holdfast/trust"},
		Mode:  environment.ModeWatchdog, Topic: "arn:aws:sns:us-east-1:1:t", Primary: "state", PrimaryRegion: "us-east-1", SilentAfter: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	all := maps.Clone(b.env)
	maps.Copy(all, env)
	err = statestore.Update(t.Context(), b.state, control.MonitorKey, func(m *control.Monitor) error {
		m.Time = time.Now().Add(-time.Hour)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := invoketest.Start(t, invoketest.Build(t, "."), all)
	if got := r.Invoke([]byte(`{}`)); got.Err != nil || got.Failure != nil || !strings.Contains(string(got.Body), `"sent_messages":1`) {
		t.Fatalf("%+v %s", got, got.Body)
	}
	if m := b.services.messages(); len(m) != 1 || !strings.Contains(m[0], "primary_silent") {
		t.Errorf("%q", m)
	}
	if !r.Said(`"WatchdogPass":1`) {
		t.Error("no metrics")
	}
}

// TestBinary runs the real binary: its cold start, a pass with its messages and metrics, the widget, an action, and what
// it says without its environment.
func TestBinary(t *testing.T) {
	b := startBinary(t)
	program := invoketest.Build(t, ".")
	r := invoketest.Start(t, program, b.env)
	took, err := r.Init()
	if err != nil {
		t.Fatal(err)
	}
	call := func(payload string) string {
		t.Helper()
		got := r.Invoke([]byte(payload))
		if got.Err != nil || got.Failure != nil {
			t.Fatalf("%s: %v %+v", payload, got.Err, got.Failure)
		}
		return string(got.Body)
	}
	body := call(`{"version":1,"time":"2026-03-01T12:00:00Z"}`)
	if !strings.Contains(body, `"sources":1,"breached":1,"looks":1`) || !strings.Contains(body, `"sent_messages":1`) {
		t.Errorf("pass: %s", body)
	}
	if m := b.services.messages(); len(m) != 1 || !strings.HasPrefix(m[0], "[holdfast] critical never: web-1/etc, not met") {
		t.Errorf("messages %q", m)
	}
	if !r.Said(`"MonitorPass":1`) {
		t.Error("no metrics")
	}
	// Line by line: the first may be here and the last on its way.
	seen, want := 0, environment.Series(0)
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		late := time.Now().After(end)
		seen = 0
		for line := range bytes.Lines([]byte(r.Output())) {
			values, err := emf.Parse(line)
			if err != nil {
				t.Error(err)
			}
			seen += len(values)
		}
		if seen >= want/2 || late {
			break
		}
	}
	if seen < want/2 || seen > want {
		t.Errorf("%d metrics of at most %d", seen, want)
	}
	if body := call(`{"widgetContext":{"theme":"dark"}}`); !strings.Contains(body, "web-1") || !strings.Contains(body, "never") {
		t.Errorf("widget: %s", body)
	}
	warm := time.Hour
	for range 5 {
		got := r.Invoke([]byte(`{"action":"status"}`))
		if got.Err != nil || got.Failure != nil {
			t.Fatalf("%v %+v", got.Err, got.Failure)
		}
		warm = min(warm, got.Duration)
	}
	call(`{"action":"alarm-test","by":"ops"}`)
	if m := b.services.messages(); len(m) != 2 || !strings.Contains(m[1], "Nothing is wrong") {
		t.Errorf("messages %q", m)
	}
	if events, pings := b.services.counts(); events != 1 || pings != 1 {
		t.Errorf("%d events, %d pings", events, pings)
	}
	if got := r.Invoke([]byte(`{"action":"nonsense"}`)); got.Failure == nil {
		t.Errorf("%+v", got)
	}
	memory, err := r.Memory()
	if err != nil || memory > 128<<20 {
		t.Errorf("%d bytes of memory, %v", memory, err)
	}
	t.Logf("ready after %s; warm %s, memory %d MiB", took, warm, memory>>20)
	invoketest.Ready(t, program, b.env, 20)
	bare := invoketest.Start(t, program, nil)
	if _, err := bare.Init(); err == nil || !bare.Said("HOLDFAST_ALERT_TOPIC") {
		t.Errorf("started without its environment: %v", err)
	}
}

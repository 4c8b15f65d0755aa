package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/emf"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
	"github.com/btcdecoded/holdfast/test/granted"
)

// service stands in for SNS and EventBridge.
type service struct {
	published  []string // subjects
	texts      []string
	details    []string // types of events
	subscribed []string // ARNs
	fail       error
	deaf       error // what the bus says
}

func (s *service) Publish(_ context.Context, in *sns.PublishInput, _ ...func(*sns.Options)) (*sns.PublishOutput, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	s.published, s.texts = append(s.published, aws.ToString(in.Subject)), append(s.texts, aws.ToString(in.Message))
	return &sns.PublishOutput{}, nil
}

func (s *service) ListSubscriptionsByTopic(context.Context, *sns.ListSubscriptionsByTopicInput, ...func(*sns.Options)) (*sns.ListSubscriptionsByTopicOutput, error) {
	out := &sns.ListSubscriptionsByTopicOutput{}
	for _, arn := range s.subscribed {
		out.Subscriptions = append(out.Subscriptions, snstypes.Subscription{SubscriptionArn: aws.String(arn), Protocol: aws.String("email")})
	}
	return out, nil
}

func (s *service) PutEvents(_ context.Context, in *eventbridge.PutEventsInput, _ ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error) {
	if s.deaf != nil {
		return nil, s.deaf
	}
	for _, e := range in.Entries {
		s.details = append(s.details, aws.ToString(e.DetailType))
		var err error
		if aws.ToString(e.DetailType) == events.TypeAlertOpened {
			_, err = events.DecodeAlertOpened([]byte(aws.ToString(e.Detail)))
		} else {
			_, err = events.DecodeAlertClosed([]byte(aws.ToString(e.Detail)))
		}
		if err != nil {
			return nil, err
		}
	}
	return &eventbridge.PutEventsOutput{}, nil
}

// taken returns what was published since it was last asked.
func (s *service) taken() []string {
	out := s.published
	s.published, s.texts = nil, nil
	return out
}

// lab is a monitor with all that is around it.
type lab struct {
	*repotest.Fixture
	*function
	account *invoketest.Account
	service *service
	state   *memstate.Store
	out     *bytes.Buffer
	pings   int
}

const policyText = `version: 1
repository: {primary: "s3://bucket?region=eu-central-1"}
hosts:
  governance-1:
    max_size: 10GiB
    sources:
      app:
        files: {roots: [/srv]}
        objectives: {tier: critical, rpo: 1h}
      logs:
        files: {roots: [/var/log]}
        objectives: {tier: low, rpo: 24h}
`

func newLab(t *testing.T) *lab {
	t.Helper()
	p, err := policy.Parse([]byte(policyText))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Fixture: repotest.New(t), service: &service{subscribed: []string{"arn:1"}}, state: memstate.New(), out: &bytes.Buffer{}}
	role := granted.Of(t, "monitor", false)
	l.account = &invoketest.Account{File: p, Repo: l.Open(t, role.Store(l.Store))}
	l.function = &function{
		env: environment.Monitor{Runbook: "https://example.org/runbook", DigestHour: 23}, cloud: l.account, state: role.State(l.state), out: l.out,
		people: newPeople("arn:topic", "holdfast", l.service, l.service), now: func() time.Time { return l.Now },
		ping: func(context.Context) error { l.pings++; return nil },
	}
	return l
}

func (l *lab) invoke(t *testing.T, payload string) (any, error) {
	t.Helper()
	l.out.Reset()
	return l.handle(t.Context(), json.RawMessage(payload))
}

// run makes a pass that must succeed, and returns the subjects of the messages that it sent.
func (l *lab) run(t *testing.T) []string {
	t.Helper()
	if _, err := l.invoke(t, `{"version":1,"time":"2026-03-01T12:00:00Z"}`); err != nil {
		t.Fatal(err)
	}
	return l.service.taken()
}

// heard lets the agent of a host be heard.
func (l *lab) heard(t *testing.T, host string, sources map[string]*control.SourceJobs) {
	t.Helper()
	err := statestore.Update(t.Context(), l.state, control.JobsKey(host), func(j *control.HostJobs) error {
		j.Version, j.Host, j.Seen, j.Sources = 1, host, l.Now, sources
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (l *lab) backup(t *testing.T, source string) {
	t.Helper()
	l.Source = snapshot.Source{Host: "governance-1", Name: source}
	l.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(uint64(l.Now.Unix()), 500)})
}

func has(t *testing.T, subjects []string, want ...string) {
	t.Helper()
	for _, w := range want {
		found := false
		for _, s := range subjects {
			found = found || strings.Contains(s, w)
		}
		if !found {
			t.Errorf("no message about %q in %q", w, subjects)
		}
	}
	if len(want) == 0 && len(subjects) > 0 {
		t.Errorf("messages %q", subjects)
	}
}

func TestLifeOfAnAlert(t *testing.T) {
	l := newLab(t)
	l.heard(t, "governance-1", nil)
	has(t, l.run(t), "critical never: governance-1/app, not met", "low never: governance-1/logs, not met")
	l.backup(t, "app")
	l.backup(t, "logs")
	// A snapshot made it good; it is over when it stayed away.
	l.Now = l.Now.Add(21 * time.Minute)
	l.heard(t, "governance-1", nil)
	has(t, l.run(t))
	l.Now = l.Now.Add(11 * time.Minute)
	has(t, l.run(t), "critical never: governance-1/app, over")
	// The source goes late, an hour after.
	l.Now = l.Now.Add(40 * time.Minute)
	l.heard(t, "governance-1", nil)
	has(t, l.run(t), "critical late: governance-1/app, not met")
	if l.pings != 4 {
		t.Errorf("%d pings", l.pings)
	}
	counted := map[string]int{}
	for _, d := range l.service.details {
		counted[d]++
	}
	if counted[events.TypeAlertOpened] != 3 || counted[events.TypeAlertClosed] == 0 {
		t.Errorf("events %v", counted)
	}
	// The agent falls silent; a message that can't be sent waits for the next pass.
	l.Now = l.Now.Add(2 * time.Hour)
	l.service.fail = errors.New("no answer")
	if _, err := l.invoke(t, `{}`); err == nil || l.pings != 4 {
		t.Errorf("a message got lost without a word: %v, %d pings", err, l.pings)
	}
	l.service.fail = nil
	l.Now = l.Now.Add(time.Minute)
	has(t, l.run(t), "critical host_silent: governance-1, not met", "critical no_receipt: governance-1/app")
	// Who is not in the policy any more is not told about.
	delete(l.account.File.Hosts["governance-1"].Sources, "app")
	l.Now = l.Now.Add(time.Minute)
	l.run(t)
	l.Now = l.Now.Add(11 * time.Minute)
	has(t, l.run(t), "late: governance-1/app, over")
}

// TestMetrics holds the function to the list that infrastructure builds alarms from: what is always there is there in the
// first pass, and nothing is emitted that is not on the list.
func TestMetrics(t *testing.T) {
	l := newLab(t)
	l.heard(t, "governance-1", nil)
	l.backup(t, "app")
	l.run(t)
	listed := map[string]environment.Metric{}
	for _, m := range environment.Metrics() {
		listed[m.Name] = m
	}
	values := l.metrics(t)
	got := map[string]bool{}
	for name := range values {
		metric, _, _ := strings.Cut(name, "{")
		got[metric] = true
		if _, ok := listed[metric]; !ok {
			t.Errorf("%s is not listed", metric)
		}
	}
	for name, m := range listed {
		if m.Function != environment.FunctionMonitor || !m.Always {
			continue
		}
		if !got[name] {
			t.Errorf("%s is not emitted", name)
		}
		if len(m.Dimensions) == 1 {
			for _, v := range environment.DimensionValues(m.Dimensions[0]) {
				if _, ok := values[fmt.Sprintf("%s{%s}", name, v)]; !ok {
					t.Errorf("%s is not emitted for %s", name, v)
				}
			}
		}
	}
	for name, want := range map[string]float64{
		"SourcesInBreach{low}": 1, "SourcesInBreach{critical}": 0, "NeverBackedUp{low}": 1, "Sources{critical}": 1, "SourcesOfKind{files}": 2,
		"MonitorPass{}": 1, "HostsSilent{}": 0, "AlertsOpen{}": 1, "InBreach{governance-1/app}": 0, "UnconfirmedSubscriptions{}": 0,
	} {
		if v, ok := values[name]; !ok || v != want {
			t.Errorf("%s = %v (%v), want %v", name, v, ok, want)
		}
	}
	if values["BytesTotal{files}"] <= 0 {
		t.Error("no bytes")
	}
	// Of ten thousand sources that ask for metrics of their own, fifty get them.
	for i := range 100 {
		l.account.File.Hosts["governance-1"].Sources[fmt.Sprintf("s%03d", i)] = &policy.Source{Files: &policy.Files{}, Metrics: true, Objectives: policy.Objectives{Tier: policy.Critical, RPO: policy.DefaultRPO, Copies: 1}}
	}
	l.Now = l.Now.Add(time.Minute)
	l.run(t)
	own := 0
	for name := range l.metrics(t) {
		if strings.HasPrefix(name, "InBreach{") {
			own++
		}
	}
	if own != environment.MostOwnMetrics {
		t.Errorf("%d sources have metrics of their own", own)
	}
}

// metrics reads what was written to standard output as CloudWatch does: name{dimension value} to value.
func (l *lab) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for line := range bytes.Lines(l.out.Bytes()) {
		values, err := emf.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			if v.Namespace != environment.Namespace {
				t.Errorf("namespace %s", v.Namespace)
			}
			value := ""
			for _, d := range v.Dimensions {
				value = d
			}
			out[v.Name+"{"+value+"}"] = v.Value
		}
	}
	return out
}

func TestSubscriptions(t *testing.T) {
	l := newLab(t)
	l.heard(t, "governance-1", nil)
	l.service.subscribed = nil
	has(t, l.run(t), "critical unconfirmed: control-plane, not met")
	if _, err := l.invoke(t, `{"action":"alarm-test","by":"ops"}`); err == nil || !strings.Contains(err.Error(), "nobody gets them") {
		t.Errorf("%v", err)
	}
	l.service.subscribed = []string{pendingARN, "arn:1"}
	l.Now = l.Now.Add(time.Minute)
	l.run(t)
	if v := l.metrics(t)["UnconfirmedSubscriptions{}"]; v != 1 {
		t.Errorf("%v unconfirmed", v)
	}
	l.service.subscribed = []string{"arn:2", "arn:1"}
	l.Now = l.Now.Add(time.Minute)
	l.run(t)
	l.Now = l.Now.Add(11 * time.Minute)
	has(t, l.run(t), "unconfirmed: control-plane, over")
	got, err := l.invoke(t, `{"action":"alarm-test","by":"ops"}`)
	if err != nil {
		t.Fatal(err)
	}
	has(t, l.service.taken(), "test of the alarms")
	if n := got.(map[string]any)["confirmed_subscriptions"]; n != 2 {
		t.Errorf("%v", got)
	}
}

func TestActions(t *testing.T) {
	l := newLab(t)
	l.heard(t, "governance-1", nil)
	if _, err := l.invoke(t, `{"action":"maintenance","source":"governance-1","by":"ops","for":"2h"}`); err != nil {
		t.Fatal(err)
	}
	has(t, l.run(t))
	l.Now = l.Now.Add(2 * time.Hour)
	l.heard(t, "governance-1", nil)
	has(t, l.run(t), "critical never", "low never")
	if _, err := l.invoke(t, `{"action":"acknowledge","source":"governance-1/*","code":"never","by":"ops","for":"2d"}`); err != nil {
		t.Fatal(err)
	}
	l.Now = l.Now.Add(30 * time.Hour)
	l.heard(t, "governance-1", nil)
	for _, s := range l.run(t) {
		if strings.Contains(s, "still") {
			t.Errorf("acknowledged, and repeated: %s", s)
		}
	}
	got, err := l.invoke(t, `{"action":"status"}`)
	if err != nil {
		t.Fatal(err)
	}
	if open := got.(map[string]any)["alerts"].([]alert.Open); len(open) != 2 || open[0].Tier != policy.Critical {
		t.Errorf("%+v", open)
	}
	if _, err := l.invoke(t, `{"action":"digest"}`); err != nil {
		t.Fatal(err)
	}
	has(t, l.service.taken(), "digest: 2 of 2 sources not met")
	if _, err := l.invoke(t, `{"action":"key-checked","by":"ops"}`); err != nil {
		t.Fatal(err)
	}
	m, _, err := statestore.Read[control.Monitor](t.Context(), l.state, control.MonitorKey)
	if err != nil || !m.KeyProven.Equal(l.Now) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{
		`{"action":"acknowledge","for":"2d"}`, `{"action":"maintenance","by":"ops","for":"30d"}`, `{"action":"key-checked"}`,
		`{"action":"key-checked","by":"x","at":"2090-01-01T00:00:00Z"}`, `{"action":"forget-everything"}`, `[`, `{"for":"soon"}`,
	} {
		if _, err := l.invoke(t, bad); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
	l.account.Err = errors.New("no policy")
	if _, err := l.invoke(t, ``); err == nil {
		t.Error("a pass without a policy")
	}
}

func TestWidget(t *testing.T) {
	l := newLab(t)
	if got, err := l.invoke(t, `{"describe":true}`); err != nil || !strings.Contains(got.(string), "## Hosts") {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := l.invoke(t, `{"widgetContext":{"theme":"light"}}`); err != nil || !strings.Contains(got.(string), "Nothing yet") {
		t.Errorf("%v, %v", got, err)
	}
	l.heard(t, "governance-1", map[string]*control.SourceJobs{"logs": {State: control.StateFailing, Since: l.Now, Error: `</td><script>alert("x")</script>`}})
	l.backup(t, "app")
	l.backup(t, "logs")
	l.run(t)
	got, err := l.invoke(t, `{"widgetContext":{"theme":"light"}}`)
	if err != nil {
		t.Fatal(err)
	}
	page := got.(string)
	for _, want := range []string{"governance-1", "failing", "&lt;script&gt;", "0s ago"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in %s", want, page)
		}
	}
	if strings.Contains(page, "<script") {
		t.Errorf("not escaped: %s", page)
	}
	l.Now = l.Now.Add(time.Hour)
	if got, _ := l.invoke(t, `{"widgetContext":{}}`); !strings.Contains(got.(string), "monitor was last at work") {
		t.Error("an old table looks like a new one")
	}
	r := &control.Rows{Time: l.Now}
	for i := range 300 {
		r.Hosts = append(r.Hosts, control.Row{Host: fmt.Sprint("h", i), Worst: "ok", Days: []int64{1, 5, 3}})
	}
	if page := table(r, l.Now); !strings.Contains(page, "and 100 more") || !strings.Contains(page, "<polyline") || len(page) > 200<<10 {
		t.Errorf("%d bytes", len(page))
	}
}

// TestOnePassAtATime: two passes at once would send what is in the outbox twice.
func TestOnePassAtATime(t *testing.T) {
	l := newLab(t)
	l.heard(t, "governance-1", nil)
	err := statestore.Update(t.Context(), l.state, control.MonitorKey, func(m *control.Monitor) error {
		m.Busy = control.Lease{Owner: "another", Until: l.Now.Add(time.Minute)}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.invoke(t, `{}`); err != nil || fmt.Sprint(got) != "map[skipped:another pass is at work]" || l.out.Len() != 0 {
		t.Errorf("%v, %v", got, err)
	}
	l.Now = l.Now.Add(time.Minute) // it crashed
	has(t, l.run(t), "critical never")
	has(t, l.run(t)) // the lease was given back
	l.service.fail = errors.New("no answer")
	l.Now = l.Now.Add(24 * time.Hour)
	if _, err := l.invoke(t, `{}`); err == nil {
		t.Error("no error")
	}
	l.service.fail = nil
	has(t, l.run(t), "critical never: governance-1/app, still not met") // after a failure too
}

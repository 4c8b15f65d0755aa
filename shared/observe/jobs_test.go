package observe_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestJobs(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	h := observe.Jobs("h", nil, nil, now)
	if !h.Known.Equal(now) || !h.Heard.IsZero() {
		t.Errorf("%+v", h)
	}
	later := now.Add(time.Hour)
	h = observe.Jobs("h", h, &control.HostJobs{
		Seen: now, Mend: "policy.yaml:3:1: no such key", Broken: now,
		Refused: []control.Refusal{
			{Code: events.Stale, Time: later}, {Code: events.Malformed, Time: now}, {Code: events.Forged, Reason: "no signature", Time: later},
		},
		Sources: map[string]*control.SourceJobs{
			"ok":      {State: control.StateOK, Last: &control.Ended{Result: events.OK, Finished: now}},
			"late":    {State: control.StateLate, Error: "no answer", Last: &control.Ended{Result: events.Failed, Error: "x", Finished: now}, Open: &control.Job{ID: "j", Kind: events.Backup, Sends: 4, Due: now, Asked: later}},
			"gone":    {State: control.StateLate, Open: &control.Job{ID: "g", Kind: events.Backup, Losses: 1, Sends: 2, Due: now, Asked: later}},
			"asked":   {State: control.StateLate, Open: &control.Job{ID: "a", Kind: events.Backup, Attempt: 1, Sends: 1, Due: now, Asked: later}},
			"retried": {State: control.StateLate, Open: &control.Job{ID: "r", Kind: events.Backup, Losses: 1, Sends: 4, Retry: later}},
			"taken":   {State: control.StateLate, Open: &control.Job{ID: "t", Kind: events.Backup, Sends: 5, Accepted: now}},
			"failing": {State: control.StateFailing, Error: "disk full", Since: later},
			"failed":  {State: control.StateOK, Last: &control.Ended{Result: events.Failed, Finished: now}},
			"new":     {State: control.StateOK},
			"none":    nil,
		},
	}, later)
	want := map[string]observe.JobsMemory{
		"ok":      {LastRun: &compliance.Run{Time: now}},
		"late":    {Lost: []compliance.LostJob{{ID: "j", Kind: "backup", Due: now, Lost: later}}},
		"gone":    {Lost: []compliance.LostJob{{ID: "g", Kind: "backup", Due: now, Lost: later}}},
		"failing": {LastRun: &compliance.Run{Time: later, Error: "disk full"}},
		"failed":  {LastRun: &compliance.Run{Time: now, Error: "the agent gave no reason"}},
	}
	if diff := cmp.Diff(want, h.Sources); diff != "" {
		t.Error(diff)
	}
	if !h.Known.Equal(now) || len(h.Refused) != 2 || h.Refused[0].Code != "forged" {
		t.Errorf("%+v", h)
	}
	codes := map[compliance.Code]bool{}
	for _, s := range compliance.EvaluateAgent("h", h.Agent(30*time.Minute), later) {
		codes[s.Code] = s.Breach
	}
	if diff := cmp.Diff(map[compliance.Code]bool{compliance.JobRefused: true, compliance.HostSilent: true, compliance.AgentBroken: true}, codes); diff != "" {
		t.Error(diff)
	}
}

func TestDependence(t *testing.T) {
	for copied, counts := range map[string]bool{
		"s3://other?region=eu-west-1": false, "gs://bucket": true, "file:///mnt": true, "s3://other?region=eu-west-1&profile=second": true,
	} {
		if got := observe.Dependence("s3://bucket?region=eu-central-1", copied); (got == "") != counts {
			t.Errorf("%s: %q", copied, got)
		}
	}
	if observe.Dependence("/a", "/b") == "" {
		t.Error("a directory of the same host counts")
	}
}

func TestOrphans(t *testing.T) {
	g := generate(t, 4, 0)
	g.add(t, snapshot.Source{Host: "gone", Name: "etc"}, 1)
	delete(g.policy.Hosts["host-00001"].Sources, "db")
	_, f, _, _ := g.pass(t)
	got, err := f.Orphans(t.Context())
	want := []snapshot.Source{{Host: "gone", Name: "etc"}, {Host: g.Source.Host, Name: g.Source.Name}, {Host: "host-00001", Name: "db"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestHeard(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	doc := &control.HostJobs{Seen: ago(14 * time.Minute), Sources: map[string]*control.SourceJobs{
		"a": {Last: &control.Ended{Finished: ago(5 * time.Minute)}},
		"b": {Open: &control.Job{Accepted: ago(3 * time.Minute), Seen: ago(2 * time.Minute)}},
		"c": {Last: &control.Ended{Finished: now.Add(time.Hour)}}, // a wrong clock
	}}
	h := observe.Jobs("h", nil, doc, now)
	if want := ago(2 * time.Minute); !h.Heard.Equal(want) {
		t.Errorf("heard at %s, want %s", h.Heard, want)
	}
	// What was heard once is not unheard when the job has ended.
	doc.Sources["b"].Open = nil
	if again := observe.Jobs("h", h, doc, now.Add(time.Minute)); !again.Heard.Equal(h.Heard) {
		t.Errorf("heard at %s, then at %s", h.Heard, again.Heard)
	}
}

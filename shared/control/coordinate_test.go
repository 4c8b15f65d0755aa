package control_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestShards(t *testing.T) {
	now := time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)
	s := &control.Shard{}
	hosts := []string{"a", "b", "c", "d", "e"}
	if got := s.Pending(hosts, "1", now); !slices.Equal(got, hosts) {
		t.Errorf("an empty document: %v", got)
	}
	s.Policy = "1"
	s.Looked("a", now.Add(-time.Minute), now)
	s.Looked("b", now.Add(time.Minute), now)
	s.Looked("c", time.Time{}, now)
	s.Looked("d", now.Add(400*24*time.Hour), now)
	s.Looked("gone", now, now)
	s.Hosts["e"] = now.Add(10 * 365 * 24 * time.Hour) // written under a wrong clock
	for at, want := range map[time.Duration][]string{0: {"a", "e"}, time.Minute: {"a", "b", "e"}, time.Hour: {"a", "b", "c", "d", "e"}} {
		got := s.Pending(hosts, "1", now.Add(at))
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("after %s: %v, want %v", at, got, want)
		}
	}
	s.Keep(hosts)
	if _, ok := s.Hosts["gone"]; ok || len(s.Hosts) != 5 {
		t.Errorf("%v", s.Hosts)
	}
	if got := s.Pending(hosts, "2", now); len(got) != 5 {
		t.Errorf("another policy: %v", got)
	}
	counts := [7]int{}
	for i := range 7000 {
		counts[control.ShardOf(fmt.Sprintf("web-%d", i), 7)]++
	}
	for shard, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("shard %d has %d of 7000 hosts", shard, n)
		}
	}
	if control.ShardOf("a", 0) != 0 || control.ShardOf("a", 1) != 0 {
		t.Error("one shard has all")
	}
}

func TestSlots(t *testing.T) {
	now := time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)
	s := &control.Slots{}
	slot := control.Slot{Host: "a", Source: "s", Since: now}
	if !s.Take("1", slot, 2) || !s.Take("2", slot, 2) || s.Take("3", slot, 2) || !s.Take("1", slot, 2) {
		t.Errorf("%+v", s)
	}
	if s.Take("3", slot, 1) || len(s.Held) != 2 {
		t.Error("a lower limit takes nothing away and gives nothing")
	}
	if got := s.Doubtful(now.Add(time.Minute)); len(got) != 0 {
		t.Errorf("doubtful at once: %v", got)
	}
	if got := s.Doubtful(now.Add(time.Hour)); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("doubtful: %v", got)
	}
	if got := s.Doubtful(now.Add(-time.Hour)); len(got) != 2 {
		t.Errorf("of a time that lies ahead: %v", got)
	}
	if s.Release("7") || !s.Release("1", "7") || len(s.Held) != 1 {
		t.Errorf("%+v", s)
	}
}

// TestReportsOfStrangers takes reports about what the document does not know.
func TestReportsOfStrangers(t *testing.T) {
	now := time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)
	h := &control.HostJobs{Host: "a"}
	id := events.JobID("p", "a/s", now, "backup", "full")
	h.TakeAccepted(&events.JobAccepted{Job: id, Host: "a", Source: "s"}, now)
	if _, closed := h.TakeRefused(&events.JobRefused{Job: id, Host: "a", Source: "s", Code: events.Stale}, now); len(closed) != 0 {
		t.Errorf("closed %v", closed)
	}
	f := &events.JobFinished{Job: id, Host: "a", Source: "s", Kind: events.Backup, Type: "full", Result: events.OK, Snapshot: 1, Started: now, Finished: now}
	if h.News(f) {
		t.Error("news of a source that is not followed")
	}
	h.TakeFinished(f, now, control.Limits{}, now)
	if _, ends := h.TakeHeartbeat(&events.Heartbeat{Host: "a", Sources: map[string]events.LastRun{"s": {Result: events.OK}}}, control.Limits{}, now); len(ends) != 0 {
		t.Errorf("ends %v", ends)
	}
	if len(h.Sources) != 0 || !h.Seen.Equal(now) {
		t.Errorf("%+v", h)
	}
}

// TestTimesOfReports lets events tell of wrong times: none settles what lies behind the arrival of a manifest.
func TestTimesOfReports(t *testing.T) {
	now := time.Date(2026, 3, 6, 12, 30, 0, 0, time.UTC)
	far := now.Add(100 * 365 * 24 * time.Hour)
	for name, e := range map[string]events.JobFinished{
		"due":     {Due: far, Started: now},
		"started": {Started: far},
		"both":    {Due: far, Started: far, Finished: far},
	} {
		h := &control.HostJobs{Host: "a", Sources: map[string]*control.SourceJobs{"s": {State: control.StateOK}}}
		e.Job, e.Host, e.Source, e.Kind, e.Type, e.Result = "x", "a", "s", events.Backup, "full", events.OK
		if changed, _ := h.TakeFinished(&e, now, control.Limits{}, now); !changed {
			t.Errorf("%s: not taken", name)
		}
		if got := h.Sources["s"].Done; got.Full.After(now) {
			t.Errorf("%s: settled through %s", name, got.Full)
		}
	}
}

// TestFollowNothing follows hosts of which there is nothing to follow.
func TestFollowNothing(t *testing.T) {
	now := time.Date(2026, 3, 6, 12, 30, 0, 0, time.UTC)
	p, err := policy.Parse([]byte("version: 1\nhosts: {a: {sources: {s: {files: {roots: [/srv]}}}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	h := &control.HostJobs{Host: "b", Sources: map[string]*control.SourceJobs{"s": {Open: &control.Job{First: "x"}}}}
	if step := h.Follow(p, control.Found{}, control.Limits{}, now); !step.Changed || len(step.Orders) != 0 || !slices.Equal(step.Closed, []string{"x"}) {
		t.Errorf("a host that is not in the policy: %+v", step)
	}
	h = &control.HostJobs{Host: "a"}
	if step := h.Follow(p, control.Found{}, control.Limits{}, now); !slices.Equal(step.Look, []string{"s"}) || step.Changed {
		t.Errorf("a new source: %+v", step)
	}
	step := h.Follow(p, control.Found{Manifests: map[string]control.Evidence{"s": {}}}, control.Limits{}, now)
	if len(step.Look)+len(step.Orders) != 0 || !step.Changed || !step.Next.IsZero() {
		t.Errorf("a source without a schedule: %+v", step)
	}
	// Lost, and the manifest that there is does not reach far enough: of another type.
	h.Sources["s"].Open = &control.Job{
		ID: "x", First: "x", Kind: events.Backup, Type: "full", Due: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		Asked: now.Add(-time.Hour), Sent: now.Add(-time.Hour), Sends: 1, Accepted: now.Add(-time.Hour),
	}
	e := control.Evidence{Sequence: 2, Type: snapshot.Incremental, Started: now.Add(-time.Minute), Arrived: now, Settled: schedule.History{}}
	if step := h.Follow(p, control.Found{Manifests: map[string]control.Evidence{"s": e}}, control.Limits{}, now); len(step.Orders) != 1 || step.Orders[0].New {
		t.Errorf("an incremental stands for a full: %+v", step)
	}
	h.Sources["s"].Open.Accepted, h.Sources["s"].Open.Seen = now.Add(-time.Hour), time.Time{}
	e.Type, e.Partial = snapshot.Full, true
	h.Follow(p, control.Found{Manifests: map[string]control.Evidence{"s": e}}, control.Limits{}, now)
	if s := h.Sources["s"]; s.Open != nil || s.Last.Result != events.Partial || s.State != control.StateOK {
		t.Errorf("%+v", s)
	}
}

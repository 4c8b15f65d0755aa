package control_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// TestRefusalsHaveTheBusTime: people are told of refusals of the last day. By the clock of an agent that is wrong, that
// would be never, or for years.
func TestRefusalsHaveTheBusTime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, off := range []time.Duration{-72 * time.Hour, 365 * 24 * time.Hour} {
		h := &control.HostJobs{Host: "a"}
		e := &events.JobRefused{Job: "1", Host: "a", Code: events.Forged, Time: now.Add(off)}
		h.TakeRefused(e, now)
		if changed, _ := h.TakeRefused(e, now); changed || len(h.Refused) != 1 || !h.Refused[0].Time.Equal(now) {
			t.Errorf("%s: %+v", off, h.Refused)
		}
	}
}

// TestRefusalsAreNotFloodedAway: many jobs that come late do not hide a forged one.
func TestRefusalsAreNotFloodedAway(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	h := &control.HostJobs{Host: "a"}
	h.TakeRefused(&events.JobRefused{Job: "1", Host: "a", Code: events.Forged, Time: now}, now)
	for n := range 100 {
		now = now.Add(time.Second)
		h.TakeRefused(&events.JobRefused{Job: fmt.Sprint("late", n), Host: "a", Code: events.Stale, Time: now}, now)
	}
	if n := len(h.Refused); n > 20 || h.Refused[n-1].Code != events.Forged {
		t.Errorf("%d: %+v", n, h.Refused[n-1])
	}
}

// TestAskedForUntilItIsTooLate: a host that is off for weeks finds a message when it is back, however long messages last.
func TestAskedForUntilItIsTooLate(t *testing.T) {
	p, err := policy.Parse([]byte(`version: 1
repository: {primary: "s3://bucket?region=eu-central-1"}
hosts: {a: {sources: {s: {files: {roots: [/srv]}, schedule: {full: "0 0 1 * *", jitter: 0s}}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 0, 0, 30, 0, time.UTC)
	h, found := &control.HostJobs{Host: "a"}, control.Found{Manifests: map[string]control.Evidence{"s": {}}}
	var last time.Time
	for range 28 * 24 {
		for _, o := range h.Follow(p, found, control.Limits{}, now).Orders {
			if o.New {
				h.Ask(o, now)
			}
			last = now
		}
		if now.Sub(last) > 25*time.Hour {
			t.Fatalf("no message since %s", last)
		}
		now = now.Add(time.Hour)
	}
}

package control_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
)

// TestPresent: what a heartbeat says of logs, and of what a person must mend, is taken in the order of the bus, whatever
// comes late, and as far as the clock of its host can be believed.
func TestPresent(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	h := &control.HostJobs{Host: "h"}
	take := func(when, clock, until time.Time, problem string) bool {
		t.Helper()
		changed, _ := h.TakeHeartbeat(&events.Heartbeat{
			Host: "h", Agent: "1", Time: clock, Problem: problem, Logs: map[string]events.Log{"db": {State: "following", Well: true, Since: now, Until: until}},
		}, control.Limits{}, when)
		return changed
	}
	if !take(now, now, now, "policy.yaml:3:1: no such key") || h.Mend == "" || !h.Broken.Equal(now) {
		t.Errorf("%+v", h)
	}
	if take(now.Add(time.Minute), now.Add(time.Minute), now.Add(59*time.Second), "policy.yaml:3:1: no such key") {
		t.Error("a minute later nothing is news")
	}
	later := now.Add(20 * time.Minute)
	if !take(later, later, later, "") || h.Mend != "" || !h.Broken.IsZero() || !h.Logs["db"].Until.Equal(later) {
		t.Errorf("%+v", h)
	}
	// An older one was long under way.
	if take(now.Add(10*time.Minute), now, now, "policy.yaml:3:1: no such key"); h.Mend != "" || !h.Logs["db"].Until.Equal(later) {
		t.Errorf("%+v", h)
	}
	// The host's clock is a year ahead, or it says what nobody can know.
	for _, ahead := range []time.Duration{0, 365 * 24 * time.Hour} {
		later = later.Add(time.Hour)
		take(later, later.Add(ahead), later.Add(ahead).Add(-time.Minute), "")
		if !h.Logs["db"].Until.Equal(later.Add(-time.Minute)) {
			t.Errorf("%s ahead: %s", ahead, h.Logs["db"].Until)
		}
		if take(later.Add(time.Second), later.Add(time.Second), later.Add(400*24*time.Hour), ""); h.Logs["db"].Until.After(later.Add(time.Second)) {
			t.Errorf("%s", h.Logs["db"].Until)
		}
	}
	// What the function's own clock, ahead for a while, has written down does not keep out what comes now.
	h.Told = later.Add(1000 * time.Hour)
	if take(later.Add(time.Hour), later, later, "mend me"); h.Mend == "" {
		t.Errorf("%+v", h)
	}
}

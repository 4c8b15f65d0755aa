package control_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/control"
)

func TestWithin(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for then, want := range map[time.Time]bool{
		{}: false, now: true, now.Add(-59 * time.Minute): true, now.Add(-time.Hour): false, now.Add(time.Minute): true, now.Add(48 * time.Hour): false,
	} {
		if got := control.Within(then, now, time.Hour); got != want {
			t.Errorf("%s: %v", then, got)
		}
	}
}

func TestLease(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		lease control.Lease
		held  bool
	}{
		"nobody's":     {control.Lease{}, false},
		"my own":       {control.Lease{Owner: "me", Until: now.Add(time.Minute)}, false},
		"another's":    {control.Lease{Owner: "x", Until: now.Add(16 * time.Minute)}, true},
		"over":         {control.Lease{Owner: "x", Until: now}, false},
		"from a clock": {control.Lease{Owner: "x", Until: now.Add(365 * 24 * time.Hour)}, false}, // no invocation lasts so long
	} {
		if got := tt.lease.Held("me", now); got != tt.held {
			t.Errorf("%s: held %v", name, got)
		}
	}
}

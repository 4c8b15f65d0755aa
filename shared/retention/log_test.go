package retention_test

import (
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/retention"
)

// daily is a snapshot a day, verified, with a place in the log.
func daily(n int) []retention.Snapshot {
	var out []retention.Snapshot
	for i := range n {
		out = append(out, retention.Snapshot{
			Sequence: uint64(i + 1), Time: time.Date(2026, 3, 1+i, 12, 0, 0, 0, time.UTC), Type: "incremental", ChainStart: 1, Verified: true, Log: true,
		})
	}
	return out
}

func TestLogBase(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 3, 20, 18, 0, 0, 0, time.UTC)
	within := func(d time.Duration) policy.Retention { return policy.Retention{KeepWithin: policy.Duration(d)} }
	for name, tt := range map[string]struct {
		rules  policy.Retention
		change func([]retention.Snapshot)
		want   uint64 // 0: all of the log stays
	}{
		"five days":                  {within(5 * day), func([]retention.Snapshot) {}, 15},
		"no rules":                   {policy.Retention{}, func([]retention.Snapshot) {}, 0},
		"no window":                  {policy.Retention{Daily: 3}, func([]retention.Snapshot) {}, 13}, // a week
		"longer than there are":      {within(100 * day), func([]retention.Snapshot) {}, 0},
		"not verified":               {within(5 * day), func(s []retention.Snapshot) { s[14].Verified = false }, 14},
		"partial":                    {within(5 * day), func(s []retention.Snapshot) { s[14].Partial = true }, 14},
		"without a place in the log": {within(5 * day), func(s []retention.Snapshot) { s[14].Log, s[13].Log = false, false }, 13},
		"none was verified":          {within(5 * day), func(s []retention.Snapshot) { verified(s, false) }, 0},
		"a source that is not backed up any more": {within(5 * day), func(s []retention.Snapshot) { late(s, -30*day) }, 15},
	} {
		t.Run(name, func(t *testing.T) {
			snaps := daily(20)
			tt.change(snaps)
			got, ok := retention.LogBase(snaps, tt.rules, now)
			if got != tt.want || ok != (tt.want != 0) {
				t.Fatalf("%d, %v", got, ok)
			}
			decisions, err := retention.Plan(snaps, tt.rules, now)
			if err != nil || !ok {
				return
			}
			if d := decisions[got-1]; !d.Keep || !strings.Contains(strings.Join(d.Reasons, " "), "base of the log") {
				t.Errorf("%+v", d)
			}
		})
	}
	// Shortened rules wait.
	rec, _ := retention.Record{}.Update(within(10*day), now.Add(-50*day))
	rec, _ = rec.Update(within(2*day), now.Add(-day))
	if n, ok := rec.LogBase(daily(20), now); n != 10 || !ok {
		t.Errorf("%d, %v", n, ok)
	}
	if n, ok := rec.LogBase(daily(20), now.Add(retention.Grace)); n != 18 || !ok {
		t.Errorf("after the wait: %d, %v", n, ok)
	}
	rec, _ = retention.Record{}.Update(policy.Retention{}, now.Add(-50*day))
	rec, _ = rec.Update(within(2*day), now.Add(-day))
	if n, ok := rec.LogBase(daily(20), now); ok {
		t.Errorf("rules that kept all are still in force: %d", n)
	}
}

func verified(s []retention.Snapshot, yes bool) {
	for i := range s {
		s[i].Verified = yes
	}
}

func late(s []retention.Snapshot, by time.Duration) {
	for i := range s {
		s[i].Time = s[i].Time.Add(by)
	}
}

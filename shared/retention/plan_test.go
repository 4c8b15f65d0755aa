package retention_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

const day = 24 * time.Hour

func within(d time.Duration) policy.Duration { return policy.Duration(d) }

// series makes n verified snapshots, a full first and then at every fullEvery-th.
func series(start time.Time, step time.Duration, n, fullEvery int) []retention.Snapshot {
	var out []retention.Snapshot
	chain := uint64(1)
	for i := range n {
		s := retention.Snapshot{Sequence: uint64(i + 1), Time: start.Add(time.Duration(i) * step), Type: snapshot.Incremental, Verified: true}
		if i%fullEvery == 0 {
			s.Type, chain = snapshot.Full, s.Sequence
		}
		s.ChainStart = chain
		out = append(out, s)
	}
	return out
}

func render(snapshots []retention.Snapshot, decisions []retention.Decision) string {
	var b strings.Builder
	dropped := 0
	for i, d := range decisions {
		if !d.Keep && !d.Condemned {
			dropped++
			continue
		}
		s := snapshots[i]
		fmt.Fprintf(&b, "@%-4d %s %-11s keep=%-5v %s\n", d.Sequence, s.Time.UTC().Format("2006-01-02T15:04Z"), s.Type, d.Keep, strings.Join(d.Reasons, ", "))
	}
	fmt.Fprintf(&b, "%d of %d go\n", dropped, len(decisions))
	return b.String()
}

func TestGolden(t *testing.T) {
	start := time.Date(2026, 10, 1, 2, 0, 0, 0, time.UTC)
	type golden1 struct {
		name      string
		snapshots []retention.Snapshot
		rules     policy.Retention
	}
	daily := series(start, day, 100, 30)
	unverified := series(start, 12*time.Hour, 40, 14)
	for i := 30; i < 40; i++ {
		unverified[i].Verified = false
	}
	unverified[28].Partial = true
	marks := series(start, day, 20, 7)
	marks[3].Pinned = true
	marks[4].Held, marks[4].Condemned = true, true
	marks[5].Condemned = true
	marks[6].Tags = []string{"release"}
	hours := series(time.Date(2026, 10, 24, 22, 10, 0, 0, time.UTC), 30*time.Minute, 14, 50)
	for _, tt := range []golden1{
		{"empty", series(start, day, 4, 2), policy.Retention{}},
		{"governance", daily, policy.Retention{KeepWithin: within(30 * day), Daily: 30, Weekly: 12, Monthly: 24}},
		{"tiers", daily, policy.Retention{KeepLast: 3, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 3}},
		{"unverified", unverified, policy.Retention{KeepLast: 2, Daily: 3}},
		{"marks", marks, policy.Retention{KeepLast: 2, KeepTags: []string{"release"}}},
		{"hourly-berlin", hours, policy.Retention{Hourly: 5, TimeZone: "Europe/Berlin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := tt.snapshots[len(tt.snapshots)-1].Time.Add(time.Hour)
			got, err := retention.Plan(tt.snapshots, tt.rules, now)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name, render(tt.snapshots, got))
		})
	}
}

func TestNothing(t *testing.T) {
	got, err := retention.Plan(nil, policy.Retention{KeepLast: 1}, time.Now())
	if err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := retention.Plan(nil, policy.Retention{TimeZone: "Atlantis"}, time.Now()); err == nil {
		t.Error("unknown time zone accepted")
	}
}

func TestStoppedSourceKeepsItsHistory(t *testing.T) {
	s := series(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), day, 10, 10)
	got, err := retention.Plan(s, policy.Retention{KeepWithin: within(30 * day)}, s[9].Time.Add(1000*day))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range got {
		if !d.Keep {
			t.Errorf("@%d goes", d.Sequence)
		}
	}
}

func TestGuard(t *testing.T) {
	plan := func(keep, drop, condemned int) []retention.Decision {
		var out []retention.Decision
		for i := range keep + drop + condemned {
			out = append(out, retention.Decision{Keep: i < keep, Condemned: i >= keep+drop})
		}
		return out
	}
	for _, tt := range []struct {
		keep, drop, condemned int
		ok                    bool
	}{
		{0, 0, 0, true},
		{1, 1, 0, true},
		{8, 2, 0, true},
		{7, 2, 0, false},
		{80, 20, 50, true},
		{79, 21, 0, false},
		{1, 2, 0, false},
	} {
		err := retention.Guard(plan(tt.keep, tt.drop, tt.condemned))
		if (err == nil) != tt.ok {
			t.Errorf("keep %d, drop %d, condemned %d: %v", tt.keep, tt.drop, tt.condemned, err)
		}
		var many *retention.TooMany
		if err != nil && (!errors.Is(err, retention.ErrTooMany) || !errors.As(err, &many) || many.Drop != tt.drop) {
			t.Errorf("error %v", err)
		}
	}
}

func TestShortenedWaits(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := series(start, day, 20, 20)
	now := s[19].Time
	long, short := policy.Retention{KeepLast: 20}, policy.Retention{KeepLast: 5}
	record, changed := retention.Record{}.Update(long, now)
	if !changed {
		t.Fatal("a first record is a change")
	}
	if again, changed := record.Update(long, now.Add(day)); changed || !cmp.Equal(again, record) {
		t.Fatal("the same rules are no change")
	}
	kept := func(r retention.Record, now time.Time) (int, *retention.Shortened) {
		t.Helper()
		decisions, warning, err := r.Plan(s, now)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, d := range decisions {
			if d.Keep {
				n++
			}
		}
		return n, warning
	}
	record, changed = record.Update(short, now)
	if n, w := kept(record, now); n != 20 || w == nil || w.Snapshots != 14 || !w.Until.Equal(now.Add(retention.Grace)) || !changed {
		t.Errorf("at once: %d kept, %v", n, w)
	}
	// Five newest, and the full of the running chain.
	if n, w := kept(record, now.Add(retention.Grace)); n != 6 || w != nil {
		t.Errorf("after the waiting: %d kept, %v", n, w)
	}
	if r, changed := record.Update(short, now.Add(retention.Grace)); !changed || len(r.Replaced) != 0 {
		t.Errorf("the replaced rules are not forgotten: %+v", r)
	}
	// Back again within the time: nothing was lost, nothing is warned about.
	back, _ := record.Update(long, now.Add(day))
	if n, w := kept(back, now.Add(day)); n != 20 || w != nil {
		t.Errorf("changed back: %d kept, %v", n, w)
	}
	// In steps, each waits for itself.
	third, _ := record.Update(policy.Retention{KeepLast: 1}, now.Add(3*day))
	if n, w := kept(third, now.Add(8*day)); n != 6 || w == nil || w.Snapshots != 4 {
		t.Errorf("second step: %d kept, %v", n, w)
	}
	// An empty policy keeps everything; leaving it shortens.
	all, _ := retention.Record{}.Update(policy.Retention{}, now)
	some, _ := all.Update(short, now)
	if n, w := kept(some, now); n != 20 || w == nil {
		t.Errorf("first rules: %d kept, %v", n, w)
	}
}

package compliance_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var update = flag.Bool("update", false, "rewrite golden files")

const (
	hour = time.Hour
	day  = 24 * hour
)

func now() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func objectives() *policy.Objectives {
	return &policy.Objectives{
		Tier: policy.High, RPO: policy.Duration(hour), RTO: policy.Duration(4 * hour), MaxSize: 10 << 30, Copies: 2,
		KeyCheck: policy.DefaultKeyCheck, Verify: policy.DefaultVerify,
	}
}

// facts is a source of which everything is fine: twelve snapshots, one every 50 minutes, the newest 10 minutes old.
func facts() compliance.Facts {
	f := compliance.Facts{
		Source:    snapshot.Source{Host: "governance-1", Name: "governance-app"},
		LastSeen:  12,
		LastRun:   &compliance.Run{Time: now().Add(-10 * time.Minute)},
		Copies:    []compliance.Copy{{Place: "gs://copy"}},
		Protected: true,
		Stored:    1 << 30,
		Restored:  &compliance.Restore{Time: now().Add(-3 * day), Took: hour, Bytes: 1 << 29},
		KeyProven: now().Add(-30 * day),
	}
	for i := range 12 {
		arrived := now().Add(-10*time.Minute - time.Duration(11-i)*50*time.Minute)
		f.Snapshots = append(f.Snapshots, compliance.Snapshot{
			Point: recovery.Point{
				Sequence: uint64(i + 1), Started: arrived.Add(-time.Minute), Finished: arrived, Arrived: arrived, Verified: true,
			},
			Bytes: 1 << 30,
		})
	}
	return f
}

// TestGolden changes one thing at a time in a source that is fine.
func TestGolden(t *testing.T) {
	type change func(*policy.Objectives, *compliance.Facts)
	newest := func(fn func(*compliance.Snapshot)) change {
		return func(_ *policy.Objectives, f *compliance.Facts) { fn(&f.Snapshots[11]) }
	}
	every := func(fn func(*compliance.Snapshot)) change {
		return func(_ *policy.Objectives, f *compliance.Facts) {
			for i := range f.Snapshots {
				fn(&f.Snapshots[i])
			}
		}
	}
	for _, tt := range []struct {
		name   string
		breach bool
		change change
	}{
		{"ok", false, func(*policy.Objectives, *compliance.Facts) {}},
		{"minimal", false, func(o *policy.Objectives, f *compliance.Facts) {
			*o = policy.Objectives{Tier: policy.Standard, RPO: policy.DefaultRPO, Copies: 1, KeyCheck: policy.DefaultKeyCheck, Verify: policy.DefaultVerify}
			*f = compliance.Facts{Source: f.Source, Snapshots: f.Snapshots[11:]}
			f.Snapshots[0].Verified = false
		}},
		{"never", true, func(_ *policy.Objectives, f *compliance.Facts) { f.Snapshots, f.LastSeen, f.LastRun = nil, 0, nil }},
		{"late", true, func(_ *policy.Objectives, f *compliance.Facts) { f.Snapshots = f.Snapshots[:10]; f.LastSeen = 10 }},
		{"late-partial", true, every(func(s *compliance.Snapshot) { s.Partial = s.Sequence > 6 })},
		{"none-usable", true, every(func(s *compliance.Snapshot) { s.Damaged = true })},
		{"log-alone", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.LogUntil = now()
			every(func(s *compliance.Snapshot) { s.Damaged = true })(nil, f)
		}},
		{"partial", true, newest(func(s *compliance.Snapshot) { s.Partial = true })},
		{"clock-off", true, newest(func(s *compliance.Snapshot) {
			s.Started, s.Finished = s.Started.Add(6*time.Minute), s.Finished.Add(6*time.Minute)
		})},
		{"condemned", true, newest(func(s *compliance.Snapshot) { s.Condemned = true })},
		{"long-capture", true, newest(func(s *compliance.Snapshot) { s.Started = s.Started.Add(-3 * hour) })},
		{"log", false, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Snapshots, f.LastSeen, f.LogUntil = f.Snapshots[:2], 2, now().Add(-time.Minute)
		}},
		{"failing", true, func(_ *policy.Objectives, f *compliance.Facts) { f.LastRun.Error = "read /etc/x: permission denied" }},
		{"rollback", true, func(_ *policy.Objectives, f *compliance.Facts) { f.LastSeen = 14 }},
		{"missing", true, func(_ *policy.Objectives, f *compliance.Facts) { f.Missing = []uint64{13, 14} }},
		{"unreadable", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Unreadable, f.LastSeen = []uint64{13}, 13
			f.Copies[0].Error = "no such host"
		}},
		{"all-unreadable", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Unreadable, f.Snapshots = []uint64{7, 8, 9, 10, 11, 12}, nil
		}},
		{"gap", false, func(_ *policy.Objectives, f *compliance.Facts) {
			for i := range 6 {
				s := &f.Snapshots[i]
				s.Started, s.Finished, s.Arrived = s.Started.Add(-5*hour), s.Finished.Add(-5*hour), s.Arrived.Add(-5*hour)
			}
		}},
		{"thinned", false, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Snapshots = append(f.Snapshots[:4:4], f.Snapshots[8:]...)
		}},
		{"damaged", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Snapshots[3].Damaged, f.Snapshots[3].Verified, f.Snapshots[5].Damaged = true, false, true
		}},
		{"unverified", true, func(o *policy.Objectives, f *compliance.Facts) {
			o.Verify = policy.Duration(2 * hour)
			for i := 5; i < 12; i++ {
				f.Snapshots[i].Verified = false
			}
		}},
		{"never-verified", true, func(o *policy.Objectives, f *compliance.Facts) {
			o.Verify = policy.Duration(hour)
			for i := range f.Snapshots {
				f.Snapshots[i].Verified = false
			}
		}},
		{"verified-by-agent", false, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Deep = []compliance.Deep{{Level: "content", Within: 30 * day, Proven: now().Add(-31*day + hour)}, {Level: "restore", Within: 90 * day}}
		}},
		{"not-verified-by-agent", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Deep = []compliance.Deep{
				{Level: "content", Within: 7 * day, Proven: now().Add(-9 * day), Error: "the agent may not read packs"},
				{Level: "restore", Within: hour, Proven: now().Add(10 * 365 * day)},
			}
		}},
		{"not-protected", false, func(_ *policy.Objectives, f *compliance.Facts) { f.Protected = false }},
		{"not-protected-critical", false, func(o *policy.Objectives, f *compliance.Facts) { o.Tier, f.Protected = policy.Critical, false }},
		{"copy-late", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Copies[0].Missing, f.Copies[0].Waiting = 3, now().Add(-2*hour)
		}},
		{"copy-behind", false, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Copies[0].Missing, f.Copies[0].Waiting = 1, now().Add(-10*time.Minute)
		}},
		{"copy-lacks-log", true, func(_ *policy.Objectives, f *compliance.Facts) { f.Copies[0].Log = now().Add(-2 * hour) }},
		{"copy-log-under-way", false, func(_ *policy.Objectives, f *compliance.Facts) { f.Copies[0].Log = now().Add(-50 * time.Minute) }},
		{"copy-unreachable", true, func(_ *policy.Objectives, f *compliance.Facts) { f.Copies[0].Error = "no such host" }},
		{"copy-dependent", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Copies[0] = compliance.Copy{Place: "/mnt/it's here", Dependent: true, Missing: 1, Waiting: now().Add(-2 * day)}
		}},
		{"too-few-copies", true, func(o *policy.Objectives, _ *compliance.Facts) { o.Copies = 3 }},
		{"oversized", true, func(_ *policy.Objectives, f *compliance.Facts) { f.Stored = 10<<30 + 1 }},
		{"rto-unknown", true, func(_ *policy.Objectives, f *compliance.Facts) { f.Restored = nil }},
		{"rto-slow", true, func(_ *policy.Objectives, f *compliance.Facts) { f.Thaw = 3 * hour }},
		{"rto-failed", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Restored.Failed = "PRAGMA integrity_check: row 7 missing"
		}},
		{"key-old", true, func(_ *policy.Objectives, f *compliance.Facts) { f.KeyProven = now().Add(-181 * day) }},
		{"key-never", true, func(o *policy.Objectives, f *compliance.Facts) {
			f.KeyProven, o.KeyCheck = time.Time{}, policy.Duration(hour)
		}},
		{"job-lost", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Lost = []compliance.LostJob{{ID: "0a", Kind: "backup", Due: now().Add(-2 * hour), Lost: now().Add(-hour)}, {ID: "0b", Kind: "backup", Due: now().Add(-hour)}}
		}},
		{"never-lost", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Snapshots, f.LastSeen, f.LastRun = nil, 0, nil
			f.Lost = []compliance.LostJob{{ID: "0a", Kind: "backup", Due: now().Add(-2 * hour), Lost: now().Add(-hour)}}
		}},
		{"no-receipt", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.CheckWithin = hour
			for i := range 9 {
				f.Snapshots[i].Checked = true
			}
		}},
		{"receipt-due", false, func(_ *policy.Objectives, f *compliance.Facts) {
			f.CheckWithin = hour
			f.Snapshots[10].Checked = true
		}},
		{"lock-short", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Lock = &compliance.Lock{Sequence: 4, Until: now().Add(day), Wanted: now().Add(30 * day), Checked: now().Add(-hour)}
		}},
		{"lock-none", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Lock = &compliance.Lock{Sequence: 4, Wanted: now().Add(30 * day)}
		}},
		{"locked", false, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Lock = &compliance.Lock{Sequence: 4, Until: now().Add(31 * day), Wanted: now().Add(30 * day)}
		}},
		{"not-looked", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Looked, f.LookError = now().Add(-2*hour), "access denied"
		}},
		{"copy-unseen", false, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Copies[0] = compliance.Copy{Place: "file:///mnt/backup", Unseen: true}
		}},
		{"filling", false, func(_ *policy.Objectives, f *compliance.Facts) {
			for i := range 10 {
				f.Growth = append(f.Growth, compliance.Sample{Time: now().Add(time.Duration(i-10) * day), Bytes: int64(i) << 30})
			}
			f.Stored = 9 << 30
		}},
		{"growing-slowly", false, func(_ *policy.Objectives, f *compliance.Facts) {
			for i := range 10 {
				f.Growth = append(f.Growth, compliance.Sample{Time: now().Add(time.Duration(i-10) * day), Bytes: int64(i) << 20})
			}
		}},
		{"findings", true, func(_ *policy.Objectives, f *compliance.Facts) {
			f.Findings = []compliance.Finding{
				{By: "versions", Problem: "more than one version", Key: "v1/a", First: now().Add(-hour)},
				{By: "versions", Problem: "hidden", Key: "v1/b", First: now().Add(-2 * hour)},
				{By: "rotation", Problem: "unnamed", Key: "v1/c", First: now().Add(-hour), Warning: true},
				{By: "retention", Problem: "retention was shortened", Detail: "3 snapshots go", Key: "h/s", First: now(), Warning: true},
				{By: "replica", Problem: "the replica is not like the primary", Key: "h/s", First: now()},
				{By: "lock", Problem: "locked for less time than it is kept", Key: "h/s", First: now()},
				{By: "arrival", Problem: "missing", Key: "v1/d", First: now()},
			}
		}},
		{"small", false, newest(func(s *compliance.Snapshot) { s.Bytes = 1 << 20 })},
		{"long", false, newest(func(s *compliance.Snapshot) { s.Started = s.Started.Add(-10 * time.Minute) })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, f := objectives(), facts()
			tt.change(o, &f)
			states := compliance.Evaluate(o, f, now())
			if got := compliance.Breached(states); got != tt.breach {
				t.Errorf("breach %v, want %v", got, tt.breach)
			}
			if worst := compliance.Worst(states); worst.Breach != tt.breach {
				t.Errorf("worst %+v", worst)
			}
			checkStates(t, states)
			golden(t, tt.name, states)
			// Texts must not change while nothing happens.
			if diff := cmp.Diff(states, compliance.Evaluate(o, f, now().Add(time.Second))); diff != "" {
				t.Errorf("a second later (-want +got):\n%s", diff)
			}
		})
	}
}

func checkStates(t *testing.T, states []compliance.State) {
	t.Helper()
	if len(states) == 0 {
		t.Error("no states")
	}
	for _, s := range states {
		if s.Cause == "" || s.Source == "" || s.Objective == "" || (s.Breach && (s.Next == "" || s.Code == compliance.OK)) {
			t.Errorf("incomplete: %+v", s)
		}
	}
}

// golden compares the states that are not plainly ok; in "ok" and "minimal" all of them.
func golden(t *testing.T, name string, states []compliance.State) {
	t.Helper()
	if name != "ok" && name != "minimal" {
		var odd []compliance.State
		for _, s := range states {
			if s.Code != compliance.OK || s.Objective == "rpo" {
				odd = append(odd, s)
			}
		}
		states = odd
	}
	got, err := json.MarshalIndent(states, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestOrphan(t *testing.T) {
	states := compliance.Evaluate(nil, facts(), now())
	if len(states) != 1 || states[0].Code != compliance.Orphan || compliance.Breached(states) {
		t.Errorf("%+v", states)
	}
}

func TestHost(t *testing.T) {
	if got := compliance.EvaluateHost("h", 0, 1<<60); got != nil {
		t.Errorf("no objective: %+v", got)
	}
	if got := compliance.EvaluateHost("h", 10, 10); len(got) != 1 || got[0].Code != compliance.OK || got[0].Source != "h" {
		t.Errorf("within: %+v", got)
	}
	if got := compliance.EvaluateHost("h", 10, 11); !compliance.Breached(got) || got[0].Code != compliance.Oversized {
		t.Errorf("beyond: %+v", got)
	}
	if got := compliance.Worst(nil); got.Code != "" {
		t.Errorf("worst of nothing: %+v", got)
	}
}

func TestAgent(t *testing.T) {
	codes := func(a compliance.Agent) map[compliance.Code]bool {
		out := map[compliance.Code]bool{}
		states := compliance.EvaluateAgent("h", a, now())
		checkStates(t, states)
		for _, s := range states {
			out[s.Code] = s.Breach
		}
		return out
	}
	for name, tt := range map[string]struct {
		agent compliance.Agent
		want  map[compliance.Code]bool
	}{
		"heard":     {compliance.Agent{Heard: now().Add(-hour), Within: 2 * hour}, map[compliance.Code]bool{compliance.OK: false}},
		"new":       {compliance.Agent{Known: now().Add(-hour), Within: 2 * hour}, map[compliance.Code]bool{compliance.OK: false}},
		"silent":    {compliance.Agent{Heard: now().Add(-3 * hour), Within: 2 * hour}, map[compliance.Code]bool{compliance.HostSilent: true}},
		"never":     {compliance.Agent{Known: now().Add(-3 * hour), Within: 2 * hour}, map[compliance.Code]bool{compliance.HostSilent: true}},
		"no queue":  {compliance.Agent{Heard: now(), Within: hour, Problem: "no such queue", Since: now()}, map[compliance.Code]bool{compliance.JobLost: true, compliance.OK: false}},
		"forged":    {compliance.Agent{Heard: now(), Within: hour, Refused: []compliance.Refused{{Time: now().Add(-hour), Code: "forged"}}}, map[compliance.Code]bool{compliance.JobRefused: true, compliance.OK: false}},
		"long over": {compliance.Agent{Heard: now(), Within: hour, Refused: []compliance.Refused{{Time: now().Add(-25 * hour), Code: "forged"}}}, map[compliance.Code]bool{compliance.OK: false}},
	} {
		if diff := cmp.Diff(tt.want, codes(tt.agent)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	unseen := compliance.EvaluateUnseen("h/s", now(), "access denied")
	checkStates(t, unseen)
	if !compliance.Breached(unseen) || !compliance.Told(unseen[0]) || !compliance.Told(compliance.State{Code: compliance.RetentionWaits}) || compliance.Told(compliance.State{Code: compliance.Unusual}) {
		t.Errorf("%+v", unseen)
	}
}

// TestRetentionAsks: whatever retention holds back is told, once, with what to do next.
func TestRetentionAsks(t *testing.T) {
	for _, problem := range []string{"retention was shortened", "too many snapshots would go"} {
		f := facts()
		f.Findings = []compliance.Finding{{By: "retention", Problem: problem, Key: "h/s", First: now(), Warning: true}}
		var got []compliance.State
		for _, s := range compliance.Evaluate(objectives(), f, now()) {
			if s.Code == compliance.RetentionWaits {
				got = append(got, s)
			}
		}
		if len(got) != 1 || !compliance.Told(got[0]) || got[0].Breach || got[0].Next != "holdfast prune --dry-run "+f.Source.String() {
			t.Errorf("%s: %+v", problem, got)
		}
	}
}

// TestNobodyExtendsLocks: that locks were long enough when somebody looked last says little a week later.
func TestNobodyExtendsLocks(t *testing.T) {
	for ago, want := range map[time.Duration]compliance.Code{hour: compliance.OK, 3 * day: compliance.OK, 5 * day: compliance.LockShort} {
		f := facts()
		f.Lock = &compliance.Lock{Sequence: 4, Until: now().Add(10 * day), Wanted: now().Add(9 * day), Checked: now().Add(-ago)}
		for _, s := range compliance.Evaluate(objectives(), f, now()) {
			if s.Objective == "lock" && (s.Code != want || s.Breach != (want != compliance.OK)) {
				t.Errorf("looked at %s ago: %+v", ago, s)
			}
		}
	}
}

// TestLockToldOnce: what lifecycle found and what it knows of locks is one state, and the finding is the newer.
func TestLockToldOnce(t *testing.T) {
	for name, until := range map[string]time.Time{"short": now(), "long": now().Add(1000 * hour)} {
		f := facts()
		f.Lock = &compliance.Lock{Sequence: 4, Until: until, Wanted: now().Add(100 * hour), Checked: now()}
		f.Findings = []compliance.Finding{{By: "lock", Problem: "locked for less time than it is kept", Key: "h/s", First: now()}}
		var got []compliance.Code
		for _, s := range compliance.Evaluate(objectives(), f, now()) {
			if s.Objective == "lock" {
				got = append(got, s.Code)
			}
		}
		if diff := cmp.Diff([]compliance.Code{compliance.LockShort}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestReaches(t *testing.T) {
	f := facts()
	want := f.Snapshots[11].Arrived.Add(-time.Minute)
	if got := compliance.Reaches(&f); !got.Equal(want) {
		t.Errorf("%s, want %s", got, want)
	}
	f.Snapshots[11].Damaged = true
	if got := compliance.Reaches(&f); !got.Equal(want.Add(-50 * time.Minute)) {
		t.Errorf("%s", got)
	}
	f.LogUntil = now()
	if got := compliance.Reaches(&f); !got.Equal(now()) {
		t.Errorf("%s", got)
	}
	for _, none := range []compliance.Facts{{}, {LogUntil: now()}} {
		if got := compliance.Reaches(&none); !got.IsZero() {
			t.Errorf("%s", got)
		}
	}
}

func TestGrowth(t *testing.T) {
	if perDay, over := compliance.Growth(nil); perDay != 0 || over != 0 {
		t.Error(perDay, over)
	}
	samples := []compliance.Sample{{Time: now(), Bytes: 100}, {Time: now().Add(day), Bytes: 300}, {Time: now().Add(2 * day), Bytes: 500}}
	if perDay, over := compliance.Growth(samples); perDay < 199.9 || perDay > 200.1 || over != 2*day {
		t.Error(perDay, over)
	}
	for bytes, want := range map[float64]string{512: "512 B", 1536: "1.5 KiB", 3 << 40: "3 TiB"} {
		if got := compliance.RoughSize(bytes); got != want {
			t.Errorf("%v: %s", bytes, got)
		}
	}
}

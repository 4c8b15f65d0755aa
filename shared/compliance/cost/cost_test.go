package cost_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/compliance/cost"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var update = flag.Bool("update", false, "rewrite golden files")

func from() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func parse(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func project(t *testing.T, p *policy.Policy, measures map[snapshot.Source]cost.Measure) *cost.Projection {
	t.Helper()
	got, err := cost.Project(p, measures, from())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestGovernance(t *testing.T) {
	text, err := os.ReadFile("../../../docs/examples/governance.yaml")
	if err != nil {
		t.Fatal(err)
	}
	measures := map[snapshot.Source]cost.Measure{}
	for name, bytes := range map[string]int64{
		"governance-db": 1 << 30, "governance-sqlite": 200 << 20, "governance-config": 1 << 20, "governance-app": 100 << 20,
		"governance-logs": 500 << 20, "system": 4 << 30,
	} {
		measures[snapshot.Source{Host: "governance-1", Name: name}] = cost.Measure{Bytes: bytes}
	}
	got, err := json.MarshalIndent(project(t, parse(t, string(text)), measures), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/governance.json"
	got = append(got, '\n')
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
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func one(t *testing.T, body string, m cost.Measure) cost.Source {
	t.Helper()
	p := parse(t, "version: 1\nhosts: {h: {sources: {s: {"+body+"}}}}\n")
	return project(t, p, map[snapshot.Source]cost.Measure{{Host: "h", Name: "s"}: m}).Sources[0]
}

func TestArithmetic(t *testing.T) {
	const gib = 1 << 30
	// A daily full of 1 GiB at ratio 1: 64 packs, list, manifest and one key a day.
	got := one(t, "files: {roots: [/]}, schedule: {full: '0 2 * * *'}, retention: {keep_last: 10}, objectives: {rpo: 24h}", cost.Measure{Bytes: gib, Compression: 1})
	want := cost.Source{
		Source: "h/s", Known: true, Runs: 1, Puts: 67, Lists: 2, Gets: 4, Uploaded: gib + 16<<10, Kept: 10, Stored: 10 * (gib + 16<<10),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Incrementals of 1 % a day on one full, all kept: the full and 364 days of changes.
	got = one(t, "files: {roots: [/]}, schedule: {incremental: '0 2 * * *'}, objectives: {rpo: 24h}", cost.Measure{Bytes: 1000 << 20, Compression: 1})
	if want := int64(1000<<20 + 364*10<<20 + 365*16<<10); got.Stored != want || got.Kept != 365 {
		t.Errorf("%+v, want %d stored", got, want)
	}
}

func TestNotes(t *testing.T) {
	for body, want := range map[string]string{
		"files: {roots: [/]}": "no schedule",
		"files: {roots: [/], watch: true}, schedule: {full: '0 0 1 * *'}":                          "",
		"files: {roots: [/]}, schedule: {full: '0 0 1 * *'}":                                       "rpo 1d can't be met: up to 31d lie between two runs",
		"sqlite: {path: /a}, schedule: {continuous: 1h, full: '0 0 1 * *'}, objectives: {rpo: 5m}": "the log is flushed every 1h",
		"sqlite: {path: /a}, schedule: {continuous: 1s, full: '0 0 1 * *'}, objectives: {rpo: 5m}": "",
		"files: {roots: [/]}, schedule: {full: '0 0 * * *'}, objectives: {max_size: 3GB}":          "more than its max_size 3GB",
	} {
		notes := strings.Join(one(t, body, cost.Measure{Bytes: 1e8}).Notes, "; ")
		if (want == "") != (notes == "") || !strings.Contains(notes, want) {
			t.Errorf("%s: notes %q, want %q", body, notes, want)
		}
	}
}

// TestManyRuns has more runs than are kept in memory at once.
func TestManyRuns(t *testing.T) {
	got := one(t, "files: {roots: [/]}, schedule: {incremental: '*/5 * * * *'}, retention: {keep_last: 60, daily: 30, yearly: 5}", cost.Measure{Bytes: 1e9})
	if got.Runs < 287 || got.Runs > 288 || got.Kept < 90 || got.Kept > 100 {
		t.Errorf("%+v", got)
	}
}

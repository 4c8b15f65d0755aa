package recovery_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/recovery"
)

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		panic(err)
	}
	return t
}

func point(seq uint64, finished string) recovery.Point {
	t := at(finished)
	return recovery.Point{Sequence: seq, Started: t.Add(-time.Minute), Finished: t, Arrived: t.Add(time.Second)}
}

// history: 3 is partial, 5 has a wrong clock (arrived at 14:00), 6 is damaged, 7 is condemned. 4 was removed.
func history() []recovery.Point {
	p := []recovery.Point{
		point(7, "2026-11-20 16:00"), point(1, "2026-11-20 10:00"), point(2, "2026-11-20 11:00"), point(3, "2026-11-20 12:00"),
		point(5, "2026-11-20 09:00"), point(6, "2026-11-20 15:00"),
	}
	p[0].Condemned = true
	p[3].Partial = true
	p[4].Arrived = at("2026-11-20 14:00")
	p[5].Damaged = true
	return p
}

func TestSelect(t *testing.T) {
	for _, tt := range []struct {
		name     string
		want     recovery.Selector
		sequence uint64 // 0: not found
		text     string // part of the reason or of the error
		warning  string
		instead  uint64
	}{
		{"newest", recovery.Selector{}, 7, "newest of 6 snapshots", "announced for deletion", 0},
		{"number", recovery.Selector{Sequence: 2}, 2, "asked for", "", 0},
		{"number wins", recovery.Selector{Sequence: 2, At: at("2026-11-20 16:00")}, 2, "asked for", "", 0},
		{"partial", recovery.Selector{Sequence: 3}, 3, "asked for", "@3 is partial", 2},
		{"damaged", recovery.Selector{Sequence: 6}, 6, "asked for", "failed its newest verification", 5},
		{"gone", recovery.Selector{Sequence: 4}, 0, "no snapshot 4; nearest before: @3 of 2026-11-20T12:00:00Z; nearest after: @5 of 2026-11-20T14:00:00Z", "", 0},
		{"not yet", recovery.Selector{Sequence: 9}, 0, "nearest before: @7 of 2026-11-20T16:00:00Z", "", 0},
		{"exact", recovery.Selector{At: at("2026-11-20 11:00")}, 2, "newest at or before 2026-11-20T11:00:00Z", "", 0},
		{"between", recovery.Selector{At: at("2026-11-20 11:59")}, 2, "59m earlier", "", 0},
		{"clock off counts by arrival", recovery.Selector{At: at("2026-11-20 14:30")}, 5, "30m earlier", "5h off", 0},
		{"before its arrival", recovery.Selector{At: at("2026-11-20 13:59")}, 3, "1h59m earlier", "partial", 2},
		{"after all", recovery.Selector{At: at("2026-11-25 16:00")}, 7, "5d earlier; there is none after it", "pin it", 0},
		{"before all", recovery.Selector{At: at("2026-11-20 09:30")}, 0, "no snapshot at or before 2026-11-20T09:30:00Z; nearest after: @1 of 2026-11-20T10:00:00Z", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := recovery.Select(history(), tt.want)
			if tt.sequence == 0 {
				var missing *recovery.NotFoundError
				if !errors.As(err, &missing) || !strings.Contains(err.Error(), tt.text) {
					t.Fatalf("error %v, want %q", err, tt.text)
				}
				return
			}
			if err != nil || got.Point.Sequence != tt.sequence || !strings.Contains(got.Reason, tt.text) {
				t.Fatalf("%+v, %v; want %d, %q", got, err, tt.sequence, tt.text)
			}
			if all := strings.Join(got.Warnings, "\n"); !strings.Contains(all, tt.warning) || (tt.warning == "") != (all == "") {
				t.Errorf("warnings %q, want %q", all, tt.warning)
			}
			if instead := got.Alternative; (instead == nil) != (tt.instead == 0) || (instead != nil && instead.Sequence != tt.instead) {
				t.Errorf("alternative %+v, want %d", instead, tt.instead)
			}
		})
	}
	for _, want := range []recovery.Selector{{}, {Sequence: 1}, {At: at("2026-11-20 09:30")}} {
		if _, err := recovery.Select(nil, want); err == nil || !strings.Contains(err.Error(), "the source has no snapshots") {
			t.Errorf("nothing: %v", err)
		}
	}
}

// TestSelectPassesUnfinished has a long full that is still at work.
func TestSelectPassesUnfinished(t *testing.T) {
	points := []recovery.Point{point(1, "2026-11-20 10:00"), point(2, "2026-11-21 10:00"), point(3, "2026-11-22 10:00")}
	for i := range points {
		points[i].Partial, points[i].Unfinished = i > 0, i > 0
	}
	for _, tt := range []struct {
		name       string
		candidates []recovery.Point
		want       recovery.Selector
		sequence   uint64
	}{
		{"newest", points, recovery.Selector{}, 1},
		{"by time", points, recovery.Selector{At: at("2026-11-23 10:00")}, 1},
		{"by number", points, recovery.Selector{Sequence: 2}, 2},
		{"no other", points[1:], recovery.Selector{}, 3},
		{"no other at that time", points[1:], recovery.Selector{At: at("2026-11-21 12:00")}, 2},
	} {
		got, err := recovery.Select(tt.candidates, tt.want)
		if err != nil || got.Point.Sequence != tt.sequence {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
		if warned := strings.Contains(strings.Join(got.Warnings, ""), "unfinished"); warned != got.Point.Unfinished {
			t.Errorf("%s: warnings %q", tt.name, got.Warnings)
		}
	}
}

func TestRecoverable(t *testing.T) {
	const h = time.Hour
	got := recovery.Recoverable(history(), time.Hour, at("2026-11-20 18:00"))
	want := recovery.Window{
		Spans: []recovery.Span{
			{From: at("2026-11-20 10:00"), To: at("2026-11-20 11:00"), First: 1, Last: 2, Points: 2},
			{From: at("2026-11-20 14:00"), To: at("2026-11-20 14:00"), First: 5, Last: 5, Points: 1},
		},
		Gaps: []recovery.Gap{
			{From: at("2026-11-20 11:00"), To: at("2026-11-20 14:00"), After: 2, Cause: "1 snapshot between partial", Size: 3 * h},
			{From: at("2026-11-20 14:00"), To: at("2026-11-20 18:00"), After: 5, Cause: "1 snapshot between failed verification", Open: true, Size: 4 * h},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := recovery.Recoverable(nil, h, time.Now()); len(got.Spans)+len(got.Gaps) != 0 {
		t.Errorf("nothing: %+v", got)
	}
	removed := recovery.Recoverable([]recovery.Point{point(1, "2026-11-20 10:00"), point(9, "2026-11-20 18:00")}, h, at("2026-11-20 18:00"))
	if len(removed.Gaps) != 1 || removed.Gaps[0].Cause != "7 snapshots between removed by retention" {
		t.Errorf("%+v", removed.Gaps)
	}
}

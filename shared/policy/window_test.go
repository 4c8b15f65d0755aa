package policy_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/policy"
)

func TestWindows(t *testing.T) {
	for _, tt := range []struct{ spec, at, end string }{ // end "": not in the window
		{"08:00-18:00", "2026-03-02T07:59:59Z", ""},
		{"08:00-18:00", "2026-03-02T08:00:00Z", "2026-03-02T18:00:00Z"},
		{"08:00-18:00", "2026-03-02T17:59:59Z", "2026-03-02T18:00:00Z"},
		{"08:00-18:00", "2026-03-02T18:00:00Z", ""},
		{"22:00-04:00", "2026-03-02T23:00:00Z", "2026-03-03T04:00:00Z"},
		{"22:00-04:00", "2026-03-02T03:59:00Z", "2026-03-02T04:00:00Z"},
		{"22:00-04:00", "2026-03-02T05:00:00Z", ""},
		{"Mon-Fri 22:00-04:00", "2026-03-07T03:00:00Z", "2026-03-07T04:00:00Z"}, // a Saturday: begun on Friday
		{"Mon-Fri 22:00-04:00", "2026-03-07T23:00:00Z", ""},
		{"sat,Sun 00:00-24:00", "2026-03-07T23:00:00Z", "2026-03-08T00:00:00Z"},
		{"Fri-Mon 10:00-11:00", "2026-03-08T10:30:00Z", "2026-03-08T11:00:00Z"},
		{"Fri-Mon 10:00-11:00", "2026-03-10T10:30:00Z", ""},
		{"CRON_TZ=Europe/Berlin 08:00-18:00", "2026-03-02T07:00:00Z", "2026-03-02T17:00:00Z"},
		{"CRON_TZ=Europe/Berlin 08:00-18:00", "2026-07-02T06:00:00Z", "2026-07-02T16:00:00Z"},
		// Clocks are put forward at 02:00 on this day.
		{"TZ=Europe/Berlin 01:00-04:00", "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"},
	} {
		w, err := policy.ParseWindow(tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if end, ok := w.End(at); ok {
			got = end.UTC().Format(time.RFC3339)
		}
		if got != tt.end {
			t.Errorf("%s at %s: ends %q, want %q", tt.spec, tt.at, got, tt.end)
		}
		text, _ := w.MarshalText()
		var again policy.Window
		if err := again.UnmarshalText(text); err != nil || !cmp.Equal(w, again) {
			t.Errorf("%s: %v after a round trip: %v", tt.spec, again, err)
		}
	}
}

func TestOpen(t *testing.T) {
	var s policy.Schedule
	for _, spec := range []string{"08:00-18:00", "17:00-20:00", "Sun 20:00-08:00"} {
		w, err := policy.ParseWindow(spec)
		if err != nil {
			t.Fatal(err)
		}
		s.Blackout = append(s.Blackout, w)
	}
	sunday := time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC)
	for hour, want := range map[int]int{0: 0, 7: 7, 8: 44, 19: 44, 44: 44} {
		open, ok := s.Open(sunday.Add(time.Duration(hour) * time.Hour))
		if !ok || !open.Equal(sunday.Add(time.Duration(want)*time.Hour)) {
			t.Errorf("from hour %d: %v, %v, want hour %d", hour, open, ok, want)
		}
	}
	if open, ok := (policy.Schedule{}).Open(sunday); !ok || !open.Equal(sunday) {
		t.Errorf("without windows: %v, %v", open, ok)
	}
}

func FuzzParseWindow(f *testing.F) {
	for _, spec := range []string{"08:00-18:00", "Mon-Fri 22:00-04:00", "CRON_TZ=Europe/Berlin Sat,Sun 00:00-24:00", "TZ= 1", "Mon- 00:00-01:00", "CRON_TZ=UTC"} {
		f.Add(spec, int64(1_772_000_000))
	}
	f.Fuzz(func(t *testing.T, spec string, at int64) {
		w, err := policy.ParseWindow(spec)
		if err != nil {
			return
		}
		again, err := policy.ParseWindow(w.String())
		if err != nil || !again.Equal(w) {
			t.Fatalf("%q: %v, %v", spec, again, err)
		}
		now := time.Unix(at%4_000_000_000, 0)
		if end, ok := w.End(now); ok && (!end.After(now) || end.Sub(now) > 26*time.Hour) {
			t.Fatalf("%q at %s ends %s", spec, now, end)
		}
	})
}

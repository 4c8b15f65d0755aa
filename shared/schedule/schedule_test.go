package schedule_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func parse(t testing.TB, lines ...string) *policy.Policy {
	t.Helper()
	text := "version: 1\nrepository: {primary: \"s3://bucket?region=eu-central-1\"}\nhosts:\n  web-1:\n    sources:\n      etc:\n" +
		"        files: {roots: [/etc]}\n        schedule:\n          " + strings.Join(lines, "\n          ") + "\n"
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

var etc = snapshot.Source{Host: "web-1", Name: "etc"}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	v, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDue(t *testing.T) {
	both := []string{`full: "0 2 * * 0"`, `incremental: "0 * * * *"`, "jitter: 0s"} // Sundays; 2026-03-08 is one
	hours := []string{`incremental: "0 * * * *"`, "jitter: 0s", `blackout: ["08:00-18:00"]`}
	for name, tt := range map[string]struct {
		lines             []string
		full, incremental string // settled through
		now               string
		typ               snapshot.SnapshotType // empty: nothing is due
		due, next         string
	}{
		"never backed up: due at once":    {both, "", "", "2026-03-06 12:30:00", snapshot.Full, "2026-03-06 12:00:00", ""},
		"in time":                         {both, "2026-03-01 02:00:00", "2026-03-06 11:00:00", "2026-03-06 12:00:00", snapshot.Incremental, "2026-03-06 12:00:00", ""},
		"settled":                         {both, "2026-03-01 02:00:00", "2026-03-06 12:00:00", "2026-03-06 12:30:00", "", "", "2026-03-06 13:00:00"},
		"the fullest of those at once":    {both, "2026-03-01 02:00:00", "2026-03-08 01:00:00", "2026-03-08 02:00:10", snapshot.Full, "2026-03-08 02:00:00", ""},
		"a missed full is made up":        {both, "2026-03-01 02:00:00", "2026-03-09 01:00:00", "2026-03-09 02:10:00", snapshot.Full, "2026-03-09 02:00:00", ""},
		"a missed full alone":             {both, "2026-03-01 02:00:00", "2026-03-09 02:00:00", "2026-03-09 02:10:00", snapshot.Full, "2026-03-08 02:00:00", ""},
		"many missed are made up once":    {both, "2026-03-08 02:00:00", "2026-03-08 02:00:00", "2026-03-10 14:59:59", snapshot.Incremental, "2026-03-10 14:00:00", ""},
		"a window holds back":             {hours, "", "2026-03-06 07:00:00", "2026-03-06 12:30:00", "", "", "2026-03-06 18:00:00"},
		"after the window":                {hours, "", "2026-03-06 07:00:00", "2026-03-06 18:00:00", snapshot.Incremental, "2026-03-06 18:00:00", ""},
		"before the window":               {hours, "", "2026-03-06 06:00:00", "2026-03-06 07:59:00", snapshot.Incremental, "2026-03-06 07:00:00", ""},
		"a window began meanwhile":        {hours, "", "2026-03-06 06:00:00", "2026-03-06 08:00:00", "", "", "2026-03-06 18:00:00"},
		"nothing is scheduled":            {[]string{"jitter: 0s"}, "", "", "2026-03-06 12:30:00", "", "", ""},
		"a history ahead of the clock":    {both, "2031-03-01 02:00:00", "2031-03-01 02:00:00", "2026-03-06 12:30:00", "", "", "2026-03-06 13:00:00"},
		"a leap day":                      {[]string{`full: "0 0 29 2 *"`, "jitter: 0s"}, "", "", "2026-03-06 12:30:00", snapshot.Full, "2024-02-29 00:00:00", ""},
		"clocks are put forward":          {[]string{`full: "CRON_TZ=Europe/Berlin 30 2 * * *"`, "jitter: 0s"}, "2026-03-28 01:30:00", "", "2026-03-29 12:00:00", "", "", "2026-03-30 00:30:00"},
		"clocks are put back: once":       {[]string{`full: "CRON_TZ=Europe/Berlin 30 3 * * *"`, "jitter: 0s"}, "2026-10-24 01:30:00", "", "2026-10-25 12:00:00", snapshot.Full, "2026-10-25 02:30:00", ""},
		"a differential between the two":  {[]string{`full: "0 0 1 * *"`, `differential: "0 0 * * 0"`, `incremental: "0 0 * * *"`, "jitter: 0s"}, "2026-03-01 00:00:00", "2026-03-07 00:00:00", "2026-03-08 00:00:00", snapshot.Differential, "2026-03-08 00:00:00", ""},
		"what was settled by hand counts": {both, "2026-03-08 03:17:21", "2026-03-08 03:17:21", "2026-03-08 03:59:59", "", "", "2026-03-08 04:00:00"},
	} {
		t.Run(name, func(t *testing.T) {
			h := schedule.History{Full: at(t, tt.full), Incremental: at(t, tt.incremental)}
			h = h.Settle(snapshot.Differential, h.Full)
			run, due, next := schedule.Due(parse(t, tt.lines...), etc, h, at(t, tt.now))
			if due != (tt.typ != "") || run.Type != tt.typ || !run.Due.Equal(at(t, tt.due)) || !next.Equal(at(t, tt.next)) {
				t.Errorf("%v, %+v, next %v", due, run, next)
			}
			if due && run.NotAfter.Before(at(t, tt.now).Add(15*time.Minute)) {
				t.Errorf("not after %v", run.NotAfter)
			}
		})
	}
	if _, due, next := schedule.Due(parse(t, both...), snapshot.Source{Host: "web-1", Name: "x"}, schedule.History{}, at(t, "2026-03-06 12:30:00")); due || !next.IsZero() {
		t.Errorf("a source that is not in the policy: %v, %v", due, next)
	}
}

// TestIDs looks that the id stays when everything but the run changes.
func TestIDs(t *testing.T) {
	p := parse(t, `incremental: "0 * * * *"`)
	edited := parse(t, `incremental: "0 */1 * * *"`, `full: "0 2 1 1 *"`)
	h := schedule.History{Full: at(t, "2026-03-06 09:00:00"), Incremental: at(t, "2026-03-06 11:00:00")}
	first, _, _ := schedule.Due(p, etc, h, at(t, "2026-03-06 12:06:00"))
	again, _, _ := schedule.Due(edited, etc, h, at(t, "2026-03-06 12:59:00"))
	if len(first.ID) != 32 || first.ID != again.ID {
		t.Errorf("ids %q and %q of the same run", first.ID, again.ID)
	}
	if later, _, _ := schedule.Due(p, etc, h, at(t, "2026-03-06 13:06:00")); later.ID == first.ID {
		t.Error("the id of another run is the same")
	}
}

// TestJitter looks that delays are the source's own, within their bounds and spread.
func TestJitter(t *testing.T) {
	p := parse(t, `incremental: "0 * * * *"`)
	noon := at(t, "2026-03-06 12:00:00")
	buckets := [5]int{}
	for i := range 1000 {
		src := snapshot.Source{Host: "web-1", Name: fmt.Sprintf("s%d", i)}
		p.Hosts["web-1"].Sources[src.Name] = p.Hosts["web-1"].Sources["etc"]
		h := schedule.History{Incremental: noon.Add(-time.Hour)}
		_, early, next := schedule.Due(p, src, h, noon.Add(-time.Nanosecond))
		delay := next.Sub(noon)
		if _, due, _ := schedule.Due(p, src, h, next); early || !due || delay < 0 || delay >= 5*time.Minute {
			t.Fatalf("%s: delay %s", src, delay)
		}
		buckets[delay/time.Minute]++
		if _, early, again := schedule.Due(p, src, h, next.Add(-time.Second)); early || !again.Equal(next) {
			t.Fatalf("%s: due before its time: %v, next %v, want %v", src, early, again, next)
		}
	}
	for i, n := range buckets {
		if n < 150 || n > 250 {
			t.Errorf("minute %d has %d of 1000: %v", i, n, buckets)
		}
	}
}

var first = flag.Uint64("seed", 1, "seed of the dice; 0: another one each time")

// TestSimulated lets time pass at random for random schedules and compares with what must hold whatever they are.
func TestSimulated(t *testing.T) {
	seed := *first
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	crons := []string{"* * * * *", "*/7 * * * *", "0 * * * *", "30 4 * * *", "CRON_TZ=Europe/Berlin 30 2 * * *", "0 0 * * 1", "0 5,17 * * *", "0 3 1 * *"}
	windows := []string{"08:00-18:00", "Mon-Fri 22:00-04:00", "CRON_TZ=America/New_York 01:00-01:30"}
	for round := range 60 {
		var lines []string
		for _, name := range []string{"full", "differential", "incremental"} {
			if r.IntN(2) == 0 || name == "incremental" {
				lines = append(lines, fmt.Sprintf("%s: %q", name, crons[r.IntN(len(crons))]))
			}
		}
		if r.IntN(2) == 0 {
			lines = append(lines, fmt.Sprintf("blackout: [%q]", windows[r.IntN(len(windows))]))
		}
		if r.IntN(3) == 0 {
			lines = append(lines, "jitter: "+[]string{"0s", "1m", "1h"}[r.IntN(3)])
		}
		p := parse(t, lines...)
		simulate(t, r, p, at(t, "2026-03-20 00:00:00").Add(time.Duration(round)*36*time.Hour), strings.Join(lines, "; "))
	}
}

func simulate(t *testing.T, r *rand.Rand, p *policy.Policy, now time.Time, name string) {
	t.Helper()
	s := p.Hosts["web-1"].Sources["etc"]
	var h schedule.History
	seen := map[string]bool{}
	var wake time.Time
	for range 400 {
		step := time.Duration(r.Int64N(int64(5 * time.Minute)))
		if r.IntN(20) == 0 {
			step = time.Duration(r.Int64N(int64(50 * time.Hour)))
		}
		now = now.Add(step).Truncate(time.Second)
		run, due, next := schedule.Due(p, etc, h, now)
		if !due {
			if next.IsZero() || !next.After(now) {
				t.Fatalf("%s: at %s nothing is due, ask again at %v", name, now, next)
			}
			wake = next
			continue
		}
		if now.Before(wake) {
			t.Fatalf("%s: due at %s, before %s", name, now, wake)
		}
		wake = time.Time{}
		if seen[run.ID] {
			t.Fatalf("%s: run of %s twice", name, run.Due)
		}
		seen[run.ID] = true
		if open, ok := s.Schedule.Open(now); !ok || open.After(now) {
			t.Fatalf("%s: begins at %s in a blackout window", name, now)
		}
		if run.Due.After(now) || run.NotAfter.Before(now.Add(15*time.Minute)) {
			t.Fatalf("%s: at %s: %+v", name, now, run)
		}
		if settled := h.Settle(run.Type, run.Due); settled == h {
			t.Fatalf("%s: %+v settles nothing", name, run)
		}
		h = h.Settle(run.Type, run.Due)
		if r.IntN(4) == 0 { // settled for later than what was asked for: somebody ran it by hand
			h = h.Settle(run.Type, now)
		}
	}
	if len(seen) == 0 {
		t.Fatalf("%s: nothing was ever due", name)
	}
}

func BenchmarkDue(b *testing.B) {
	p := parse(b, `full: "0 2 1 * *"`, `differential: "CRON_TZ=Europe/Berlin 0 3 * * 0"`, `incremental: "0 * * * *"`)
	now := at(b, "2026-03-06 12:30:00")
	h := schedule.History{}.Settle(snapshot.Full, now)
	for b.Loop() {
		schedule.Due(p, etc, h, now)
	}
}

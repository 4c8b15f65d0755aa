package policy_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

func TestDuration(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration
		out  string
	}{
		{"0s", 0, "0s"},
		{"200ms", 200 * time.Millisecond, "200ms"},
		{"90s", 90 * time.Second, "1m30s"},
		{"15m", 15 * time.Minute, "15m"},
		{"24h", 24 * time.Hour, "1d"},
		{"30d", 720 * time.Hour, "30d"},
		{"12w", 2016 * time.Hour, "84d"},
		{"1w1d1h1m1s1ms", 193*time.Hour + time.Minute + time.Second + time.Millisecond, "8d1h1m1s1ms"},
	} {
		d, err := policy.ParseDuration(tt.in)
		if err != nil || d.Std() != tt.want || d.String() != tt.out {
			t.Errorf("ParseDuration(%q) = %s (%d), %v; want %s", tt.in, d, d, err, tt.out)
		}
		if again, err := policy.ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%s does not round-trip", d)
		}
	}
	for _, in := range []string{"", "5", "h", "1h1h", "1s1m", "-1h", "1.5h", " 1h", "1y", "1H", "999999w", "99999999999999999999s", "9223372036854775807s"} {
		if d, err := policy.ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", in, d)
		}
	}
}

func TestRough(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", -time.Hour: "0s", 250 * time.Millisecond: "250ms", 45700 * time.Millisecond: "45s", 59*time.Minute + 59*time.Second: "59m",
		time.Hour: "1h", 3*time.Hour - time.Second: "2h59m", 123*time.Hour + 59*time.Minute: "5d3h", 2160 * time.Hour: "90d",
	} {
		if got := policy.Duration(d).Rough(); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		out  string
	}{
		{"0", 0, "0"},
		{"512", 512, "512"},
		{"1000", 1000, "1kB"},
		{"10GiB", 10 << 30, "10GiB"},
		{"10GB", 1e10, "10GB"},
		{"1.5KiB", 1536, "1536"},
		{"0.5kB", 500, "500"},
		{"7PiB", 7 << 50, "7PiB"},
		{"1024MiB", 1 << 30, "1GiB"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	} {
		s, err := policy.ParseSize(tt.in)
		if err != nil || int64(s) != tt.want || s.String() != tt.out {
			t.Errorf("ParseSize(%q) = %s (%d), %v; want %s", tt.in, s, s, err, tt.out)
		}
		if again, err := policy.ParseSize(s.String()); err != nil || again != s {
			t.Errorf("%s does not round-trip", s)
		}
	}
	for _, in := range []string{"", "GiB", "1.5", "1.GiB", ".5GiB", "1..2GB", "-1", "10 GB", "10gb", "10Gi", "0.1B", "8192PiB", "1e3"} {
		if s, err := policy.ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %s, want an error", in, s)
		}
	}
}

func TestCron(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct{ spec, after, want string }{
		{"0 2 1 * *", "2026-11-27T12:00:00+09:00", "2026-12-01T02:00:00Z"},
		{"CRON_TZ=Europe/Berlin 0 2 * * *", "2026-07-01T12:00:00Z", "2026-07-02T00:00:00Z"},
		{"CRON_TZ=Europe/Berlin 0 2 * * *", "2026-12-01T12:00:00Z", "2026-12-02T01:00:00Z"},
		// 02:30 does not exist on 29 March 2026 in Berlin.
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"},
		{"  0   3 * *  0 ", "2026-11-27T00:00:00Z", "2026-11-29T03:00:00Z"},
	} {
		c, err := policy.ParseCron(tt.spec)
		if err != nil {
			t.Errorf("%s: %v", tt.spec, err)
			continue
		}
		if got := c.Next(at(tt.after)); !got.Equal(at(tt.want)) {
			t.Errorf("%s after %s: %s, want %s", tt.spec, tt.after, got.UTC(), tt.want)
		}
	}
	for _, spec := range []string{
		"", "TZ=", "TZ=UTC", "CRON_TZ= 0 0 * * *", "TZ=0", "* * * *", "* * * * * *", "@hourly", "@every 1s",
		"60 * * * *", "* * * * 7", "*/0 * * * *", "0 0 30 2 *", "TZ=Local 0 0 * * *", "CRON_TZ=../x 0 0 * * *", "a b c d e",
	} {
		if c, err := policy.ParseCron(spec); err == nil {
			t.Errorf("ParseCron(%q) = %s, want an error", spec, c)
		}
	}
	if !(policy.Cron{}).Next(time.Now()).IsZero() {
		t.Error("the zero schedule fires")
	}
}

// FuzzValues checks that what parses is written so that it parses to the same, and that schedules go forward.
func FuzzValues(f *testing.F) {
	for _, seed := range []string{
		"1d12h", "200ms", "10GiB", "1.5kB", "0 2 1 * *", "CRON_TZ=Europe/Berlin 30 2 * * *", "TZ=America/Sao_Paulo 0 0 * * *",
		"CRON_TZ=", "*/0 * * * *", "1-5/2,7 * * jan mon-fri", "0 0 31 2 *", "TZ=UTC\t* * * * *",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := policy.ParseDuration(s); err == nil {
			if again, err := policy.ParseDuration(d.String()); err != nil || again != d {
				t.Errorf("duration %q: %s, %v", s, again, err)
			}
		}
		if v, err := policy.ParseSize(s); err == nil {
			if again, err := policy.ParseSize(v.String()); err != nil || again != v {
				t.Errorf("size %q: %s, %v", s, again, err)
			}
		}
		c, err := policy.ParseCron(s)
		if err != nil {
			return
		}
		if again, err := policy.ParseCron(c.String()); err != nil || !again.Equal(c) {
			t.Errorf("schedule %q: %s, %v", s, again, err)
		}
		at := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
		for range 3 {
			next := c.Next(at)
			if !next.After(at) {
				t.Fatalf("schedule %q: %s after %s", s, next, at)
			}
			at = next
		}
	})
}

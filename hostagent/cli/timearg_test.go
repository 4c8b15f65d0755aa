package cli

import (
	"testing"
	"time"
)

func TestTimeSpan(t *testing.T) {
	var d time.Duration
	for _, tt := range []struct {
		text string
		want time.Duration
		back string
	}{
		{"7d", 7 * 24 * time.Hour, "7d"},
		{"168h", 7 * 24 * time.Hour, "7d"},
		{"24h0m0s", 24 * time.Hour, "1d"},
		{"1d12h", 36 * time.Hour, "1d12h"},
		{"90s", 90 * time.Second, "1m30s"},
		{"1.5h", 90 * time.Minute, "1h30m"},
		{"10m0s", 10 * time.Minute, "10m"},
		{"100h", 100 * time.Hour, "4d4h"},
		{"20h", 20 * time.Hour, "20h"},
		{"1ns", 1, "1ns"},
		{"-1s", -time.Second, "-1s"},
		{"0", 0, ""},
	} {
		v := span(&d, time.Minute)
		if err := v.Set(tt.text); err != nil || d != tt.want || v.String() != tt.back {
			t.Errorf("%q: %v, %q, %v; want %v, %q", tt.text, d, v.String(), err, tt.want, tt.back)
		}
	}
	for _, text := range []string{"", "7", "d", "1 h", "7x"} {
		if err := span(&d, time.Minute).Set(text); err == nil || d != time.Minute {
			t.Errorf("%q: %v, %v; want an error, and the default", text, d, err)
		}
	}
}

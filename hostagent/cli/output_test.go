package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestHostName(t *testing.T) {
	for name, want := range map[string]string{
		"Web-1.Example.COM": "web-1.example.com", "with space": "with-space", "-lead": "lead", "": "host", "...": "host",
		"access": "host", "bücher": "b-cher", strings.Repeat("x", 80): strings.Repeat("x", 63),
	} {
		got := hostName(name)
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
		if err := (snapshot.Source{Host: got, Name: "s"}).Check(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for path, want := range map[string]string{
		"/etc/hosts":     "/etc/hosts",
		"/a b/ü/日本":      "/a b/ü/日本",
		"/a\nb":          `/a\nb`,
		"/a\x1b[31mred":  `/a\x1b[31mred`,
		"/not\xffutf8":   `/not\xffutf8`,
		`/back\slash`:    `/back\\slash`,
		`/quote"s`:       `/quote"s`,
		"/right\u202eto": `/right\u202eto`,
	} {
		if got := printable(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("here", 2*3600)
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"2026-01-31T09:30:00Z":      time.Date(2026, 1, 31, 9, 30, 0, 0, time.UTC),
		"2026-01-31T09:30:00+05:30": time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC),
		"2026-01-31 09:30":          time.Date(2026, 1, 31, 9, 30, 0, 0, zone),
		"2026-01-31 09:30:15":       time.Date(2026, 1, 31, 9, 30, 15, 0, zone),
		"2026-01-31T09:30":          time.Date(2026, 1, 31, 9, 30, 0, 0, zone),
		"2h":                        now.Add(-2 * time.Hour),
		"30d ago":                   now.Add(-30 * 24 * time.Hour),
	} {
		got, err := parseTime(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-01-31", "09:30", "2026-02-30 09:30", "-2h"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

func TestTable(t *testing.T) {
	tab := newTable("NAME", ">N", "WHY")
	tab.row("ü", "7", "")
	tab.row("longer", "12", "so")
	var out strings.Builder
	tab.write(&out)
	want := "NAME     N  WHY\nü        7\nlonger  12  so\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 1500 * time.Millisecond: "1.5s", 42 * time.Second: "42s", 90 * time.Second: "1m30s",
		25*time.Hour + 5*time.Minute: "25h05m",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestLagText(t *testing.T) {
	for ms, want := range map[float64]string{0.4: "0 ms", 1011.06: "1011 ms", 9999: "9999 ms", 42_000: "42s", 922_526: "15m22s"} {
		if got := lagText(ms); got != want {
			t.Errorf("%v ms: %q, want %q", ms, got, want)
		}
	}
}

func TestModeString(t *testing.T) {
	for want, e := range map[string]snapshot.Entry{
		"-rw-r--r--": {Type: snapshot.File, Mode: 0o644},
		"drwxrwxrwt": {Type: snapshot.Directory, Mode: 0o1777},
		"-rwsr-sr-x": {Type: snapshot.File, Mode: 0o6755},
		"-rwSr--r-T": {Type: snapshot.File, Mode: 0o5644},
		"lrwxrwxrwx": {Type: snapshot.Symlink, Mode: 0o777},
		"c---------": {Type: snapshot.CharDevice},
		"brw-rw----": {Type: snapshot.Device, Mode: 0o660},
		"p---------": {Type: snapshot.FIFO},
	} {
		if got := modeString(&e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

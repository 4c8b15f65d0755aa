package progress_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/progress"
)

const mib = 1 << 20

// run does 20 seconds of work at 1 MiB/s, 2 files/s, of 40 MiB in all.
func run(t *testing.T, mode progress.Mode, width int) string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		m := progress.New(&out, mode, width, time.Now)
		err := m.Run("backup etc", func() error {
			m.Total(80, 40*mib)
			time.Sleep(500 * time.Millisecond) // no step falls on a tick
			for range 20 {
				time.Sleep(time.Second)
				m.Current("/etc/a\x1b[31mname")
				m.Add(2, mib, mib)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	return out.String()
}

func TestPlainLines(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(run(t, progress.Plain, 0)), "\n")
	if len(lines) < 3 || len(lines) > 4 {
		t.Fatalf("want a line every 5 s, got %q", lines)
	}
	last := lines[2]
	for _, want := range []string{"backup etc: 0:15", "of 80 files", "of 40 MiB", "1.0 MiB/s", "left"} {
		if !strings.Contains(last, want) {
			t.Errorf("%q: no %q", last, want)
		}
	}
	if strings.ContainsAny(last, "\r\x1b") {
		t.Errorf("%q: control characters", last)
	}
}

// TestMoreThanAnnounced is work that grew while it was done: nobody knows what the whole is.
func TestMoreThanAnnounced(t *testing.T) {
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		m := progress.New(&out, progress.Plain, 0, time.Now)
		err := m.Run("copy", func() error {
			m.Total(0, mib)
			m.Add(0, 3*mib, 0)
			time.Sleep(6 * time.Second)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	line := out.String()
	if !strings.HasPrefix(line, "copy: 0:05, 3.0 MiB") || strings.Contains(line, " of ") || strings.Contains(line, "%") || strings.Contains(line, "left") {
		t.Errorf("%q", line)
	}
}

func TestTerminalIsOneLine(t *testing.T) {
	const width = 60
	out := run(t, progress.Terminal, width)
	if strings.Contains(out, "\n") {
		t.Error("more than one line")
	}
	if !strings.HasSuffix(out, "\r\x1b[K") {
		t.Errorf("the line is left behind: %q", out[len(out)-20:])
	}
	for _, line := range strings.Split(out, "\r\x1b[K") {
		if n := len([]rune(line)); n >= width {
			t.Errorf("%q: %d columns on a terminal of %d", line, n, width)
		}
		if strings.Contains(line, "\x1b") {
			t.Errorf("%q: a file's name reaches the terminal unescaped", line)
		}
	}
}

func TestJSONLines(t *testing.T) {
	var last struct {
		Progress   string   `json:"progress"`
		Bytes      uint64   `json:"bytes"`
		TotalBytes uint64   `json:"total_bytes"`
		Rate       uint64   `json:"bytes_per_second"`
		Left       *float64 `json:"seconds_left"`
	}
	for _, line := range strings.Split(strings.TrimSpace(run(t, progress.JSON, 0)), "\n") {
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	if last.Progress != "backup etc" || last.TotalBytes != 40*mib || last.Bytes < 18*mib || last.Rate != mib || last.Left == nil || *last.Left > 22 {
		t.Errorf("last line: %+v", last)
	}
}

func TestOffIsSilentAndErrorsPass(t *testing.T) {
	var out bytes.Buffer
	m := progress.New(&out, progress.Off, 80, time.Now)
	want := errors.New("broken")
	if err := m.Run("x", func() error { m.Add(1, 2, 3); return want }); !errors.Is(err, want) {
		t.Error(err)
	}
	if out.Len() > 0 || m.Done() != (progress.Counts{Files: 1, Bytes: 2, Read: 3}) {
		t.Errorf("%q, %+v", out.String(), m.Done())
	}
}

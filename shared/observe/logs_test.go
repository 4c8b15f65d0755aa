package observe

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
)

// TestLogUntil tells how far a log counts as written from what its agent said last, and when.
func TestLogUntil(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const silence = 5 * time.Minute
	for name, c := range map[string]struct {
		heard time.Time
		log   *compliance.Log
		want  time.Time
	}{
		"nothing is said":                 {ago(time.Minute), nil, time.Time{}},
		"all is well":                     {ago(time.Minute), &compliance.Log{Well: true, Until: ago(time.Minute)}, now},
		"idle, and WAL comes in segments": {ago(time.Minute), &compliance.Log{Well: true, Until: ago(9 * time.Hour)}, now},
		"all was well, then silence":      {ago(time.Hour), &compliance.Log{Well: true, Until: ago(time.Hour)}, ago(time.Hour)},
		"it is not written":               {ago(time.Minute), &compliance.Log{Until: ago(time.Hour)}, ago(time.Hour)},
		"it catches up":                   {ago(time.Minute), &compliance.Log{Well: true, Behind: true, Until: ago(time.Hour)}, ago(time.Hour)},
		"its clock is ahead":              {ago(time.Minute), &compliance.Log{Well: true, Until: now}, now},
	} {
		t.Run(name, func(t *testing.T) {
			h := &HostMemory{Heard: c.heard}
			if got := h.logUntil(c.log, silence, now); !got.Equal(c.want) {
				t.Errorf("it counts until %s, want %s", got, c.want)
			}
		})
	}
}

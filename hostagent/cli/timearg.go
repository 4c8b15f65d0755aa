package cli

import (
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

const timeForms = `2026-01-31T09:30:00Z, "2026-01-31 09:30" (local time) or an age such as 2h or 30d`

// parseTime parses a point in time: RFC 3339, a local date and time, or how long ago it was.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if d, err := policy.ParseDuration(strings.TrimSuffix(s, " ago")); err == nil {
		return now.Add(-d.Std()), nil
	}
	return time.Time{}, hinted{usagef("time %q is not one", s), "want " + timeForms}
}

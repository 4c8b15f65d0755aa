package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

const timeForms = `2026-01-31T09:30:00Z, "2026-01-31 09:30" (local time) or an age such as 2h or 30d`

// timeSpan is a flag for a length of time, in the forms of the policy (30d, 12h) as well as in those of Go (1h30m, 1.5h).
type timeSpan struct{ to *time.Duration }

// span makes a flag of d, which holds its default.
func span(d *time.Duration, value time.Duration) timeSpan {
	*d = value
	return timeSpan{d}
}

// Set parses a length of time.
func (t timeSpan) Set(s string) error {
	if d, err := policy.ParseDuration(s); err == nil {
		*t.to = d.Std()
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("want a time such as 90s, 15m, 2h or 7d")
	}
	*t.to = d
	return nil
}

// String writes it in whole days where it is more than one of them.
func (t timeSpan) String() string {
	switch {
	case t.to == nil || *t.to == 0:
		return "" // a zero is no default to show
	case *t.to >= 24*time.Hour && *t.to%time.Millisecond == 0:
		return policy.Duration(*t.to).String()
	}
	return shortSpan(*t.to)
}

// shortSpan leaves out the zeros of "24h0m0s".
func shortSpan(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Type is the kind of value.
func (timeSpan) Type() string { return "time" }

// parseTime parses a point in time: RFC 3339, a date and time with an offset as PostgreSQL writes it, a local date and time, or how long ago it was.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	// As PostgreSQL writes them: with an offset, whole hours or not.
	for _, layout := range []string{"2006-01-02 15:04:05Z07", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04Z07", "2006-01-02 15:04Z07:00", "2006-01-02T15:04:05Z07"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if d, err := policy.ParseDuration(strings.TrimSuffix(s, " ago")); err == nil {
		return now.Add(-d.Std()), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		// Not midnight, nor the day's last moment: what was meant decides which state comes back.
		noon := t.Add(12 * time.Hour)
		return time.Time{}, hinted{
			usagef("time %q is a date alone", s),
			fmt.Sprintf(`a time of day is needed as well, such as %q (local time) or %s`, noon.Format("2006-01-02 15:04"), noon.Format("2006-01-02T15:04:05Z")),
		}
	}
	return time.Time{}, hinted{usagef("time %q is not one", s), "want " + timeForms}
}

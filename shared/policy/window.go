package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Window is a time of day, on all or on some days of the week, in which no backup begins: "08:00-18:00",
// "Mon-Fri 08:00-18:00", "CRON_TZ=Europe/Berlin Sat,Sun 22:00-04:00". A window whose end is not after its begin ends on
// the day after. Without a zone, times are UTC, as those of [Cron].
type Window struct {
	spec     string
	days     [7]bool // on which it begins; index time.Weekday
	from, to int     // minutes of the day; to <= from: of the day after
	zone     *time.Location
}

const dayMinutes = 24 * 60

var errWindow = errors.New(`want "08:00-18:00", optionally after days ("Mon-Fri", "Sat,Sun") and, before them, CRON_TZ=Zone`)

// ParseWindow parses a window.
func ParseWindow(spec string) (Window, error) {
	words := strings.Fields(spec)
	spec = strings.Join(words, " ")
	fail := func() (Window, error) { return Window{}, fmt.Errorf("window %q: %w", shorten(spec), errWindow) }
	w := Window{spec: spec, zone: time.UTC}
	if len(words) > 0 {
		for _, mark := range []string{"CRON_TZ=", "TZ="} {
			name, ok := strings.CutPrefix(words[0], mark)
			if !ok {
				continue
			}
			if name == "" {
				return fail()
			}
			zone, err := loadZone(name)
			if err != nil {
				return Window{}, fmt.Errorf("window %q: %w", shorten(spec), err)
			}
			w.zone, words = zone, words[1:]
			break
		}
	}
	switch len(words) {
	case 1:
		w.days = [7]bool{true, true, true, true, true, true, true}
	case 2:
		if !parseDays(&w.days, words[0]) {
			return fail()
		}
	default:
		return fail()
	}
	from, to, ok := strings.Cut(words[len(words)-1], "-")
	var ok1, ok2 bool
	w.from, ok1 = parseClock(from)
	w.to, ok2 = parseClock(to)
	if !ok || !ok1 || !ok2 || w.from == dayMinutes || w.from == w.to {
		return fail()
	}
	return w, nil
}

// parseDays reads a list of days and ranges of days.
func parseDays(days *[7]bool, text string) bool {
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		a, ok := parseDay(first)
		if !ok {
			return false
		}
		b := a
		if ranged {
			if b, ok = parseDay(last); !ok {
				return false
			}
		}
		for d := a; ; d = (d + 1) % 7 {
			days[d] = true
			if d == b {
				break
			}
		}
	}
	return true
}

func parseDay(text string) (int, bool) {
	for d := range 7 {
		if strings.EqualFold(text, time.Weekday(d).String()[:3]) {
			return d, true
		}
	}
	return 0, false
}

// parseClock reads HH:MM as minutes of the day; 24:00 is the day's end.
func parseClock(text string) (int, bool) {
	if len(text) != 5 || text[2] != ':' {
		return 0, false
	}
	h, err1 := strconv.ParseUint(text[:2], 10, 8)
	m, err2 := strconv.ParseUint(text[3:], 10, 8)
	minutes := int(h)*60 + int(m)
	return minutes, err1 == nil && err2 == nil && m < 60 && minutes <= dayMinutes
}

// End returns the end of the window if t is in it.
func (w Window) End(t time.Time) (time.Time, bool) {
	if w.zone == nil {
		return time.Time{}, false
	}
	local := t.In(w.zone)
	year, month, day := local.Date()
	for back := range 2 { // a window of yesterday may reach into today
		begins := time.Date(year, month, day-back, 0, 0, 0, 0, w.zone)
		if !w.days[begins.Weekday()] {
			continue
		}
		ends := day - back
		if w.to <= w.from {
			ends++
		}
		from := time.Date(year, month, day-back, 0, w.from, 0, 0, w.zone)
		to := time.Date(year, month, ends, 0, w.to, 0, 0, w.zone)
		if !t.Before(from) && t.Before(to) {
			return to, true
		}
	}
	return time.Time{}, false
}

// Equal reports whether two windows are written alike.
func (w Window) Equal(o Window) bool { return w.spec == o.spec }

func (w Window) String() string { return w.spec }

// MarshalText writes the window as it was read.
func (w Window) MarshalText() ([]byte, error) { return []byte(w.spec), nil }

// UnmarshalText parses a window.
func (w *Window) UnmarshalText(text []byte) (err error) {
	*w, err = ParseWindow(string(text))
	return err
}

// Open returns the first time from t on at which the schedule's blackout windows let a backup begin; false if they
// never do.
func (s Schedule) Open(t time.Time) (time.Time, bool) {
	// Each step leaves a window; windows repeat by the week, so that more steps than there can be ends of windows in a
	// week lead nowhere.
	for range 8*len(s.Blackout) + 1 {
		inside := false
		for _, w := range s.Blackout {
			if end, ok := w.End(t); ok {
				t, inside = end, true
			}
		}
		if !inside {
			return t, true
		}
	}
	return time.Time{}, false
}

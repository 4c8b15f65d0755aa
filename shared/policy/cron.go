package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Cron is a schedule of five fields (minute, hour, day of month, month, day of week), optionally preceded by CRON_TZ=
// or TZ= and a time zone. Without one, times are UTC, so that a policy means the same on every host. The zero value
// never fires.
type Cron struct {
	spec     string
	schedule cron.Schedule
	zoned    bool
}

var errCron = errors.New(`want five fields "minute hour day-of-month month day-of-week", optionally after CRON_TZ=Zone`)

// ParseCron parses a schedule and refuses one that never fires.
func ParseCron(spec string) (Cron, error) {
	spec = strings.Join(strings.Fields(spec), " ")
	rest, zoned := spec, false
	if zone, after, ok := strings.Cut(spec, " "); strings.HasPrefix(spec, "CRON_TZ=") || strings.HasPrefix(spec, "TZ=") {
		_, zone, _ = strings.Cut(zone, "=")
		// The cron library panics on a zone without fields and takes an empty zone for UTC.
		if !ok || zone == "" {
			return Cron{}, fmt.Errorf("schedule %q: %w", spec, errCron)
		}
		if _, err := loadZone(zone); err != nil {
			return Cron{}, fmt.Errorf("schedule %q: %w", spec, err)
		}
		rest, zoned = after, true
	}
	if len(strings.Fields(rest)) != 5 {
		return Cron{}, fmt.Errorf("schedule %q: %w", spec, errCron)
	}
	parser := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	schedule, err := parser.Parse(spec)
	if err != nil {
		return Cron{}, fmt.Errorf("schedule %q: %w", spec, err)
	}
	c := Cron{spec: spec, schedule: schedule, zoned: zoned}
	if c.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, fmt.Errorf("schedule %q: no such date: it would never run", spec)
	}
	return c, nil
}

// loadZone loads a time zone by name. "Local" is refused: a policy must mean the same everywhere.
func loadZone(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, errors.New(`time zone "Local": name the zone, for example Europe/Berlin`)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q: not known; want a name like Europe/Berlin", name)
	}
	return loc, nil
}

// IsZero reports that nothing is scheduled.
func (c Cron) IsZero() bool { return c.schedule == nil }

// Next returns the first time after t at which the schedule fires; the zero time if it never does. Where clocks are put
// forward, a time that does not exist is left out that day.
func (c Cron) Next(t time.Time) time.Time {
	if c.schedule == nil {
		return time.Time{}
	}
	if !c.zoned {
		t = t.UTC()
	}
	return c.schedule.Next(t)
}

// Equal reports whether two schedules are written alike.
func (c Cron) Equal(o Cron) bool { return c.spec == o.spec }

func (c Cron) String() string { return c.spec }

// MarshalText writes the specification.
func (c Cron) MarshalText() ([]byte, error) { return []byte(c.spec), nil }

// UnmarshalText parses a specification.
func (c *Cron) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCron(string(text))
	return err
}

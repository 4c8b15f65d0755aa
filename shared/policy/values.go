package policy

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written like 90s, 15m, 2h, 30d, 12w or 1d12h. A day has 24 hours.
type Duration time.Duration

type durationUnit struct {
	name   string
	length time.Duration
}

// durationUnits returns the units, longest first; String writes no weeks, so that 30d stays 30d and 14d is not 2w.
func durationUnits() []durationUnit {
	return []durationUnit{
		{"w", 7 * 24 * time.Hour},
		{"d", 24 * time.Hour},
		{"h", time.Hour},
		{"m", time.Minute},
		{"s", time.Second},
		{"ms", time.Millisecond},
	}
}

var errDuration = errors.New("want a duration like 90s, 15m, 2h, 30d or 12w (units ms s m h d w)")

// ParseDuration parses a duration. Units go from long to short and each occurs at most once.
func ParseDuration(s string) (Duration, error) {
	fail := func() (Duration, error) { return 0, fmt.Errorf("duration %q: %w", s, errDuration) }
	if s == "" {
		return fail()
	}
	var total time.Duration
	rest, units := s, durationUnits()
	for rest != "" {
		digits := 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			digits++
		}
		letters := digits
		for letters < len(rest) && rest[letters] >= 'a' && rest[letters] <= 'z' {
			letters++
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil {
			return fail()
		}
		i := 0
		for i < len(units) && units[i].name != rest[digits:letters] {
			i++
		}
		if i == len(units) {
			return fail()
		}
		if n > int64((math.MaxInt64-total)/units[i].length) {
			return 0, fmt.Errorf("duration %q: longer than 292 years", s)
		}
		total += time.Duration(n) * units[i].length
		rest, units = rest[letters:], units[i+1:]
	}
	return Duration(total), nil
}

// String writes the duration so that ParseDuration gives it back (down to milliseconds).
func (d Duration) String() string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	rest := time.Duration(d)
	for _, u := range durationUnits()[1:] {
		if n := rest / u.length; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			rest -= n * u.length
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

// Rough writes the duration for people, in at most two neighbouring units: 45s, 59m, 2h59m, 5d3h.
func (d Duration) Rough() string {
	units := durationUnits()[1:]
	for i, u := range units {
		if d.Std() < u.length {
			continue
		}
		if u.length <= time.Minute { // minutes and below say enough alone
			return Duration(d.Std().Truncate(u.length)).String()
		}
		return Duration(d.Std().Truncate(units[i+1].length)).String()
	}
	return "0s"
}

// Std returns the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalText writes the duration as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses what MarshalText wrote.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// Size is a number of bytes, written like 512, 10GiB or 10GB.
type Size int64

type sizeUnit struct {
	name  string
	bytes int64
}

// sizeUnits returns the units, largest first, binary before decimal.
func sizeUnits() []sizeUnit {
	return []sizeUnit{
		{"PiB", 1 << 50},
		{"TiB", 1 << 40},
		{"GiB", 1 << 30},
		{"MiB", 1 << 20},
		{"KiB", 1 << 10},
		{"PB", 1e15},
		{"TB", 1e12},
		{"GB", 1e9},
		{"MB", 1e6},
		{"kB", 1e3},
		{"KB", 1e3},
		{"B", 1},
		{"", 1},
	}
}

var errSize = errors.New("want bytes or a size like 10GiB or 10GB (units B kB MB GB TB PB KiB MiB GiB TiB PiB)")

// ParseSize parses a size. A fraction is allowed before a unit if the result is whole bytes.
func ParseSize(s string) (Size, error) {
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(s)
	}
	number, unit := s[:end], s[end:]
	whole, fraction, dotted := strings.Cut(number, ".")
	if whole == "" || len(number) > 32 || (dotted && (fraction == "" || strings.Contains(fraction, "."))) {
		return 0, fmt.Errorf("size %q: %w", s, errSize)
	}
	for _, u := range sizeUnits() {
		if u.name != unit {
			continue
		}
		r, ok := new(big.Rat).SetString(number)
		if !ok {
			return 0, fmt.Errorf("size %q: %w", s, errSize)
		}
		r.Mul(r, new(big.Rat).SetInt64(u.bytes))
		switch {
		case !r.IsInt():
			return 0, fmt.Errorf("size %q: not a whole number of bytes", s)
		case !r.Num().IsInt64():
			return 0, fmt.Errorf("size %q: larger than 8 EiB", s)
		}
		return Size(r.Num().Int64()), nil
	}
	return 0, fmt.Errorf("size %q: %w", s, errSize)
}

// String writes the size exactly, in the unit that makes the shortest number.
func (s Size) String() string {
	best := strconv.FormatInt(int64(s), 10)
	if s <= 0 {
		return best
	}
	short := len(best)
	for _, u := range sizeUnits() {
		if len(u.name) < 2 || int64(s)%u.bytes != 0 {
			continue
		}
		if digits := strconv.FormatInt(int64(s)/u.bytes, 10); len(digits) < short {
			short, best = len(digits), digits+u.name
		}
	}
	return best
}

// MarshalText writes the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses what MarshalText wrote.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

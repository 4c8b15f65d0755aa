package recovery

import (
	"fmt"
	"time"
)

// ColdClass is a storage class of S3 that costs money, or time as well, to read from.
type ColdClass string

// The classes.
const (
	Instant  ColdClass = "glacier-instant"  // read at once
	Flexible ColdClass = "glacier-flexible" // thawed first
	Deep     ColdClass = "deep-archive"     // thawed first
)

// Speed is how fast things are thawed.
type Speed string

// The speeds.
const (
	Standard Speed = "standard" // also where none is named
	Bulk     Speed = "bulk"     // slower and cheaper
)

// Cold is what of a snapshot lies in one such class.
type Cold struct {
	Class   ColdClass `json:"class"`
	Objects int       `json:"objects"`
	Bytes   int64     `json:"bytes"`
	Thawed  int       `json:"thawed,omitempty"` // objects of these that can be read already
	Asked   int       `json:"asked,omitempty"`  // objects that are being thawed
}

// waits reports whether something must still be thawed.
func (c Cold) waits() bool { return c.Class != Instant && c.Thawed < c.Objects }

// rate is what reading from a class takes.
type rate struct {
	time     time.Duration // the longest that AWS names as typical
	gb       float64       // US dollars for a GB
	requests float64       // US dollars for 1,000
}

// rates are by https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html (times) and
// https://aws.amazon.com/s3/pricing/ (us-east-1, prices of 2026 as other pages repeat them, see docs/cost.md).
func rates(c ColdClass, s Speed) rate {
	switch {
	case c == Instant:
		return rate{gb: 0.03, requests: 0.01}
	case c == Flexible && s == Bulk:
		return rate{time: 12 * time.Hour}
	case c == Flexible:
		return rate{time: 5 * time.Hour, gb: 0.01, requests: 0.05}
	case s == Bulk:
		return rate{time: 48 * time.Hour, gb: 0.0025, requests: 0.025}
	}
	return rate{time: 12 * time.Hour, gb: 0.02, requests: 0.10}
}

// copyPrice is what a GB of thawed copies costs in a month: they lie in S3 Standard as long as they are there.
const copyPrice = 0.023

// Thawing is what it takes to read what is cold, by list prices of us-east-1. What the transfer to the host costs, which
// depends on where it is, is not in it.
type Thawing struct {
	Speed  Speed         `json:"speed"`
	Cold   []Cold        `json:"cold"`
	Time   time.Duration `json:"time_ns"` // until all of it can be read
	Days   int           `json:"days"`    // for which the copies stay
	Dollar float64       `json:"usd"`
}

// Thaw says what it takes to read what is cold, with copies that stay for days; nil if nothing is.
func Thaw(cold []Cold, speed Speed, days int) *Thawing {
	if len(cold) == 0 {
		return nil
	}
	if speed == "" {
		speed = Standard
	}
	t := &Thawing{Speed: speed, Cold: cold, Days: days}
	for _, c := range cold {
		r := rates(c.Class, speed)
		share := float64(c.Objects)
		if c.Class != Instant && c.Objects > 0 {
			share = float64(c.Objects - c.Thawed - c.Asked) // the others are paid for
		}
		gb := float64(c.Bytes) / 1e9 * share / float64(max(1, c.Objects))
		t.Dollar += gb*r.gb + share/1000*r.requests
		if c.Class == Instant {
			continue
		}
		t.Dollar += float64(c.Bytes) / 1e9 * copyPrice * float64(days) / 30
		if c.waits() {
			t.Time = max(t.Time, r.time)
		}
	}
	return t
}

// Space is how much room there is for what is restored.
type Space struct {
	Path string    `json:"path"` // a directory on the same file system as the target, as the agent named it
	Free int64     `json:"free_bytes"`
	Time time.Time `json:"time"` // when the agent looked
}

// Lacks says what is wrong with the room for a number of bytes; empty: nothing.
func (s *Space) Lacks(bytes int64) string {
	switch {
	case s == nil:
		return "how much room there is at the target is not known: no agent has told"
	case s.Free < bytes:
		return fmt.Sprintf("%d bytes are to be written and %d were free at %s when the agent looked at %s", bytes, s.Free, s.Path, stamp(s.Time))
	}
	return ""
}

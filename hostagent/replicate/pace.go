package replicate

import "time"

const (
	// MinInterval is the shortest interval at which records are shipped.
	MinInterval = 10 * time.Millisecond
	// MaxInterval is the longest one.
	MaxInterval = time.Hour
	// gather is how long the first commit after a pause waits for others.
	gather = 2 * time.Millisecond
)

// Pace says when to ship. It does no I/O and is told the time.
type Pace struct {
	Interval time.Duration

	cut time.Time     // of the last record; zero: none yet
	put time.Duration // about how long it takes until a record is durable
}

// Due is when the record that holds a commit seen at oldest is to be cut: as long after the last one as lets its oldest
// commit be durable within the interval.
func (p *Pace) Due(oldest time.Time) time.Time {
	at := oldest.Add(min(gather, p.Interval/4))
	if p.cut.IsZero() {
		return at
	}
	period := max(p.Interval-p.put, p.Interval/2)
	if next := p.cut.Add(period); next.After(at) {
		return next
	}
	return at
}

// Cut notes that a record is cut now.
func (p *Pace) Cut(now time.Time) { p.cut = now }

// Shipped notes that the record that was cut last is durable now.
func (p *Pace) Shipped(now time.Time) { p.Took(now.Sub(p.cut)) }

// Took notes how long it took from the cut of a record until that was durable.
func (p *Pace) Took(took time.Duration) {
	if p.put == 0 {
		p.put = took
		return
	}
	p.put += (took - p.put) / 8
}

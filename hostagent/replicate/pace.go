package replicate

import "time"

const (
	// MinInterval is the shortest interval at which records are shipped.
	MinInterval = 10 * time.Millisecond
	// MaxInterval is the longest one.
	MaxInterval = time.Hour
	// busyTick is the longest time between two looks at a database in which something happens: an application's
	// checkpoint that empties the log between two of them costs a snapshot.
	busyTick = 5 * time.Millisecond
	// idleTick is the longest time between two looks at an idle one.
	idleTick = 250 * time.Millisecond
	// gather is how long the first commit after a pause waits for others.
	gather = 2 * time.Millisecond
)

// pace says when to look at the database and when to ship. It does no I/O and is told the time.
type pace struct {
	interval time.Duration
	tick     time.Duration // the last
	cut      time.Time     // of the last record; zero: none yet
	put      time.Duration // about how long it takes until a record is durable
}

// next is how long to wait after a look that found so many commits.
func (p *pace) next(commits int) time.Duration {
	shortest := min(max(p.interval/20, time.Millisecond), busyTick)
	if commits > 0 || p.tick == 0 {
		p.tick = shortest
		return p.tick
	}
	// Transactions come in bursts: two seconds without one before looking less often makes no difference in CPU time.
	p.tick = min(p.tick+p.tick/8+time.Microsecond, max(shortest, min(p.interval/4, idleTick)))
	return p.tick
}

// due is when the record that holds a commit seen at oldest is to be cut: as long after the last one as lets its oldest
// commit be durable within the interval.
func (p *pace) due(oldest time.Time) time.Time {
	at := oldest.Add(min(gather, p.interval/4))
	if p.cut.IsZero() {
		return at
	}
	period := max(p.interval-p.put, p.interval/2)
	if next := p.cut.Add(period); next.After(at) {
		return next
	}
	return at
}

// shipped notes that a record that was cut then took so long to become durable.
func (p *pace) shipped(took time.Duration) {
	if p.put == 0 {
		p.put = took
		return
	}
	p.put += (took - p.put) / 8
}

package sqlite

import "time"

const (
	// busyTick is the longest time between two looks at a database in which something happens: an application's
	// checkpoint that empties the log between two of them costs a snapshot.
	busyTick = 5 * time.Millisecond
	// idleTick is the longest time between two looks at an idle one that is not heard of.
	idleTick = 250 * time.Millisecond
)

// pace says when to look at the database. It does no I/O.
type pace struct {
	interval time.Duration
	tick     time.Duration // the last
}

// next is how long to wait after a look that found so many commits.
func (p *pace) next(commits int) time.Duration {
	if commits > 0 || p.tick == 0 {
		p.tick = p.shortest()
		return p.tick
	}
	// Transactions come in bursts: two seconds without one before looking less often makes no difference in CPU time.
	p.tick = min(p.tick+p.tick/8+time.Microsecond, p.longest())
	return p.tick
}

func (p *pace) shortest() time.Duration {
	return min(max(p.interval/20, time.Millisecond), busyTick)
}

func (p *pace) longest() time.Duration { return max(p.shortest(), min(p.interval/4, idleTick)) }

package retention

import (
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

// LogWithin is for how long every moment of a source with a log stays restorable where the rules say nothing
// (keep_within).
const LogWithin = 7 * 24 * time.Hour

// LogBase is the snapshot from which on the log of a source must stay so that every moment within keep_within can be
// restored: the newest that is older, holds a place in the log, and is verified and complete, for what is not must never
// displace what is. It is false where all of the log must stay: without rules, or without such a snapshot. [Plan] keeps
// that snapshot.
func LogBase(snapshots []Snapshot, rules policy.Retention, now time.Time) (sequence uint64, ok bool) {
	if rules.Empty() || len(snapshots) == 0 {
		return 0, false
	}
	newest := slices.MaxFunc(snapshots, func(a, b Snapshot) int {
		if a.Sequence < b.Sequence {
			return -1
		}
		return 1
	})
	from := newest.Time
	if now.Before(from) {
		from = now
	}
	from = from.Add(-logWithin(rules))
	for i := range snapshots {
		s := &snapshots[i]
		if s.Log && s.Verified && !s.Partial && !s.Unfinished && !s.Time.After(from) && s.Sequence > sequence {
			sequence = s.Sequence
		}
	}
	return sequence, sequence != 0
}

func logWithin(rules policy.Retention) time.Duration {
	if rules.KeepWithin > 0 {
		return rules.KeepWithin.Std()
	}
	return LogWithin
}

// logBase keeps the snapshot without which the first moments of the window could not be restored.
func (p *plan) logBase() {
	n, ok := LogBase(p.snapshots, p.rules, p.now)
	for i := range p.snapshots {
		if ok && p.snapshots[i].Sequence == n {
			p.keep(&p.snapshots[i], classes()[0], fmt.Sprintf("base of the log within %s", policy.Duration(logWithin(p.rules))))
		}
	}
}

// LogBase is [LogBase] for all rules in force: those that were replaced less than [Grace] ago count too.
func (r Record) LogBase(snapshots []Snapshot, now time.Time) (sequence uint64, ok bool) {
	sequence, ok = LogBase(snapshots, r.Rules, now)
	for _, old := range r.Replaced {
		if !old.Until.After(now) {
			continue
		}
		n, more := LogBase(snapshots, old.Rules, now)
		sequence, ok = min(sequence, n), ok && more
	}
	return sequence, ok
}

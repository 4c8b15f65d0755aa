package retention

import (
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

// Grace is how long rules stay in force beside those that replace them.
const Grace = 7 * 24 * time.Hour

// Record remembers the rules of a source, so that a policy that keeps less takes effect only after [Grace]. The zero
// value is a source whose rules were never recorded.
//
// The record is small JSON. A caller stores it where the host that is backed up can't shorten it: the control plane in
// its state bucket, the command line in the state directory, one file per repository and source, written by rename
// before anything is condemned. Crash between the two: the next run reads the record and comes to the same plan. A lost
// record costs the waiting time of this step, not the seven days between announcing and deleting.
type Record struct {
	Rules    policy.Retention `json:"rules"`
	Recorded time.Time        `json:"recorded"`           // when Rules came into force
	Replaced []Replaced       `json:"replaced,omitempty"` // earlier rules that still count, oldest first
}

// Replaced is a set of rules that was replaced and counts until a time.
type Replaced struct {
	Rules policy.Retention `json:"rules"`
	Until time.Time        `json:"until"`
}

// Update gives the record after the policy says rules, and whether it differs from r (then it must be stored before the
// plan is acted on). Rules that were replaced longer than Grace ago are forgotten.
func (r Record) Update(rules policy.Retention, now time.Time) (Record, bool) {
	next := Record{Rules: r.Rules, Recorded: r.Recorded}
	changed := false
	for _, old := range r.Replaced {
		if old.Until.After(now) {
			next.Replaced = append(next.Replaced, old)
		} else {
			changed = true
		}
	}
	switch {
	case r.Recorded.IsZero():
		next.Rules, next.Recorded, changed = rules, now, true
	case !r.Rules.Equal(rules):
		next.Replaced = append(next.Replaced, Replaced{Rules: r.Rules, Until: now.Add(Grace)})
		next.Rules, next.Recorded, changed = rules, now, true
	}
	return next, changed
}

// Plan plans with the rules in force and keeps beside that what rules replaced less than Grace ago keep. The warning is
// nil unless such rules keep something that the present ones do not: then the retention was shortened.
func (r Record) Plan(snapshots []Snapshot, now time.Time) ([]Decision, *Shortened, error) {
	decisions, err := Plan(snapshots, r.Rules, now)
	if err != nil {
		return nil, nil, err
	}
	var warning *Shortened
	for _, old := range r.Replaced {
		if !old.Until.After(now) {
			continue
		}
		earlier, err := Plan(snapshots, old.Rules, now)
		if err != nil {
			return nil, nil, err
		}
		for i := range decisions {
			if decisions[i].Keep || !earlier[i].Keep {
				continue
			}
			until := old.Until.UTC().Format(time.RFC3339)
			decisions[i].Keep = true
			decisions[i].Reasons = nil
			for _, reason := range earlier[i].Reasons {
				decisions[i].Reasons = append(decisions[i].Reasons, reason+" (earlier retention, until "+until+")")
			}
			if warning == nil {
				warning = &Shortened{}
			}
			warning.Snapshots++
			warning.Until = later(warning.Until, old.Until)
		}
	}
	return decisions, warning, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Shortened warns that snapshots are kept only because a shortened retention waits.
type Shortened struct {
	Snapshots int       `json:"snapshots"` // that go when the waiting ends
	Until     time.Time `json:"until"`
}

func (s *Shortened) String() string {
	return fmt.Sprintf("retention was shortened: %d snapshots go after %s unless the policy is changed back",
		s.Snapshots, s.Until.UTC().Format(time.RFC3339))
}

// GuardShare is the share of a source's snapshots, in percent, above which a run stops and asks.
const GuardShare = 20

// ErrTooMany is what [TooMany] is.
var ErrTooMany = errors.New("retention would drop too many snapshots")

// TooMany says that a plan would drop more than GuardShare percent of a source's snapshots. The run stops; a person may
// repeat it with a confirmation.
type TooMany struct {
	Drop  int `json:"drop"`  // snapshots that would be condemned now
	Total int `json:"total"` // snapshots of the source that are not condemned
}

func (e *TooMany) Error() string {
	return fmt.Sprintf("plan retention: %d of %d snapshots (%d %%) would go, more than %d %%: confirm to go on",
		e.Drop, e.Total, e.Drop*100/e.Total, GuardShare)
}

// Unwrap makes errors.Is(err, ErrTooMany) hold.
func (e *TooMany) Unwrap() error { return ErrTooMany }

// Guard returns a *[TooMany] if the plan drops more than GuardShare percent of the snapshots that are not condemned yet.
// A single snapshot may always go: otherwise a source with fewer than five could never lose one.
func Guard(decisions []Decision) error {
	drop, total := 0, 0
	for _, d := range decisions {
		if d.Condemned {
			continue
		}
		total++
		if !d.Keep {
			drop++
		}
	}
	if drop <= 1 || drop*100 <= total*GuardShare {
		return nil
	}
	return &TooMany{Drop: drop, Total: total}
}

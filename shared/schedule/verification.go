package schedule

import (
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// The levels at which agents verify: those that need a key.
const (
	Content = "content"
	Restore = "restore"
)

// tryEvery is the longest time between two attempts at a verification that is overdue.
const tryEvery = 24 * time.Hour

// Proof is what receipts show of the verifications of a source at one level.
type Proof struct {
	At     time.Time `json:"at,omitzero"`      // when the newest ended; zero: there is none
	Failed bool      `json:"failed,omitempty"` // it found something wrong
	Tried  time.Time `json:"tried,omitzero"`   // the latest due time at which one was given up; no receipt tells of those
}

// Proofs are those of the levels that need a key.
type Proofs struct {
	Content Proof `json:"content,omitzero"`
	Restore Proof `json:"restore,omitzero"`
}

// Of returns the proof of a level; nil for one that agents are not asked for.
func (p *Proofs) Of(level string) *Proof {
	switch level {
	case Content:
		return &p.Content
	case Restore:
		return &p.Restore
	}
	return nil
}

// Learn takes over what receipts say now. What was given up stays known.
func (p Proofs) Learn(receipts Proofs) Proofs {
	for _, level := range []string{Content, Restore} {
		have, told := p.Of(level), receipts.Of(level)
		have.At, have.Failed = told.At, told.Failed
	}
	return p
}

// GiveUp returns the proofs after a verification that was due was given up.
func (p Proofs) GiveUp(level string, due time.Time) Proofs {
	if at := p.Of(level); at != nil && due.After(at.Tried) {
		at.Tried = due.UTC()
	}
	return p
}

// Since reports whether a verification of the level ended at or after a time.
func (p Proofs) Since(level string, due time.Time) bool {
	at := p.Of(level)
	return at != nil && !at.At.IsZero() && !at.At.Before(due)
}

// Sane is like [History.Sane]: callers that keep proofs keep what it returns.
func (p Proofs) Sane(now time.Time) Proofs {
	return Proofs{Content: p.Content.sane(now), Restore: p.Restore.sane(now)}
}

func (p Proof) sane(now time.Time) Proof {
	for _, at := range []*time.Time{&p.At, &p.Tried} {
		if at.After(now.Add(future)) {
			*at = now.UTC()
		}
	}
	return p
}

// Verification is one verification of a source that is due.
type Verification struct {
	ID       string // of its job, the same whoever asks for it
	Level    string // Content or Restore
	Due      time.Time
	First    time.Time // since when it is due; earlier than Due where attempts were given up. Zero: there was none yet
	NotAfter time.Time // when the next attempt takes its place
}

// interval is how often the policy wants a level; 0: not at all.
func interval(v policy.Verification, level string) time.Duration {
	if level == Restore {
		return v.Restore.Std()
	}
	return v.Content.Std()
}

// DueVerification returns the verification of the source that its agent has to make at now, if there is one, and otherwise
// the time at which to ask again; the zero time where the policy wants none. It is for callers that know that the source
// has a snapshot: without one there is nothing to verify.
//
// A level is due when its newest receipt is as old as the policy allows, less a share of a tenth of that, by which sources
// differ; after one that found something wrong, a day later at the latest, because somebody may have repaired it. One that
// was given up is due again a day later. Where both levels are due, content goes first.
func DueVerification(p *policy.Policy, source snapshot.Source, have Proofs, now time.Time) (v Verification, due bool, next time.Time) {
	s, err := p.Lookup(source.Host, source.Name)
	if err != nil {
		return Verification{}, false, time.Time{}
	}
	now = now.UTC()
	for _, level := range []string{Content, Restore} {
		every := interval(s.Verification, level)
		if every <= 0 {
			continue
		}
		at, first, owed := have.Of(level).sane(now).owed(every, share(source), now)
		if !owed {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		begins, open := s.Schedule.Open(now)
		if !open {
			return Verification{}, false, time.Time{} // the policy is refused where it comes to this
		}
		if begins.After(now) {
			return Verification{}, false, begins.UTC()
		}
		v := Verification{Level: level, Due: at, First: first, NotAfter: now.Add(min(every, tryEvery))}
		v.ID = events.JobID(PolicyName(p), source.String(), at, string(events.Verify), level)
		return v, true, time.Time{}
	}
	return Verification{}, false, next
}

// owed returns when the level is due, or was last, and since when; or, where it is not, when it will be.
func (p Proof) owed(every time.Duration, share float64, now time.Time) (at, first time.Time, owed bool) {
	step := min(every, tryEvery)
	anchor := time.Unix(0, 0).UTC().Add(time.Duration(share * float64(step)).Truncate(time.Second))
	if !p.At.IsZero() {
		wait := every
		if p.Failed {
			wait = step
		}
		anchor = p.At.UTC().Add(wait - time.Duration(share*float64(wait/10))).Truncate(time.Second)
		first = anchor
	}
	if anchor.After(now) {
		return anchor, time.Time{}, false
	}
	at = anchor.Add(now.Sub(anchor) / step * step)
	if !p.Tried.Before(at) {
		return at.Add(step), time.Time{}, false
	}
	return at, first, true
}

package control

import (
	"maps"
	"time"

	"github.com/btcdecoded/holdfast/events"
)

// takePresent notes what a heartbeat says of the present: how the logs are written, and what a person must mend. One that
// was longer under way than what was told last says nothing of it any more; what was told far ahead of when stems from a
// clock that was wrong.
func (h *HostJobs) takePresent(e *events.Heartbeat, when time.Time) bool {
	if behind := h.Told.Sub(when); behind > 0 && behind < 24*time.Hour {
		return false
	}
	changed := h.takeLogs(e, when)
	if mend := clip(e.Problem); mend != h.Mend {
		if h.Mend, changed = mend, true; mend == "" {
			h.Broken = time.Time{}
		} else if h.Broken.IsZero() {
			h.Broken = when.UTC()
		}
	}
	if changed {
		h.Told = when.UTC()
	}
	return changed
}

// takeLogs notes how the logs of the host's sources are written. What changes all the time is written down now and then.
func (h *HostJobs) takeLogs(e *events.Heartbeat, when time.Time) bool {
	lasting := func(l events.Log) events.Log {
		l.Why, l.Next, l.Lag = clip(l.Why), clip(l.Next), 0
		l.Until = reached(l.Until, e.Time, when).Truncate(SeenEvery)
		return l
	}
	same := maps.EqualFunc(h.Logs, e.Logs, func(a, b events.Log) bool {
		b = lasting(b)
		a.Lag, a.Until = 0, a.Until.Truncate(SeenEvery)
		return a.Since.Equal(b.Since) && a.Until.Equal(b.Until) && sameBut(a, b)
	})
	if same {
		return false
	}
	h.Logs = nil
	for name, l := range e.Logs {
		if h.Logs == nil {
			h.Logs = map[string]events.Log{}
		}
		l.Why, l.Next, l.Until = clip(l.Why), clip(l.Next), reached(l.Until, e.Time, when)
		h.Logs[name] = l
	}
	return true
}

// reached is until when a log reaches, of which its host has told by a clock that showed sent when it was when: where that
// is ahead, so is what it says, and an objective would be taken for met for as long as that is.
func reached(until, sent, when time.Time) time.Time {
	if ahead := sent.Sub(when); ahead > skew {
		until = until.Add(-ahead)
	}
	if until.After(when) {
		return when.UTC()
	}
	return until
}

// sameBut compares all but times.
func sameBut(a, b events.Log) bool {
	a.Since, a.Until, b.Since, b.Until = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return a == b
}

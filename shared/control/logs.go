package control

import (
	"maps"
	"time"

	"github.com/btcdecoded/holdfast/events"
)

// takeLogs notes how the logs of the host's sources are written. What changes all the time is written down now and then.
func (h *HostJobs) takeLogs(e *events.Heartbeat) bool {
	lasting := func(l events.Log) events.Log {
		l.Why, l.Next, l.Lag = clip(l.Why), clip(l.Next), 0
		l.Until = l.Until.Truncate(SeenEvery)
		return l
	}
	same := maps.EqualFunc(h.Logs, e.Logs, func(a, b events.Log) bool {
		a, b = lasting(a), lasting(b)
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
		l.Why, l.Next = clip(l.Why), clip(l.Next)
		h.Logs[name] = l
	}
	return true
}

// sameBut compares all but times.
func sameBut(a, b events.Log) bool {
	a.Since, a.Until, b.Since, b.Until = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return a == b
}

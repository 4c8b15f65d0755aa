package observe

import (
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
)

// HostMemory is what is remembered of one host's jobs between readings of its document.
type HostMemory struct {
	Host    string                `json:"host"`
	Known   time.Time             `json:"known"`         // since when the host is expected to answer
	Read    time.Time             `json:"read,omitzero"` // when its document was read
	Heard   time.Time             `json:"heard,omitzero"`
	Problem string                `json:"problem,omitempty"`
	Since   time.Time             `json:"since,omitzero"`
	Refused []compliance.Refused  `json:"refused,omitempty"`
	Mend    string                `json:"mend,omitempty"`
	Broken  time.Time             `json:"broken,omitzero"`
	Sources map[string]JobsMemory `json:"sources,omitempty"` // by name on the host
}

// JobsMemory is what is remembered of one source's jobs.
type JobsMemory struct {
	LastRun *compliance.Run      `json:"last_run,omitempty"`
	Lost    []compliance.LostJob `json:"lost,omitempty"`
	// Unverified is why the agent can't make the verifications that the policy wants; empty: nothing is known to be wrong.
	Unverified string `json:"unverified,omitempty"`
	// Log is how the source's log is written; nil: the agent does not follow it.
	Log *compliance.Log `json:"log,omitempty"`
}

// Jobs condenses the document that the function coordinate keeps of a host; nil where there is none yet.
func Jobs(host string, old *HostMemory, j *control.HostJobs, now time.Time) *HostMemory {
	h := &HostMemory{Host: host, Known: now.UTC(), Read: now.UTC()}
	if old != nil {
		h.Known = old.Known
	}
	if j == nil {
		return h
	}
	h.Heard, h.Problem, h.Since = heard(j, now), j.Problem, j.Since
	h.Mend, h.Broken = j.Mend, j.Broken
	if old != nil && old.Heard.After(h.Heard) {
		h.Heard = old.Heard
	}
	for _, r := range j.Refused {
		// A message that came late or twice is nothing that anybody did: the journal is there for it.
		if r.Code != events.Stale && r.Code != events.Duplicate {
			h.Refused = append(h.Refused, compliance.Refused{Time: r.Time, Code: string(r.Code), Reason: r.Reason})
		}
	}
	slices.SortStableFunc(h.Refused, func(a, b compliance.Refused) int { return b.Time.Compare(a.Time) })
	h.Refused = h.Refused[:min(len(h.Refused), 3)]
	for name, s := range j.Sources {
		if m, told := sourceJobs(s); told {
			if h.Sources == nil {
				h.Sources = map[string]JobsMemory{}
			}
			h.Sources[name] = m
		}
	}
	for name, l := range j.Logs {
		if h.Sources == nil {
			h.Sources = map[string]JobsMemory{}
		}
		m := h.Sources[name]
		m.Log = &compliance.Log{State: l.State, Well: l.Well, Since: l.Since, Why: l.Why, Next: l.Next, Until: l.Until, Behind: l.Behind}
		h.Sources[name] = m
	}
	for name, s := range j.Verify {
		if s == nil || s.State != control.StateFailing {
			continue
		}
		if h.Sources == nil {
			h.Sources = map[string]JobsMemory{}
		}
		m := h.Sources[name]
		m.Unverified = s.Error
		h.Sources[name] = m
	}
	return h
}

// sourceJobs says how the last run of a source ended. One that is to be tried again is not told to have failed: the
// control plane asks again before anybody is woken.
func sourceJobs(s *control.SourceJobs) (m JobsMemory, told bool) {
	if s == nil {
		return m, false
	}
	lost := s.Open != nil && unanswered(s.Open)
	switch {
	case s.State == control.StateFailing:
		m.LastRun = &compliance.Run{Time: s.Since, Error: s.Error}
		if m.LastRun.Error == "" {
			m.LastRun.Error = "every attempt failed"
		}
	case s.State == control.StateLate:
	case s.Last != nil:
		m.LastRun = &compliance.Run{Time: s.Last.Finished}
		if s.Last.Result == events.Failed {
			m.LastRun.Error = s.Last.Error
			if m.LastRun.Error == "" {
				m.LastRun.Error = "the agent gave no reason"
			}
		}
	}
	if lost {
		m.Lost = []compliance.LostJob{{ID: s.Open.ID, Kind: string(s.Open.Kind), Due: s.Open.Due, Lost: s.Open.Asked}}
	}
	return m, m.LastRun != nil || lost
}

// unanswered reports whether a job was asked for again and again and no agent has it: it was never taken, in more than an
// hour, or was taken, then nothing was heard of it, and the next message got no answer either.
func unanswered(j *control.Job) bool {
	const never, again = 3, 1 // messages
	return j.Retry.IsZero() && j.Accepted.IsZero() && (j.Sends > never || j.Losses > 0 && j.Sends > again)
}

// heard is the newest sign of life that the document has. A sign alone is written down now and then, what changed a job
// always. What is ahead of now is a wrong clock's.
func heard(j *control.HostJobs, now time.Time) time.Time {
	at := j.Seen
	later := func(t time.Time) {
		if t.After(at) && !t.After(now) {
			at = t
		}
	}
	for _, all := range []map[string]*control.SourceJobs{j.Sources, j.Verify} {
		for _, s := range all {
			if s == nil {
				continue
			}
			if s.Open != nil {
				later(s.Open.Accepted)
				later(s.Open.Seen)
			}
			if s.Last != nil {
				later(s.Last.Finished)
			}
		}
	}
	return at
}

// Agent is what compliance judges a host's agent by. within must allow for [control.SeenEvery], for the heartbeat's
// interval, and for how often the document is read.
func (h *HostMemory) Agent(within time.Duration) compliance.Agent {
	return compliance.Agent{
		Heard: h.Heard, Known: h.Known, Within: within, Problem: h.Problem, Since: h.Since, Refused: h.Refused, Mend: h.Mend, Broken: h.Broken,
	}
}

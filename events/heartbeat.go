package events

import "time"

// Heartbeat says that an agent lives, what it does, and how each of its sources was backed up last. It is sent every
// five minutes and when the agent starts; what it repeats heals events that were lost.
type Heartbeat struct {
	Version int                `json:"version"`
	Host    string             `json:"host"`
	Agent   string             `json:"agent"` // version of the agent
	Time    time.Time          `json:"time"`
	Running *RunningJob        `json:"running,omitempty"`
	Queued  []string           `json:"queued,omitempty"`  // ids of jobs in the journal that wait, for their begin or to go on
	Sources map[string]LastRun `json:"sources,omitempty"` // by name on the host
	Problem string             `json:"problem,omitempty"` // what a person must mend: the policy file is not in order
	Free    map[string]uint64  `json:"free,omitempty"`    // bytes free, by directory to which restores may write
	Logs    map[string]Log     `json:"logs,omitempty"`    // of the sources that the agent follows, by name on the host
}

// Log is how the log of a source is written that an agent follows.
type Log struct {
	State string    `json:"state"` // in a word
	Well  bool      `json:"well"`  // nothing keeps it from being written
	Since time.Time `json:"since"` // of the state
	Why   string    `json:"why,omitempty"`
	Next  string    `json:"next,omitempty"` // what a person can do
	Until time.Time `json:"until,omitzero"` // all that was committed by then is in the repository
	Lag   float64   `json:"lag_seconds"`    // in which 99 of 100 commits were, lately

	// Behind tells that commits wait that are more than a minute old: it is written, and catches up.
	Behind bool `json:"behind,omitempty"`
}

// RunningJob is the job that an agent is at.
type RunningJob struct {
	Job     string    `json:"job"`
	Source  string    `json:"source,omitempty"`
	Kind    JobKind   `json:"kind"`
	Started time.Time `json:"started"`
	Bytes   uint64    `json:"bytes,omitempty"` // done so far
}

// LastRun is how the newest run of a source ended that the agent knows of.
type LastRun struct {
	Job      string    `json:"job,omitempty"` // empty: it was run by hand
	Kind     JobKind   `json:"kind,omitempty"`
	Type     string    `json:"type,omitempty"`
	Due      time.Time `json:"due,omitzero"`
	Result   Result    `json:"result"`
	Error    string    `json:"error,omitempty"` // without secrets
	Snapshot uint64    `json:"snapshot,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished"`
}

// DecodeHeartbeat reads the detail of an event of type [TypeHeartbeat].
func DecodeHeartbeat(data []byte) (*Heartbeat, error) {
	return decode("heartbeat", data, func(e *Heartbeat) error { return needs("host", e.Host) })
}

package control

import (
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/schedule"
)

// HostJobs is what the control plane knows of one host's jobs: `jobs/<host>.json`. The function coordinate writes it;
// monitor reads it.
type HostJobs struct {
	Version int                    `json:"version"`
	Host    string                 `json:"host"`
	Seen    time.Time              `json:"seen,omitzero"`     // newest sign of life of the agent, exact to SeenEvery
	Agent   string                 `json:"agent,omitempty"`   // the agent's version
	Problem string                 `json:"problem,omitempty"` // why no job reaches the host: its queue is missing
	Since   time.Time              `json:"since,omitzero"`    // since when there is the problem
	Sources map[string]*SourceJobs `json:"sources,omitempty"` // by name on the host
	Refused []Refusal              `json:"refused,omitempty"` // newest refused messages, newest first
}

// SeenEvery is how often a sign of life alone is worth writing the document. Whoever calls a host silent must allow
// for it.
const SeenEvery = 15 * time.Minute

// MaxRefused is how many refusals are remembered.
const MaxRefused = 20

// State is how the jobs of a source go. It says nothing about snapshots: package compliance judges those.
type State string

// The states of a source's jobs.
const (
	StateOK      State = "ok"      // the last run went well, or none is known yet
	StateRunning State = "running" // asked for, and within its limits
	StateWaiting State = "waiting" // due, held back by a limit or a blackout window
	StateLate    State = "late"    // asked for again: lost or failed once
	StateFailing State = "failing" // given up: every attempt at the last run failed
)

// SourceJobs is what is known of one source's jobs.
type SourceJobs struct {
	State    State            `json:"state"`
	Since    time.Time        `json:"since,omitzero"`     // since when the source is in this state
	Error    string           `json:"error,omitempty"`    // why it is late or failing
	Failures int              `json:"failures,omitempty"` // runs given up since the last that went well
	Done     schedule.History `json:"done,omitzero"`      // runs that are settled
	Open     *Job             `json:"open,omitempty"`
	Last     *Ended           `json:"last,omitempty"`
}

// Job is a job that has not ended.
type Job struct {
	ID       string         `json:"id"`    // of this attempt
	First    string         `json:"first"` // of the first attempt
	Kind     events.JobKind `json:"kind"`
	Type     string         `json:"type,omitempty"`
	Due      time.Time      `json:"due"`
	NotAfter time.Time      `json:"not_after"`
	Attempt  int            `json:"attempt,omitempty"`
	Sends    int            `json:"sends"`             // messages put into the queue for this attempt
	Asked    time.Time      `json:"asked"`             // when this attempt was first asked for
	Sent     time.Time      `json:"sent"`              // when its newest message was
	Accepted time.Time      `json:"accepted,omitzero"` // when the agent had it in its journal
	Seen     time.Time      `json:"seen,omitzero"`     // newest sign that the agent has it
	Retry    time.Time      `json:"retry,omitzero"`    // lost or failed: when the next attempt is asked for
	Error    string         `json:"error,omitempty"`   // why the attempt before failed
}

// Ended is how a job ended.
type Ended struct {
	Job      string        `json:"job"`
	Type     string        `json:"type,omitempty"`
	Due      time.Time     `json:"due,omitzero"`
	Result   events.Result `json:"result"`
	Error    string        `json:"error,omitempty"`
	Snapshot uint64        `json:"snapshot,omitempty"`
	Started  time.Time     `json:"started,omitzero"`
	Finished time.Time     `json:"finished"`
	Added    uint64        `json:"added,omitempty"` // bytes
}

// Refusal is a message that an agent did not take.
type Refusal struct {
	Job    string            `json:"job,omitempty"`
	Source string            `json:"source,omitempty"`
	Code   events.RefuseCode `json:"code"`
	Reason string            `json:"reason,omitempty"`
	Time   time.Time         `json:"time"`
}

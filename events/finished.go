package events

import (
	"errors"
	"time"
)

// Result is how a job ended.
type Result string

// The results of jobs.
const (
	OK      Result = "ok"
	Failed  Result = "failed"
	Partial Result = "partial" // there is a snapshot, and something was left out
)

// JobFinished says how a job ended. An agent that gets a job again which it has finished sends the event again, so that
// a lost event heals. Runs of the agent's own schedule are reported alike, with the id that [JobID] gives them.
type JobFinished struct {
	Version    int       `json:"version"`
	Job        string    `json:"job"`
	Host       string    `json:"host"`
	Source     string    `json:"source,omitempty"`
	Kind       JobKind   `json:"kind"`
	Type       string    `json:"type,omitempty"` // what the snapshot became, which may be more than was asked for
	Due        time.Time `json:"due,omitzero"`
	Result     Result    `json:"result"`
	Error      string    `json:"error,omitempty"`    // without secrets
	Snapshot   uint64    `json:"snapshot,omitempty"` // sequence number; 0: there is none
	Started    time.Time `json:"started"`
	Finished   time.Time `json:"finished"`
	BytesAdded uint64    `json:"bytes_added,omitempty"`
	Counts     *Counts   `json:"counts,omitempty"`
}

// Counts is what a job saw.
type Counts struct {
	Files         uint64 `json:"files"`
	Bytes         uint64 `json:"bytes"`
	ReadBytes     uint64 `json:"read_bytes"`
	Errors        uint64 `json:"errors"`
	NotConsistent uint64 `json:"not_consistent"`
}

// DecodeJobFinished reads the detail of an event of type [TypeJobFinished].
func DecodeJobFinished(data []byte) (*JobFinished, error) {
	return decode("job finished", data, func(e *JobFinished) error {
		if !IsID(e.Job) {
			return errors.New("job is not an id")
		}
		return needs("host", e.Host, "kind", string(e.Kind), "result", string(e.Result))
	})
}

package events

import (
	"errors"
	"time"
)

// JobAccepted says that a job is in the agent's journal: it will run, whatever happens to its message.
type JobAccepted struct {
	Version int       `json:"version"`
	Job     string    `json:"job"`
	Host    string    `json:"host"`
	Source  string    `json:"source,omitempty"`
	Kind    JobKind   `json:"kind"`
	Time    time.Time `json:"time"`
}

// DecodeJobAccepted reads the detail of an event of type [TypeJobAccepted].
func DecodeJobAccepted(data []byte) (*JobAccepted, error) {
	return decode("job accepted", data, func(e *JobAccepted) error {
		if !IsID(e.Job) {
			return errors.New("job is not an id")
		}
		return needs("host", e.Host)
	})
}

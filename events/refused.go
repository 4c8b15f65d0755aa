package events

import "time"

// JobRefused says that a message was not taken as a job. Each is reported once.
type JobRefused struct {
	Version int        `json:"version"`
	Job     string     `json:"job,omitempty"` // empty where the message has no id that can be believed
	Host    string     `json:"host"`
	Source  string     `json:"source,omitempty"`
	Kind    JobKind    `json:"kind,omitempty"`
	Code    RefuseCode `json:"code"`
	Reason  string     `json:"reason,omitempty"`
	Time    time.Time  `json:"time"`
}

// DecodeJobRefused reads the detail of an event of type [TypeJobRefused].
func DecodeJobRefused(data []byte) (*JobRefused, error) {
	return decode("job refused", data, func(e *JobRefused) error {
		return needs("host", e.Host, "code", string(e.Code))
	})
}

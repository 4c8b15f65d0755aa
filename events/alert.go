package events

import "time"

// AlertOpened says that something is wrong which was not before. Its detail-type is [TypeAlertOpened].
type AlertOpened struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`    // the same until it is closed
	Cause   string    `json:"cause"` // a word; docs/runbook.md has an anchor for each
	Tier    string    `json:"tier"`
	Host    string    `json:"host,omitempty"`
	Source  string    `json:"source,omitempty"`
	Summary string    `json:"summary"`
	Since   time.Time `json:"since"`
	Time    time.Time `json:"time"`
}

// AlertClosed says that it is over. Its detail-type is [TypeAlertClosed].
type AlertClosed struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Cause   string    `json:"cause"`
	Tier    string    `json:"tier"`
	Host    string    `json:"host,omitempty"`
	Source  string    `json:"source,omitempty"`
	Since   time.Time `json:"since"`
	Time    time.Time `json:"time"`
}

// DecodeAlertOpened reads the detail of an event of type [TypeAlertOpened].
func DecodeAlertOpened(data []byte) (*AlertOpened, error) {
	return decode("alert opened", data, func(e *AlertOpened) error { return needs("id", e.ID, "cause", e.Cause) })
}

// DecodeAlertClosed reads the detail of an event of type [TypeAlertClosed].
func DecodeAlertClosed(data []byte) (*AlertClosed, error) {
	return decode("alert closed", data, func(e *AlertClosed) error { return needs("id", e.ID, "cause", e.Cause) })
}

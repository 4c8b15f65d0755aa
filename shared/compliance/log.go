package compliance

import "time"

// Log is how the log of a continuous source is written, as far as its host knows.
type Log struct {
	State string    `json:"state"`          // in a word
	Well  bool      `json:"well"`           // nothing keeps it from being written
	Since time.Time `json:"since,omitzero"` // of the state
	Why   string    `json:"why,omitempty"`  // it is not well
	Next  string    `json:"next,omitempty"` // what a person can do
	Until time.Time `json:"until,omitzero"` // all that was committed by then is durable; zero: not known

	Behind bool `json:"behind,omitempty"` // commits wait for long: until it has caught up, it reaches no further than Until
}

// log wants the log of a continuous source to be written. How far it may lag is for the RPO to say.
func (e *evaluation) log() {
	l := e.f.Log
	if l == nil {
		return
	}
	if l.Well {
		e.add("log", OK, false, l.Since, "the log is written", "")
		return
	}
	what := "the log is not written: " + l.State
	if l.Why != "" {
		what += ": " + l.Why
	}
	next := l.Next
	if next == "" {
		next = "holdfast agent status"
	}
	e.add("log", LogStopped, true, l.Since, what, next)
}

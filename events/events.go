// Package events has what crosses between the control plane and the agents: jobs on the hosts' queues, events on the
// bus. One file each, with JSON examples in examples/ and published schemas in schemas/.
//
// Jobs are orders and are read strictly: [DecodeJob] refuses what it does not know. Events are hints and are read
// leniently: members that are not known pass, so that a newer agent can talk to an older control plane.
//
// A [Job] goes to the queue of its host as the body of a message. Agents answer with events whose source is
// [AgentSource] of their host and whose detail is [JobAccepted], [JobRefused], [JobFinished] or [Heartbeat]; the control plane's own
// events have the source [SourceControl] and the detail [AlertOpened] or [AlertClosed]. [Envelope] is what EventBridge
// puts around them.
//
// Compatibility: members may be added to events; no member changes its meaning or goes away. A job gets new members
// only where an agent that does not know them must refuse it. The package imports nothing of ours.
package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Version is the version of jobs and events that this package writes, and the only one of jobs that it reads.
const Version = 1

// MaxMessage bounds jobs and events, in bytes.
const MaxMessage = 64 << 10

// What EventBridge calls the source of an event. That of an agent's has the name of its host behind SourceAgent: the rights
// of agents are written with it, so that none can speak for another.
const (
	SourceAgent   = "holdfast.agent."
	SourceControl = "holdfast.control"
)

// AgentSource is the source of the events of a host's agent.
func AgentSource(host string) string { return SourceAgent + host }

// SentBy returns the host whose agent has sent an event, by the event's source; false: no agent has.
func SentBy(source string) (host string, ok bool) {
	host, ok = strings.CutPrefix(source, SourceAgent)
	return host, ok && isName(host)
}

// The detail-types of events.
const (
	TypeJobAccepted = "Holdfast Job Accepted"
	TypeJobRefused  = "Holdfast Job Refused"
	TypeJobFinished = "Holdfast Job Finished"
	TypeHeartbeat   = "Holdfast Heartbeat"
	TypeAlertOpened = "Holdfast Alert Opened"
	TypeAlertClosed = "Holdfast Alert Closed"
)

// Envelope is what EventBridge delivers: an event and what it knows about it. Only the members that Holdfast needs.
type Envelope struct {
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account,omitempty"`
	Time       time.Time       `json:"time"` // whole seconds
	Region     string          `json:"region,omitempty"`
	Detail     json.RawMessage `json:"detail"`
}

// ErrSize says that a message is larger than [MaxMessage].
var ErrSize = errors.New("message is larger than it may be")

// DecodeEnvelope reads what EventBridge delivered.
func DecodeEnvelope(data []byte) (*Envelope, error) {
	if len(data) > 2*MaxMessage {
		return nil, fmt.Errorf("decode event: %w", ErrSize)
	}
	e := &Envelope{}
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	if e.DetailType == "" || e.Source == "" || len(e.Detail) == 0 {
		return nil, errors.New("decode event: no detail-type, source or detail: not from EventBridge")
	}
	return e, nil
}

// decode reads the detail of an event leniently.
func decode[T any](what string, data []byte, check func(*T) error) (*T, error) {
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("decode %s: %w", what, ErrSize)
	}
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	if err := check(v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	return v, nil
}

// needs reports the first of the name-value pairs that has no value.
func needs(pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			return fmt.Errorf("no %s", pairs[i])
		}
	}
	return nil
}

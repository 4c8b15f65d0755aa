package replicate

import (
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// Kinds of events.
const (
	StateChanged = "state"    // State, Why and Hint
	Shipped      = "shipped"  // a record is durable
	Based        = "snapshot" // a snapshot begins a stream
	Missed       = "gap"      // commits may have been missed: Why
	Trouble      = "trouble"  // the store does not take a record; it is tried again
	Promoted     = "timeline" // the cluster was promoted: the log goes on with the WAL of another timeline
	Warned       = "warning"  // Why and Hint: nothing is wrong yet
)

// Event is something that happened to a follower.
type Event struct {
	Time   time.Time `json:"time"`
	Source string    `json:"source"`
	Kind   string    `json:"event"`

	State State  `json:"state,omitempty"`
	Why   string `json:"why,omitempty"`
	Hint  string `json:"hint,omitempty"`

	Place    log.Place `json:"place,omitzero"`
	Until    time.Time `json:"until,omitzero"`    // all that was committed by then is durable
	Point    time.Time `json:"point,omitzero"`    // the record's own time, a little later: who restores to it gets all that is in it
	Commits  int       `json:"commits,omitempty"` // in the record
	Total    uint64    `json:"total,omitempty"`   // commits that records made durable, of this process
	Pages    int       `json:"pages,omitempty"`
	Bytes    int       `json:"bytes,omitempty"`    // of WAL, in the record
	LSN      string    `json:"lsn,omitempty"`      // all WAL before it is durable
	Timeline uint32    `json:"timeline,omitempty"` // of the LSN
	Lag      float64   `json:"lag_ms,omitempty"`   // of the record's oldest commit
	Snapshot uint64    `json:"snapshot,omitempty"`
	Seconds  float64   `json:"seconds,omitempty"`
}

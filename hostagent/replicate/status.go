package replicate

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// State is what a follower is at, or what keeps it from its work. States never change their meaning.
type State string

// The states, besides those in which a database of SQLite can't be followed (package tail), which are taken over as they are.
const (
	Starting   State = "starting"
	Snapshot   State = "snapshot"   // the snapshot that begins a stream is made
	Following  State = "following"  // all is well
	Away       State = "away"       // the store does not take records
	Waiting    State = "waiting"    // something was missed, and the snapshot that makes up for it waits for its time
	Failing    State = "failing"    // the snapshot that begins a stream fails, or the state directory can't be written
	Superseded State = "superseded" // another writer has taken over the stream: this one has stopped
	Stopped    State = "stopped"
)

// States of those that follow a cluster of PostgreSQL.
const (
	Unreached  State = "unreached"  // the server takes no connection, or ends it
	Foreign    State = "foreign"    // the server is another cluster than that of the log: nothing is added
	Behind     State = "behind"     // the server does not have what the log has: a standby that is late, or the primary of before
	Occupied   State = "occupied"   // somebody else uses the slot
	Endangered State = "endangered" // all is followed, but the slot is about to be lost, or to fill the server's disk
)

// Gap is a span of time into which the source can't be restored.
type Gap struct {
	From   time.Time `json:"from"`        // the last point before
	To     time.Time `json:"to,omitzero"` // the first point after it; zero: none yet
	Why    string    `json:"why"`         //
	Missed int       `json:"missed"`      // commits, at least; 0: not known
}

// keptGaps is how many gaps a status tells of.
const keptGaps = 20

// Status is what is known of a follower. It is kept in the state directory, for whoever asks.
type Status struct {
	Path     string        `json:"path"` // of the database, or what a cluster is reached by
	Interval time.Duration `json:"interval_ns"`
	Pid      int           `json:"pid"`
	State    State         `json:"state"`
	Why      string        `json:"why,omitempty"`  // what is wrong
	Hint     string        `json:"hint,omitempty"` // what a person can do
	Since    time.Time     `json:"since"`          // of the state

	Place log.Place `json:"place,omitzero"` // of the newest durable record
	Begun time.Time `json:"begun,omitzero"` // of the stream: its snapshot
	Base  uint64    `json:"base,omitempty"` // number of the snapshot

	// Looked is the time of the last look at the database, or of what a standby had received. All that was committed by then is
	// durable, but for what was committed since Oldest, if that is not zero: a time before the first commit that is not durable,
	// as near as is known; by the server's clock, where a cluster's log is behind.
	Looked time.Time `json:"looked,omitzero"`
	Oldest time.Time `json:"oldest,omitzero"`

	Pending struct {
		Commits int   `json:"commits"`
		Pages   int   `json:"pages"`
		Bytes   int64 `json:"bytes"`
	} `json:"pending"`
	Lag     Lag    `json:"lag"`
	Records uint64 `json:"records"` // of this run
	Commits uint64 `json:"commits"` // of this run, durable
	Gaps    []Gap  `json:"gaps,omitempty"`

	Cluster  *Cluster `json:"cluster,omitempty"`  // of PostgreSQL
	Archived bool     `json:"archived,omitempty"` // its archive_command stores WAL: no process follows it all the time

	Written time.Time `json:"written"`
}

// Until is the time up to which all commits are durable; zero if that is not known.
func (s *Status) Until() time.Time {
	if s.Oldest.IsZero() {
		return s.Looked
	}
	return s.Oldest
}

// pending reports whether something waits to become durable.
func (s *Status) pending() bool { return s.Pending.Commits > 0 || s.Pending.Bytes > 0 }

// Well reports whether nothing keeps the follower from its work.
func (s *Status) Well() bool {
	return s.State == Following || s.State == Starting || s.State == Snapshot
}

const statusFile = "follow.json"

// Read returns the status of a source from its state directory, and whether a process follows it now, or archive_command did
// last; false also where none ever did.
func Read(dir string) (s *Status, alive bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, statusFile))
	if os.IsNotExist(err) {
		return nil, Followed(dir), nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read status: %w", err)
	}
	s = new(Status)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, false, fmt.Errorf("read status: %w", err)
	}
	alive = Followed(dir) || s.Archived
	if !alive && s.State != Superseded && s.State != Stopped {
		s.State, s.Why = Stopped, "no process follows the source"
		s.Hint = "`holdfast agent` follows the sources of the policy, `holdfast replicate` in the foreground"
		s.Since = s.Written
	}
	return s, alive, nil
}

// write replaces the file in one step. After a power cut an old one may be there, or none.
func (s *Status) write(dir string, now time.Time) error {
	s.Written = now.UTC()
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	path := filepath.Join(dir, statusFile)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

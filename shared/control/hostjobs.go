package control

import (
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// HostJobs is what the control plane knows of one host's jobs: `jobs/<host>.json`. The function coordinate writes it,
// by [HostJobs.Follow] and by the methods that take what agents report; monitor reads it.
//
// It can be lost: what agents report next and the manifests in the repository bring back what counts.
type HostJobs struct {
	Version int                    `json:"version"`
	Host    string                 `json:"host"`
	Seen    time.Time              `json:"seen,omitzero"`     // newest sign of life of the agent, exact to SeenEvery
	Agent   string                 `json:"agent,omitempty"`   // the agent's version
	Problem string                 `json:"problem,omitempty"` // why no job reaches the host: its queue is missing
	Since   time.Time              `json:"since,omitzero"`    // since when there is the problem
	Sources map[string]*SourceJobs `json:"sources,omitempty"` // backups, by name of the source on the host
	Verify  map[string]*SourceJobs `json:"verify,omitempty"`  // verifications by the agent, likewise; where the policy wants some
	Refused []Refusal              `json:"refused,omitempty"` // newest messages that the agent refused, newest first

	Free      map[string]uint64 `json:"free,omitempty"`    // bytes free, by directory to which restores may write
	FreeAt    time.Time         `json:"free_at,omitzero"`  // when the agent told so
	Restoring *Restoring        `json:"restore,omitempty"` // the newest restore that the agent was seen at

	Logs   map[string]events.Log `json:"logs,omitempty"`   // of the sources that the agent follows; times in them are exact to SeenEvery
	Mend   string                `json:"mend,omitempty"`   // what a person must mend on the host, as the agent says
	Broken time.Time             `json:"broken,omitzero"`  // since when
	Told   time.Time             `json:"told_at,omitzero"` // when the agent told what is new of these
}

// Restoring is a restore at which an agent was seen.
type Restoring struct {
	Job     string    `json:"job"`
	Started time.Time `json:"started"`
	Bytes   uint64    `json:"bytes,omitempty"`
	Seen    time.Time `json:"seen"` // exact to SeenEvery
}

// SeenEvery is how often a sign of life alone is worth writing the document. Whoever calls a host silent must allow
// for it.
const SeenEvery = 15 * time.Minute

// maxRefused is how many refusals are remembered.
const maxRefused = 20

// State is how the jobs of a source go. It says nothing about snapshots: package compliance judges those.
type State string

// The states of a source's jobs.
const (
	StateOK      State = "ok"      // the last run went well, or none is known yet
	StateRunning State = "running" // asked for, and within its limits
	StateWaiting State = "waiting" // due, held back by the limit over all hosts
	StateLate    State = "late"    // asked for again: not taken, lost or failed
	StateFailing State = "failing" // the last run was given up, and none has gone well since
)

// SourceJobs is what is known of one source's jobs of one kind.
type SourceJobs struct {
	State    State            `json:"state"`
	Since    time.Time        `json:"since,omitzero"`     // since when the source is in this state
	Error    string           `json:"error,omitempty"`    // why it is late or failing
	Failures int              `json:"failures,omitempty"` // runs given up since the last that went well
	Done     schedule.History `json:"done,omitzero"`      // backups: runs that are settled
	Proofs   schedule.Proofs  `json:"proofs,omitzero"`    // verifications: what receipts showed when somebody looked
	Open     *Job             `json:"open,omitempty"`
	Last     *Ended           `json:"last,omitempty"` // how the newest run ended
}

// Job is a job that has not ended.
type Job struct {
	ID       string         `json:"id"`    // of this attempt
	First    string         `json:"first"` // of the first attempt, which names the run
	Kind     events.JobKind `json:"kind"`
	Type     string         `json:"type,omitempty"`
	Due      time.Time      `json:"due"`
	NotAfter time.Time      `json:"not_after"`
	Attempt  int            `json:"attempt,omitempty"` // 0: the first; those before have failed
	Asked    time.Time      `json:"asked"`             // when this attempt was first asked for
	Sent     time.Time      `json:"sent"`              // when its newest message was put into the queue
	Sends    int            `json:"sends"`             // how many were
	Losses   int            `json:"losses,omitempty"`  // how often it was accepted and then lost
	Accepted time.Time      `json:"accepted,omitzero"` // when the agent had it in its journal
	Seen     time.Time      `json:"seen,omitzero"`     // newest sign that the agent still has it
	Retry    time.Time      `json:"retry,omitzero"`    // this attempt has failed: when the next is asked for
	Error    string         `json:"error,omitempty"`   // what went wrong so far
}

// Ended is how a run ended.
type Ended struct {
	Job      string        `json:"job,omitempty"`
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

// enter puts a source into a state. One that was given up stays failing until a run goes well, whatever is tried.
func (s *SourceJobs) enter(state State, why string, now time.Time) {
	if s.Failures > 0 && state != StateOK {
		state = StateFailing
		if why == "" {
			why = s.Error
		}
	}
	if s.State != state {
		s.State, s.Since = state, now.UTC()
	}
	s.Error = why
}

// kind returns the jobs of one kind, by name of the source.
func (h *HostJobs) kind(k events.JobKind) map[string]*SourceJobs {
	if k == events.Verify {
		return h.Verify
	}
	return h.Sources
}

// holding returns the jobs of a source among which the attempt with this id is open; nil: it is not.
func (h *HostJobs) holding(source, id string) *SourceJobs {
	for _, k := range []events.JobKind{events.Backup, events.Verify} {
		if s := h.kind(k)[source]; s != nil && s.Open != nil && s.Open.ID == id {
			return s
		}
	}
	return nil
}

// settleOpen notes that the run of the open job is not asked for again.
func (s *SourceJobs) settleOpen() {
	j := s.Open
	if j.Kind == events.Verify {
		s.Proofs = s.Proofs.GiveUp(j.Type, j.Due)
		return
	}
	s.Done = s.Done.Settle(snapshot.SnapshotType(j.Type), j.Due)
}

// message is the job as it goes into the queue.
func (j *Job) message(host, source string) *events.Job {
	return &events.Job{
		Version: events.Version, ID: j.ID, Host: host, Source: source, Kind: j.Kind, Type: j.Type, Attempt: j.Attempt,
		Due: j.Due, NotAfter: j.NotAfter,
	}
}

// hasID reports whether id is that of any attempt at the run so far.
func (j *Job) hasID(id string) bool {
	for n := range j.Attempt + 1 {
		if events.RetryID(j.First, n) == id {
			return true
		}
	}
	return id == j.ID
}

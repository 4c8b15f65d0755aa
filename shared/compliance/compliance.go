// Package compliance judges whether a source meets its objectives. It does no I/O: [Evaluate] turns the objectives of a
// policy and what was observed ([Facts]) into [State]s, each with the cause, since when, and the next step as a command
// that can be pasted. [Breached] says whether anything is not met.
//
// The states' texts are stable for equal facts, so that a message is sent once and not at every evaluation: they name
// times, never lengths of time that grow.
//
// Ages are measured by the store's clock: the arrival of a snapshot, less the time that its capture took. A snapshot
// counts for the RPO if it is not partial, not damaged, not announced for deletion, and the host's clock was not more
// than [recovery.ClockTolerance] off.
package compliance

import (
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Code says what is wrong, in a word. Codes never change their meaning.
type Code string

// The codes. The first group is no breach.
const (
	OK           Code = "ok"
	Orphan       Code = "orphan"        // in the repository, not in the policy
	NotProtected Code = "not_protected" // the host can destroy its own history, as far as is known
	Gap          Code = "gap"           // the last days have a gap longer than the RPO
	Unusual      Code = "unusual"       // size or duration far from what it was
	ClockOff     Code = "clock_off"     // the host's clock is off
	Filling      Code = "filling"       // at its growth the source reaches its size limit soon
	CopyUnseen   Code = "copy_unseen"   // the control plane can not look at the copy
	Noted        Code = "noted"         // verify or lifecycle found something by which nothing is lost
	// RetentionWaits is no breach, and people are told of it all the same: they must agree, or change the policy back.
	RetentionWaits Code = "retention_waits"

	Never         Code = "never"          // in the policy, no snapshot
	Late          Code = "late"           // the RPO is missed
	Failing       Code = "failing"        // the last run failed
	Unverified    Code = "unverified"     // not verified in time
	Damaged       Code = "damaged"        // a verification failed, or a manifest can't be read
	Rollback      Code = "rollback"       // the repository ends earlier than what was seen before, or lacks a snapshot
	TooFewCopies  Code = "too_few_copies" // fewer copies than the policy wants
	CopyLate      Code = "copy_late"      // a copy lags behind
	Oversized     Code = "oversized"      // more bytes stored than the policy allows
	Unknown       Code = "unknown"        // an objective that was never measured
	Slow          Code = "slow"           // a restore would take longer than the RTO
	RestoreFailed Code = "restore_failed" // the last measured restore failed
	KeyUnchecked  Code = "key_unchecked"  // the offline identity was not proven in time
	JobLost       Code = "job_lost"       // a job was sent and nobody answered
	NoReceipt     Code = "no_receipt"     // nobody checked the newest snapshot when it arrived
	LockShort     Code = "lock_short"     // locked against deletion for less time than the policy keeps it
	HostSilent    Code = "host_silent"    // the agent was not heard in time
	JobRefused    Code = "job_refused"    // an agent got a message that is no job of ours
	NotLooked     Code = "not_looked"     // nobody could look at the source in time
	Tampered      Code = "tampered"       // somebody deleted or wrote over objects, which versions show
	Unconfirmed   Code = "unconfirmed"    // nobody gets the messages: no subscription is confirmed
	PrimarySilent Code = "primary_silent" // the monitor of the primary region was not at work in time
	ReplicaLate   Code = "replica_late"   // what arrived in the primary region is not in the replica
	LogStopped    Code = "log_stopped"    // the log of a continuous source is not written
	AgentBroken   Code = "agent_broken"   // an agent says that a person must mend something on its host
)

// Codes lists every code, those that are no breach first.
func Codes() []Code {
	return []Code{
		OK, Orphan, NotProtected, Gap, Unusual, ClockOff, Filling, CopyUnseen, Noted, RetentionWaits,
		Never, Late, Failing, Unverified, Damaged, Rollback, TooFewCopies, CopyLate, Oversized, Unknown, Slow, RestoreFailed,
		KeyUnchecked, JobLost, NoReceipt, LockShort, HostSilent, JobRefused, NotLooked, Tampered, Unconfirmed, PrimarySilent, ReplicaLate,
		LogStopped, AgentBroken,
	}
}

// State is the judgement on one objective of one source.
type State struct {
	Source    string    `json:"source"`    // host/source, or the host for its size
	Objective string    `json:"objective"` // rpo, run, log, history, verification, content, restore, protection, copies, size, rto, key_check, clock, usual, policy
	Code      Code      `json:"code"`
	Breach    bool      `json:"breach"`         // an objective is not met
	Since     time.Time `json:"since,omitzero"` // zero where no time can be named
	Cause     string    `json:"cause"`
	Next      string    `json:"next,omitempty"` // a command; empty if there is nothing to do
}

// Snapshot is what is known about a snapshot.
type Snapshot struct {
	recovery.Point
	Bytes   int64 `json:"bytes"`             // content, unsealed
	Checked bool  `json:"checked,omitempty"` // the control plane left a receipt, whatever it found
}

// usable reports whether the snapshot counts for the RPO.
func (s *Snapshot) usable() bool {
	return !s.Partial && !s.Damaged && !s.Condemned && !s.ClockOff()
}

// state is the time whose state the snapshot is sure to hold, by the store's clock.
func (s *Snapshot) state() time.Time {
	if took := s.Finished.Sub(s.Started); took > 0 {
		return s.Arrived.Add(-took)
	}
	return s.Arrived
}

// Run is the last attempt to back the source up, as far as this observer knows.
type Run struct {
	Time  time.Time `json:"time"`
	Error string    `json:"error,omitempty"` // empty: it went well
}

// Copy is the state of the source in one copy of the repository.
type Copy struct {
	Place     string    `json:"place"`            // its address
	Error     string    `json:"error,omitempty"`  // could not be looked at
	Missing   int       `json:"missing"`          // snapshots that are not there yet
	Waiting   time.Time `json:"waiting,omitzero"` // arrival, in the primary, of the oldest of them
	Log       time.Time `json:"log,omitzero"`     // arrival, in the primary, of the oldest records of the log that are not there yet
	Dependent bool      `json:"dependent"`        // whoever can delete the primary can delete it: it does not count as a copy
	Unseen    bool      `json:"unseen,omitempty"` // not from here: nothing is known
}

// Restore is a measured restore.
type Restore struct {
	Time   time.Time     `json:"time"`
	Took   time.Duration `json:"took_ns"`
	Bytes  int64         `json:"bytes"`
	Failed string        `json:"failed,omitempty"` // why it failed; empty: it went well
}

// Facts is what was observed about one source.
type Facts struct {
	Source    snapshot.Source
	Snapshots []Snapshot // ascending by sequence
	// Unreadable are the numbers of snapshots whose manifests are there and can't be read, ascending.
	Unreadable []uint64
	// Missing are numbers, ascending, of which there is neither a snapshot nor a record that retention removed it.
	Missing   []uint64
	LastSeen  uint64 // highest sequence number that this observer ever saw; 0: none
	LastRun   *Run   // nil: not known
	Copies    []Copy
	Protected bool          // it was proven that the host can neither delete nor overwrite what it wrote
	Stored    int64         // bytes of the source's objects in the primary, all versions
	Restored  *Restore      // newest measured restore; nil: none
	Thaw      time.Duration // time until the objects can be read, for cold storage classes
	KeyProven time.Time     // last proof of the offline identity; zero: never
	LogUntil  time.Time     // a continuous source's log reaches to here; zero: no log
	Log       *Log          // how its log is written; nil: it has none, or nothing is known
	Lost      []LostJob     // sent, and neither answered nor made up for since; oldest first
	// CheckWithin is the time in which the control plane checks what arrives; 0: nobody does.
	CheckWithin time.Duration
	Deep        []Deep    // verifications that the policy wants from the agent
	Lock        *Lock     // nil: not known
	Findings    []Finding // of verify and lifecycle, besides what receipts say
	Looked      time.Time // last look that succeeded, where somebody looks again and again; zero: this is that look
	LookError   string    // why the newest look did not
	Growth      []Sample  // bytes stored over time, ascending
}

// LostJob is a job that was sent to the source's agent and that nobody answered.
type LostJob struct {
	ID   string    `json:"id"`
	Kind string    `json:"kind"`
	Due  time.Time `json:"due"`
	Lost time.Time `json:"lost"` // since when it counts as lost
}

// Deep is a verification at a level that needs a key, which the policy wants again and again.
type Deep struct {
	Level  string        // content, restore
	Within time.Duration // the longest time between two
	Proven time.Time     // when one last found everything in order; zero: never
	Error  string        // why the agent can't make it, as far as is known
}

// Lock is how long the least protected object of any snapshot is locked against deletion.
type Lock struct {
	Sequence uint64    `json:"sequence"`         // the snapshot
	Until    time.Time `json:"until,omitzero"`   // zero: not at all
	Wanted   time.Time `json:"wanted,omitzero"`  // by the policy
	Checked  time.Time `json:"checked,omitzero"` // when this was read from the store
}

// Finding is one thing that a function of the control plane found wrong.
type Finding struct {
	By      string    `json:"by"` // arrival, rotation, period, versions, lock, replica
	Problem string    `json:"problem"`
	Detail  string    `json:"detail,omitempty"`
	Key     string    `json:"key"`
	Warning bool      `json:"warning,omitempty"` // nothing is lost by it
	First   time.Time `json:"first"`
}

// Sample is how much was stored at a time.
type Sample struct {
	Time  time.Time `json:"time"`
	Bytes int64     `json:"bytes"`
}

// Evaluate judges a source. Without objectives (nil) the source is not in the policy. The states come in a fixed order,
// one or more for each objective that applies, [OK] included.
func Evaluate(o *policy.Objectives, f Facts, now time.Time) []State {
	e := &evaluation{f: f, now: now}
	if o == nil {
		e.add("policy", Orphan, false, time.Time{}, "the source is in the repository and not in the policy: nobody backs it up", "")
		return e.states
	}
	e.o = *o
	e.looked()
	e.rollback()
	e.missing()
	e.unreadable()
	e.findings()
	e.run()
	e.log()
	if len(f.Snapshots) == 0 {
		what := "the source has no snapshot"
		if len(f.Unreadable) > 0 {
			what += " that can be read"
		}
		e.add("rpo", Never, true, time.Time{}, what, "holdfast backup "+e.name())
		e.lost()
		e.protection()
		return e.states
	}
	e.rpo()
	e.lost()
	e.receipt()
	e.gap()
	e.clock()
	e.damaged()
	e.verification()
	e.deep()
	e.protection()
	e.lock()
	e.copies()
	e.size()
	e.filling()
	e.rto()
	e.keyCheck()
	e.usual()
	return e.states
}

// EvaluateHost judges the bytes stored for all sources of a host. Without objective (0) there is no state.
func EvaluateHost(host string, limit policy.Size, stored int64) []State {
	if limit == 0 {
		return nil
	}
	e := &evaluation{f: Facts{Source: snapshot.Source{Host: host}}}
	e.sizeOf(limit, stored, "holdfast prune --dry-run")
	return e.states
}

// Told reports whether people get a message about a state: about what is not met, and about what waits for them.
func Told(s State) bool { return s.Breach || s.Code == RetentionWaits }

// Breached reports whether any objective is not met.
func Breached(states []State) bool {
	for _, s := range states {
		if s.Breach {
			return true
		}
	}
	return false
}

// Worst returns the state to show where there is room for one: the first breach, else the first that is not OK, else
// the first. It returns the zero state for none.
func Worst(states []State) State {
	var worst State
	rank := -1
	for _, s := range states {
		r := 0
		switch {
		case s.Breach:
			r = 2
		case s.Code != OK:
			r = 1
		}
		if r > rank {
			worst, rank = s, r
		}
	}
	return worst
}

type evaluation struct {
	o      policy.Objectives
	f      Facts
	now    time.Time
	states []State
}

func (e *evaluation) name() string {
	if e.f.Source.Name == "" {
		return e.f.Source.Host
	}
	return e.f.Source.String()
}

func (e *evaluation) add(objective string, code Code, breach bool, since time.Time, cause, next string) {
	if !since.IsZero() {
		since = since.UTC()
	}
	e.states = append(e.states, State{
		Source: e.name(), Objective: objective, Code: code, Breach: breach, Since: since, Cause: cause, Next: next,
	})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// newest returns the newest snapshot for which fits holds, or nil.
func (e *evaluation) newest(fits func(*Snapshot) bool) *Snapshot {
	for i := len(e.f.Snapshots) - 1; i >= 0; i-- {
		if s := &e.f.Snapshots[i]; fits(s) {
			return s
		}
	}
	return nil
}
